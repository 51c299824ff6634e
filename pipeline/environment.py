"""What a run was made with: versions, machine, commit. Imports nothing of the project."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path


def environment() -> dict[str, str]:
    """Tags that say what a run was made with: versions, machine, commit, dirty tree or not."""
    here = Path(__file__).parent
    tags = {f"version.{name}": version(name) for name in ("optstudy", "torch", "numpy", "optuna")}
    tags["version.python"] = platform.python_version()
    tags["machine"] = f"{platform.machine()}, {os.cpu_count()} cores"
    commit = _git(here, "rev-parse", "HEAD")
    if commit is not None:
        tags["git.commit"] = commit
        tags["git.dirty"] = str(bool(_git(here, "status", "--porcelain"))).lower()
    return tags


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None  # not a git checkout, or no git: the tag is left out
    return done.stdout.strip()
