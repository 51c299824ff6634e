"""All that going on with a run from the end of an epoch needs, as bytes.

Knows tensors and records. Read back with `weights_only`: bytes that come from a disk or another
machine run no code.
"""

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pipeline.results import Epoch, Result


@dataclass(frozen=True)
class State:
    """What changes while a run trains; `shuffling` draws the order of every pass."""

    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler
    shuffling: torch.Generator

    def save(self, epoch: Epoch, result: Result, weights: Mapping[str, Tensor]) -> bytes:
        """The run at the end of `epoch`, `result` what it came to by then.

        `weights` are the best epoch's, empty where they aren't kept.
        """
        file = io.BytesIO()
        saved = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "shuffling": self.shuffling.get_state(),
            "epoch": asdict(epoch),
            "best": None if result.best is None else asdict(result.best),
            "internals": [(step, dict(figures)) for step, figures in result.internals],
            "weights": dict(weights),
        }
        torch.save(saved, file)
        return file.getvalue()

    def restore(self, checkpoint: bytes, result: Result) -> tuple[Epoch, Result, dict[str, Tensor]]:
        """Give all of it the saved state back, in place; `save`'s epoch and weights.

        Of its result the best epoch and the internals are in `result`: the rest follows from the
        epoch.
        """
        saved = torch.load(io.BytesIO(checkpoint), map_location="cpu", weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scheduler.load_state_dict(saved["scheduler"])
        self.shuffling.set_state(saved["shuffling"])
        best = None if saved["best"] is None else Epoch(**saved["best"])
        known = replace(result, best=best, internals=tuple(saved["internals"]))
        return Epoch(**saved["epoch"]), known, saved["weights"]
