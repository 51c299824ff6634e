"""What goes on inside a network while it trains: a hidden unit's input, a gradient's noise.

Measured between epochs on a copy of the model: training goes on as if nothing had been measured.
Imports torch alone.
"""

import copy
import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

PERCENTILES = (15, 50, 85)  # those of Ioffe & Szegedy 2015, figure 1


@torch.no_grad()
def last_hidden_layer(model: nn.Module, batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """What enters the last hidden layer's ReLUs and what the output layer then receives.

    Both (images, units) over all of `batches` of images, in train mode: BatchNorm normalises by
    the batch, as it does while it trains. They differ by the ReLU, and by BatchNorm where it stands
    after it. The model has a ReLU.
    """
    model = copy.deepcopy(model).train()
    rectifiers = [m for m in model.modules() if isinstance(m, nn.ReLU)]
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    entering, received = list[Tensor](), list[Tensor]()
    rectifiers[-1].register_forward_pre_hook(lambda _, args: entering.append(args[0].clone()))
    layers[-1].register_forward_pre_hook(lambda _, args: received.append(args[0].clone()))
    for images in batches:
        model(images)
    return torch.cat(entering), torch.cat(received)


def typical_unit(entering: Tensor) -> int:
    """The unit whose input has the median standard deviation of its layer's (images, units)."""
    return int(entering.std(0).argsort()[entering.shape[1] // 2])


def percentiles(name: str, values: Tensor) -> dict[str, float]:
    """`{name_p15: …, name_p50: …, name_p85: …}` of values (images,)."""
    levels = torch.tensor(PERCENTILES, device=values.device) / 100
    at_levels = torch.quantile(values.float(), levels).tolist()
    return {f"{name}_p{p}": value for p, value in zip(PERCENTILES, at_levels, strict=True)}


def gradient_noise(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    mean_loss: Callable[[Tensor, Tensor], Tensor],
) -> dict[str, float]:
    """The variance of minibatch gradients g about the full gradient G, over one pass.

    `gradient/variance` is E‖g − G‖² = E‖g‖² − ‖G‖² and `gradient/full_squared` ‖G‖²; G is the mean
    of g over the pass, which is exact for batches of one size (with BatchNorm the batch's own
    statistics are part of g). `gradient/noise_scale` is B·variance/‖G‖², in images: the batch size
    at which the two are equal (tr Σ/‖G‖², the simple noise scale of McCandlish et al. 2018).
    `batches` yields images (B, …) and labels (B,).
    """
    model = copy.deepcopy(model).train()
    parameters = list(model.parameters())
    total = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
    squares, count, size = 0.0, 0, 0
    for images, labels in batches:
        gradients = torch.autograd.grad(mean_loss(model(images), labels), parameters)
        for sum_, gradient in zip(total, gradients, strict=True):
            sum_ += gradient
        squares += sum(float(g.double().square().sum()) for g in gradients)
        count, size = count + 1, len(labels)
    full = sum(float((sum_ / count).square().sum()) for sum_ in total)
    if not math.isfinite(squares):  # the squares overflow: nothing is known
        return {}
    variance = max(0.0, squares / count - full)  # rounding can take it below
    figures = {"gradient/variance": variance, "gradient/full_squared": full}
    return figures | ({"gradient/noise_scale": size * variance / full} if full > 0 else {})
