"""Checkpoints of a study's runs under way, one file each: where a run that was lost goes on.

A file is a line that says whose it is, by which code and what its digest is, and then the bytes of
`pipeline.checkpoint`. It is replaced whole, so that a kill leaves the one before. One that is
damaged, or another code's, is none: its run is trained from the beginning, to the same end.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.environment import code_fingerprint
from pipeline.errors import UserError
from studies.search.progress import Due


@dataclass(frozen=True)
class Checkpoints:
    """Those of one study, in a folder of their own."""

    folder: Path

    def write(self, due: Due, run_id: str, state: bytes) -> None:
        """Put the run's new checkpoint in the place of its last; raises UserError."""
        head = {"run_id": run_id, "code": code_fingerprint(), "sha256": _digest(state)}
        file = self._file(due)
        with self._errors():
            self.folder.mkdir(parents=True, exist_ok=True)
            unfinished = file.with_suffix(".new")
            unfinished.write_bytes(json.dumps(head).encode() + b"\n" + state)
            os.replace(unfinished, file)

    def read(self, due: Due) -> tuple[str, bytes] | None:
        """The id of the run that goes on, and its state; None where there is nothing to go on."""
        try:
            line, _, state = self._file(due).read_bytes().partition(b"\n")
            head = json.loads(line)
            run_id = str(head["run_id"])
        except (OSError, ValueError, TypeError, KeyError):
            return None
        known = {"run_id": run_id, "code": code_fingerprint(), "sha256": _digest(state)}
        return (run_id, state) if head == known else None

    def remove(self, due: Due) -> None:
        """Forget a run that has ended, or begins again."""
        with self._errors():
            self._file(due).unlink(missing_ok=True)

    def keep(self, due: Iterable[Due], runs: Iterable[str]) -> set[str]:
        """Of `runs` those that can go on, being due; every other file is removed."""
        there, kept = set(runs), dict[Path, str]()
        for each in due:
            saved = self.read(each)
            if saved is not None and saved[0] in there:
                kept[self._file(each)] = saved[0]
        with self._errors():
            for file in self.folder.glob("*"):
                if file not in kept:
                    file.unlink()
        return set(kept.values())

    def _file(self, due: Due) -> Path:
        parts = (due.arm, due.search, due.trial, due.seed, due.epochs)
        # A comma, which no arm's name has: two runs never share a file.
        return self.folder / f"{','.join(str(part) for part in parts if part is not None)}.pt"

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"{self.folder}: can't be written: {error}") from error


def _digest(state: bytes) -> str:
    return hashlib.sha256(state).hexdigest()
