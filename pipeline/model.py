"""The networks. Owns layers and their initialisation; imports torch and pipeline.errors.

A model's YAML names a function here (or anywhere) that takes `inputs` and `classes`.
"""

from collections.abc import Sequence

from torch import nn

from pipeline.errors import check, is_whole

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}


def mlp(
    inputs: int, classes: int, *, hidden: Sequence[int], batchnorm: str, activation: str = "relu"
) -> nn.Sequential:
    """Multi-layer perceptron: images (batch, inputs) → logits (batch, classes).

    `activation` is that of the hidden units: `relu`, `sigmoid` or `tanh`. `batchnorm` (Ioffe &
    Szegedy 2015) is `none`, `after` it as in the lecture, or `before` it as in the paper. Weights
    start as torch's Linear does, U(±1/√fan_in), whatever the activation, from torch's global
    generator. Raises UserError for a width < 1, another `batchnorm` or `activation`.
    """
    widths = list(hidden) if isinstance(hidden, Sequence) and not isinstance(hidden, str) else [0]
    check("model.hidden", hidden, all(map(is_whole, widths)), "a list of whole numbers ≥ 1")
    known = batchnorm in ("none", "after", "before")
    check("model.batchnorm", batchnorm, known, "none, after or before")
    check("model.activation", activation, activation in ACTIVATIONS, "relu, sigmoid or tanh")
    layers: list[nn.Module] = []
    width = inputs
    for units in widths:
        layers.append(nn.Linear(width, units))
        if batchnorm == "before":
            layers.append(nn.BatchNorm1d(units))
        layers.append(ACTIVATIONS[activation]())
        if batchnorm == "after":
            layers.append(nn.BatchNorm1d(units))
        width = units
    return nn.Sequential(*layers, nn.Linear(width, classes))
