"""Where a study's trials are kept: one Optuna journal per study, one writer at a time.

A journal's only writer is the process that runs the study; it holds the study's lock for as long.
So a trial found RUNNING when the lock is taken was interrupted, and no worker touches the file.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from hydra.utils import instantiate
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from pipeline.config import Config
from pipeline.errors import UserError

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=ExperimentalWarning)  # sampler.group, named on purpose


class JournalLock:
    """Optuna's lock around one append; its default outlives a killed process for 30 s."""

    def __init__(self, path: Path) -> None:
        self.lock = FileLock(path)

    def acquire(self) -> bool:
        """Wait for the lock, then hold it."""
        self.lock.acquire()
        return True

    def release(self) -> None:
        """Let go."""
        self.lock.release()


def journal(path: Path) -> BaseStorage:
    """The storage in one journal file, made where there is none."""
    lock = JournalLock(path.with_suffix(".append.lock"))
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))  # type: ignore[arg-type]


def journal_path(config: Config, study: str) -> Path:
    """mlruns/optuna/<study>.journal."""
    return Path(config.mlruns_dir).resolve() / "optuna" / f"{study}.journal"


@contextmanager
def writing(config: Config, study: str) -> Iterator[BaseStorage]:
    """Hold the study's lock and its storage; UserError where another process holds it."""
    path = journal_path(config, study)
    lock = FileLock(path.with_suffix(".lock"), timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UserError(
            f"study={study}: another process is running it; optstudy status study={study}"
        ) from None
    except OSError as error:
        raise UserError(f"mlruns_dir={config.mlruns_dir}: can't be written: {error}") from error
    try:
        _cut_torn_line(path)
        yield instantiate(config.storage["build"])(path)
    finally:
        lock.release()


def reading(config: Config, study: str) -> BaseStorage:
    """The storage of a study that exists, for a look; UserError where it doesn't."""
    path = journal_path(config, study)
    if not path.is_file():
        known = ", ".join(existing(config)) or "none yet"
        raise UserError(
            f"study={study}: not run yet (run so far: {known}); optstudy run study={study}"
        )
    storage: BaseStorage = instantiate(config.storage["build"])(path)
    return storage


def existing(config: Config) -> list[str]:
    """The names of all studies that have a journal."""
    return sorted(path.stem for path in journal_path(config, "x").parent.glob("*.journal"))


def is_running(config: Config, study: str) -> bool:
    """Whether some process holds the study's lock."""
    try:
        with FileLock(journal_path(config, study).with_suffix(".lock"), timeout=0):
            return False
    except Timeout:
        return True


def _cut_torn_line(path: Path) -> None:
    # A full disk or a power cut can leave half a line, after which every load would raise.
    if path.is_file() and not (content := path.read_bytes()).endswith(b"\n") and content:
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)
