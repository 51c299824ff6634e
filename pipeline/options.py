"""Where the YAMLs of conf/ lie, those that ship and a user's own, and what they set.

Imports no Hydra: help and completion are made of this.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError


def conf_dir() -> Path:
    """The shipped conf/: inside an installed wheel, else beside the package."""
    packaged = Path(__file__).parent / "_conf"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "conf"


def own_dir() -> Path | None:
    """A `conf/` in the working directory, which adds YAMLs of one's own; None without one."""
    own = Path.cwd() / "conf"
    return own if own.is_dir() and own.resolve() != conf_dir().resolve() else None


def search_path() -> list[str]:
    """The override that lets Hydra find a user's own YAMLs, if there are any."""
    own = own_dir()
    return [f"hydra.searchpath=['file://{own}']"] if own else []


def state() -> tuple[tuple[str, int], ...]:
    """Every YAML with when it was changed last: equal while none was edited, added or removed."""
    folders = filter(None, (conf_dir(), own_dir()))
    return tuple((str(p), p.stat().st_mtime_ns) for d in folders for p in d.rglob("*.yaml"))


def is_group(name: str) -> bool:
    """Whether a folder of YAMLs has that name."""
    return any((folder / name).is_dir() for folder in filter(None, (own_dir(), conf_dir())))


def options(group: str) -> list[str]:
    """The YAMLs of a config group, such as `optimizer`, by name."""
    return sorted({path.stem for path in _files(group)})


def yaml_of(group: str, option: str) -> Path | None:
    """The file of an option; the user's own goes before one that ships, as in Hydra."""
    return next((path for path in _files(group) if path.stem == option), None)


def settings(group: str, option: str) -> set[str]:
    """The keys that an option's YAML itself sets: `{"name", "lr"}` of `optimizer=sgd`.

    None where it can't be read: whoever asks is about to say another error.
    """
    path = yaml_of(group, option)
    try:
        loaded: Any = OmegaConf.load(path) if path else {}
    except YAMLError:
        return set()
    return {str(key) for key in loaded.get(group, loaded)} if OmegaConf.is_dict(loaded) else set()


def _files(group: str) -> Iterator[Path]:
    for folder in filter(None, (own_dir(), conf_dir())):
        yield from (folder / group).glob("*.yaml") if group else ()
