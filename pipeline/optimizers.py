"""Optimizers that torch has otherwise than the textbook. Imports torch alone.

What is torch's own is named by its YAML in conf/optimizer; only what isn't is here.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer


class TextbookRMSProp(Optimizer):
    """RMSProp of Goodfellow et al. (2016), algorithm 8.5, whose δ stands inside the root.

    r ← ρ r + (1 − ρ) g²; θ ← θ − ε g / √(δ + r), from r = 0, with `lr` ε, `rho` ρ, `delta` δ.
    torch's divides by √r + δ: where r is small, that lets steps grow much longer.
    """

    def __init__(
        self, params: Iterable[torch.nn.Parameter], *, lr: float, rho: float, delta: float
    ) -> None:
        super().__init__(params, {"lr": lr, "rho": rho, "delta": delta})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient; `closure`, as all of torch's take it."""
        assert closure is None, "gradients are there before the step"
        for group in self.param_groups:
            for parameter in group["params"]:
                if (g := parameter.grad) is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["square_avg"] = torch.zeros_like(parameter)
                r = state["square_avg"]
                r.mul_(group["rho"]).addcmul_(g, g, value=1 - group["rho"])
                parameter.addcdiv_(g, (r + group["delta"]).sqrt_(), value=-group["lr"])
