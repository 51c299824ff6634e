"""The networks. Owns layers and their initialisation; imports torch alone.

A model's YAML names a function here (or anywhere) that takes `inputs` and `classes`.
"""

from collections.abc import Sequence

from torch import nn


def mlp(inputs: int, classes: int, *, hidden: Sequence[int], batchnorm: str) -> nn.Sequential:
    """Multi-layer perceptron with ReLU: images (batch, inputs) → logits (batch, classes).

    `batchnorm` (Ioffe & Szegedy 2015) is `none`, `after` the ReLU as in the lecture, or `before`
    it as in the paper. Weights start as torch's Linear does, U(±1/√fan_in), from torch's global
    generator. Raises ValueError for a width < 1 or another `batchnorm`.
    """
    widths = list(hidden) if isinstance(hidden, Sequence) and not isinstance(hidden, str) else [0]
    if any(not isinstance(w, int) or isinstance(w, bool) or w < 1 for w in widths):
        raise ValueError(f"model.hidden={hidden}: allowed is a list of whole numbers ≥ 1")
    if batchnorm not in ("none", "after", "before"):
        raise ValueError(f"model.batchnorm={batchnorm}: allowed is none, after or before")
    layers: list[nn.Module] = []
    width = inputs
    for units in widths:
        layers.append(nn.Linear(width, units))
        if batchnorm == "before":
            layers.append(nn.BatchNorm1d(units))
        layers.append(nn.ReLU())
        if batchnorm == "after":
            layers.append(nn.BatchNorm1d(units))
        width = units
    return nn.Sequential(*layers, nn.Linear(width, classes))
