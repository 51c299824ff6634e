"""What a run was made with: versions, machine, commit, code. Imports nothing of the project."""

import hashlib
import os
import platform
import re
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path


def environment() -> dict[str, str]:
    """Tags that say what a run was made with: versions, machine, commit, dirty tree or not."""
    tags = {f"version.{name}": version(name) for name in ("optstudy", "torch", "numpy", "optuna")}
    tags["version.python"] = platform.python_version()
    tags["machine"] = f"{platform.machine()}, {os.cpu_count()} cores"
    tags["products"] = products()
    if (commit := _git("rev-parse", "HEAD")) is not None:
        tags["git.commit"] = commit
        tags["git.dirty"] = str(bool(_git("status", "--porcelain"))).lower()
    return tags


@cache
def products() -> str:
    """The library of large matrix products on this CPU: `onednn` or, as torch calls it, `mkl`."""
    try:
        return products_of(Path("/proc/cpuinfo").read_text())
    except OSError:
        return "mkl"  # no Linux, or a processor that doesn't say


def products_of(cpuinfo: str) -> str:
    """`onednn` for an AMD processor with AVX-512, as /proc/cpuinfo describes it; else `mkl`."""
    amd, wide = "AuthenticAMD" in cpuinfo, re.search(r"\bavx512f\b", cpuinfo) is not None
    return "onednn" if amd and wide else "mkl"


@cache
def code_fingerprint() -> str:
    """16 hex digits over the project's own source files, as they were when this was first asked.

    A process that has another trains other runs, whatever commit it says it is at.
    """
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for file in sorted((*root.glob("pipeline/**/*.py"), *root.glob("studies/**/*.py"))):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None  # not a git checkout, or no git: the tag is left out
    return done.stdout.strip()
