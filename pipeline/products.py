"""The matrix products of linear layers on the CPU, by the library that this processor likes best.

torch hands them to MKL, which leaves some of an AMD processor with AVX-512 idle; oneDNN, which
torch ships as well, doesn't, but each call costs 0.1 ms more. So large products are oneDNN's there.
Which of the two it is depends on processor and size alone, never on a timing: the runs of a study
must not differ. Everywhere else torch's own path stays.
"""

from functools import partial

import torch
from torch import Tensor, nn

from pipeline.environment import products

LARGE = 2**25  # multiplications of a product: from 110 images on, for a layer of 3072 × 100


def use_fastest(model: nn.Module, device: torch.device) -> nn.Module:
    """Let the model's large products be oneDNN's where `products()` says so; the model.

    Weights, their names and their gradients stay what they are, but for the products' rounding.
    """
    if device.type == "cpu" and products() == "onednn":
        for layer in model.modules():
            if type(layer) is nn.Linear:
                layer.forward = partial(linear, layer)  # type: ignore[method-assign]
    return model


def linear(layer: nn.Linear, inputs: Tensor) -> Tensor:
    """`layer` of inputs (batch, in) → (batch, out); small or under autocast, torch's own."""
    small = len(inputs) * layer.weight.numel() < LARGE
    if small or torch.is_autocast_enabled("cpu"):
        return nn.functional.linear(inputs, layer.weight, layer.bias)
    outputs: Tensor = _Linear.apply(inputs, layer.weight, layer.bias)
    return outputs


class _Linear(torch.autograd.Function):
    """x Wᵀ + b by the operator that torch's own compiler emits for it, and its gradients."""

    @staticmethod
    def forward(ctx, inputs, weight, bias):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(inputs, weight)
        ctx.biased = bias is not None
        return _product(inputs, weight, bias)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        inputs, weight = ctx.saved_tensors
        by_inputs = _product(gradient, weight.T) if ctx.needs_input_grad[0] else None
        by_bias = gradient.sum(0) if ctx.biased else None
        return by_inputs, _product(gradient.T, inputs.T), by_bias


def _product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """left (m, k) · rightᵀ (k, n) + bias (n,)."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
    return product
