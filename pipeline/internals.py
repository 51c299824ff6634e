"""What goes on inside a network while it trains: a hidden unit's input, a gradient's noise, the
rate at which an adaptive optimizer moves the weights.

Measured between epochs on a copy of the model: training goes on as if nothing had been measured.
Imports torch alone.
"""

import copy
import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

MEASURED = 5000  # minibatches at most: all from 9 images of CIFAR-10 on, a ninth of them online
PERCENTILES = (15, 50, 85)  # those of Ioffe & Szegedy 2015, figure 1
SQUARES = ("sum", "square_avg", "exp_avg_sq")  # what torch's AdaGrad, RMSProp and Adam call r


@torch.no_grad()
def last_hidden_layer(model: nn.Module, batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """What enters the last hidden layer's activation and what the output layer then receives.

    Both (images, units) over all of `batches` of images, in train mode: BatchNorm normalises by
    the batch, as it does while it trains. They differ by the activation, and by BatchNorm where it
    stands after it. The model has such a layer: `ends`.
    """
    model = copy.deepcopy(model).train()
    parts = ends(model)
    assert parts is not None
    entering, received = list[Tensor](), list[Tensor]()
    for part, seen in zip(parts, (entering, received), strict=True):
        # `seen` is bound now: the loop goes on
        part.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0].clone()))
    for images in batches:
        model(images)
    return torch.cat(entering), torch.cat(received)


def ends(model: nn.Module) -> tuple[nn.Module, nn.Module] | None:
    """The last hidden layer's activation, of any kind that torch has, and the output layer.

    That is the last Linear, and the last activation before it; None without either.
    """
    before: nn.Module | None = None
    found: tuple[nn.Module, nn.Module] | None = None
    for module in model.modules():
        if type(module).__module__ == nn.ReLU.__module__:
            before = module
        elif isinstance(module, nn.Linear) and before is not None:
            found = before, module
    return found


def typical_unit(entering: Tensor) -> int:
    """The unit whose input has the median standard deviation of its layer's (images, units)."""
    return int(entering.std(0).argsort()[entering.shape[1] // 2])


def percentiles(name: str, values: Tensor) -> dict[str, float]:
    """`{name_p15: …, name_p50: …, name_p85: …}` of values (n,), interpolated."""
    ordered, last = values.float().sort().values, len(values) - 1  # quantile takes no 17 million
    figures = {}
    for p in PERCENTILES:
        below, beyond = divmod(p / 100 * last, 1)
        around = ordered[int(below)], ordered[min(int(below) + 1, last)]
        figures[f"{name}_p{p}"] = float(torch.lerp(*around, beyond))
    return figures


def gradient_noise(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    mean_loss: Callable[[Tensor, Tensor], Tensor],
    share: float = 1.0,
) -> dict[str, float]:
    """The variance of minibatch gradients g about the full gradient G.

    `batches` yields images (B, …) and labels (B,): k minibatches that share no image, a `share` in
    (0, 1] of all there are. `gradient/variance` is that of independently drawn images, σ²/B: with
    ḡ the mean of g, (E‖g‖² − ‖ḡ‖²)·k/(k − 1); 0 where one holds all. `gradient/full_squared` is
    ‖G‖² = ‖ḡ‖² − (1 − share)·variance/k, as the mean of a sample is too long by its own variance;
    of all it is exact for batches of one size (with BatchNorm the batch's own statistics are part
    of g). `gradient/noise_scale` is B·variance/‖G‖², in images: the batch size at which the two are
    equal (tr Σ/‖G‖², the simple noise scale of McCandlish et al. 2018).
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
    mean = sum(float((sum_ / count).square().sum()) for sum_ in total)
    if not math.isfinite(squares):  # the squares overflow: nothing is known
        return {}
    shared = count / (count - 1) if count > 1 else 0.0
    variance = shared * max(0.0, squares / count - mean)  # rounding can take it below
    full = max(0.0, mean - (1 - share) * variance / count)
    figures = {"gradient/variance": variance, "gradient/full_squared": full}
    return figures | ({"gradient/noise_scale": size * variance / full} if full > 0 else {})


def effective_rates(optimizer: Optimizer, lr: float) -> dict[str, float]:
    """Percentiles over weights of ε/(√r + δ), what an adaptive optimizer multiplied each gradient
    by (Adam: each first moment) in its last update, made at learning rate ε = `lr`.

    r are AdaGrad's accumulated squares, RMSProp's average or Adam's, corrected; δ stands where the
    optimizer has it: `eps` outside the root, `delta` inside. Weights that never had a gradient have
    no rate; nothing where none has, or the optimizer keeps no squares.
    """
    rates = []
    for group in optimizer.param_groups:
        for state in (optimizer.state[p] for p in group["params"] if p in optimizer.state):
            squares = next((state[name] for name in SQUARES if name in state), None)
            if squares is None:
                continue
            r = squares[squares > 0]
            if "exp_avg_sq" in state:
                r = r / (1 - group["betas"][1] ** float(state["step"]))
            rates.append(lr / ((r + group.get("delta", 0.0)).sqrt() + group.get("eps", 0.0)))
    every = torch.cat(rates) if rates else torch.empty(0)
    return percentiles("optimizer/rate", every) if len(every) else {}
