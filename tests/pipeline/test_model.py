"""The networks' layers, and BatchNorm's two modes worked out by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from recording import Recorded, config_of, evaluated, network, split
from torch import Tensor, nn

from pipeline import train
from pipeline.data import DataSet
from pipeline.errors import UserError
from pipeline.model import mlp

CPU = torch.device("cpu")


def batch(rows: int = 12, width: int = 6, seed: int = 1) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * 3 + 1


def normalisation(model: nn.Sequential) -> nn.BatchNorm1d:
    """The first BatchNorm of a model, its scale and shift away from 1 and 0."""
    layer = next(module for module in model if isinstance(module, nn.BatchNorm1d))
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(0.5, 1.5, layer.num_features))
        layer.bias.copy_(torch.linspace(-1, 1, layer.num_features))
    return layer


def by_hand(x: Any, mean: Any, variance: Any, layer: nn.BatchNorm1d) -> Any:
    """γ (x − μ) / √(σ² + ε) + β of Ioffe & Szegedy 2015, in numpy."""
    gamma, beta = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    return gamma * (x - mean) / np.sqrt(variance + layer.eps) + beta


def into(model: nn.Sequential, layer: nn.Module, images: Tensor) -> tuple[Any, Any]:
    """What goes into `layer` and what comes out of it, as numpy."""
    seen: list[Any] = []
    handle = layer.register_forward_hook(
        lambda module, inputs, output: seen.extend([inputs[0].detach(), output.detach()])
    )
    model(images)
    handle.remove()
    return seen[0].numpy(), seen[1].numpy()


LAYERS = [
    ([], "none", "Linear"),
    ([], "after", "Linear"),
    ([5], "none", "Linear ReLU Linear"),
    ([5], "after", "Linear ReLU BatchNorm1d Linear"),
    ([5], "before", "Linear BatchNorm1d ReLU Linear"),
    ([5, 4], "after", "Linear ReLU BatchNorm1d Linear ReLU BatchNorm1d Linear"),
    ([5, 4], "before", "Linear BatchNorm1d ReLU Linear BatchNorm1d ReLU Linear"),
]


@pytest.mark.parametrize(("hidden", "batchnorm", "layers"), LAYERS)
def test_layers_stand_in_order(hidden: list[int], batchnorm: str, layers: str) -> None:
    model = mlp(6, 3, hidden=hidden, batchnorm=batchnorm)
    assert " ".join(type(layer).__name__ for layer in model) == layers


@pytest.mark.parametrize(
    ("activation", "layer"), [("relu", "ReLU"), ("sigmoid", "Sigmoid"), ("tanh", "Tanh")]
)
def test_the_activation_stands_in_the_relus_place_and_leaves_the_weights(
    activation: str, layer: str, digits: DataSet
) -> None:
    overrides = ["data=digits", "model=mlp_batchnorm", "model.hidden=[5,4]"]
    plain = train.build_model(config_of(*overrides), 64, 10)
    built = train.build_model(config_of(*overrides, f"model.activation={activation}"), 64, 10)
    assert str(built) == str(plain).replace("ReLU", layer)
    pairs = zip(built.parameters(), plain.parameters(), strict=True)
    assert all(torch.equal(weight, other) for weight, other in pairs)


@pytest.mark.parametrize("hidden", [[], [5], [5, 4, 7]])
def test_widths_run_from_inputs_to_classes(hidden: list[int]) -> None:
    model = mlp(6, 3, hidden=hidden, batchnorm="none")
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    widths = [(layer.in_features, layer.out_features) for layer in linear]
    assert widths == list(zip([6, *hidden], [*hidden, 3], strict=True))
    assert model(batch()).shape == (12, 3)


@pytest.mark.parametrize(
    ("overrides", "batchnorm"),
    [
        (["model=mlp"], "none"),
        (["model=mlp_batchnorm"], "after"),
        (["model=mlp_batchnorm", "model.batchnorm=before"], "before"),
    ],
)
def test_the_yaml_builds_the_perceptron_it_names(overrides: list[str], batchnorm: str) -> None:
    built = train.build_model(config_of("data=digits", *overrides), 3072, 10)
    assert str(built) == str(mlp(3072, 10, hidden=[100], batchnorm=batchnorm))


@pytest.mark.parametrize("hidden", [5, "5", [0], [-1], [5, 1.5], None, [True]])
def test_a_bad_width_is_refused(hidden: Any) -> None:
    with pytest.raises(ValueError) as caught:
        mlp(6, 3, hidden=hidden, batchnorm="none")
    expected = f"model.hidden={hidden}: allowed is a list of whole numbers ≥ 1"
    assert str(caught.value) == expected


@pytest.mark.parametrize("batchnorm", ["After", "", "yes", None, True])
def test_a_bad_batchnorm_is_refused(batchnorm: Any) -> None:
    with pytest.raises(ValueError) as caught:
        mlp(6, 3, hidden=[5], batchnorm=batchnorm)
    assert str(caught.value) == f"model.batchnorm={batchnorm}: allowed is none, after or before"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.hidden=[0]", "model.hidden=[0]: allowed is a list of whole numbers ≥ 1"),
        ("model.batchnorm=both", "model.batchnorm=both: allowed is none, after or before"),
        ("model.activation=ReLU", "model.activation=ReLU: allowed is relu, sigmoid or tanh"),
    ],
)
def test_a_bad_setting_is_a_user_error(override: str, expected: str, digits: DataSet) -> None:
    with pytest.raises(UserError) as caught:
        train.check_buildable(config_of("data=digits", override), digits)
    assert str(caught.value) == expected


@pytest.mark.parametrize("batchnorm", ["before", "after"])
def test_training_normalises_by_the_batch(batchnorm: str) -> None:
    model = mlp(6, 3, hidden=[5], batchnorm=batchnorm).train()
    layer = normalisation(model)
    x, y = into(model, layer, batch())
    assert np.allclose(y, by_hand(x, x.mean(0), x.var(0), layer), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batchnorm", ["before", "after"])
def test_evaluation_normalises_by_the_running_statistics(batchnorm: str) -> None:
    model = mlp(6, 3, hidden=[5], batchnorm=batchnorm).train()
    layer = normalisation(model)
    model(batch(seed=2))
    assert layer.running_mean is not None and layer.running_var is not None
    mean, variance = layer.running_mean.numpy().copy(), layer.running_var.numpy().copy()
    x, y = into(model.eval(), layer, batch())
    assert np.allclose(y, by_hand(x, mean, variance, layer), rtol=1e-4, atol=1e-5)


def test_running_statistics_move_a_tenth_towards_the_batch_with_unbiased_variance() -> None:
    model = mlp(6, 3, hidden=[5], batchnorm="before").train()
    layer = normalisation(model)
    mean, variance = np.zeros(5), np.ones(5)
    for seed in range(3):
        x, _ = into(model, layer, batch(seed=seed))
        mean = 0.9 * mean + 0.1 * x.mean(0)
        variance = 0.9 * variance + 0.1 * x.var(0, ddof=1)
    assert layer.running_mean is not None and layer.running_var is not None
    assert np.allclose(layer.running_mean.numpy(), mean, rtol=1e-4, atol=1e-6)
    assert np.allclose(layer.running_var.numpy(), variance, rtol=1e-4)


def test_an_evaluated_image_does_not_depend_on_its_companions() -> None:
    model = mlp(6, 3, hidden=[5], batchnorm="after").train()
    model(batch(seed=2))
    images = batch()
    together = model.eval()(images)
    alone = torch.cat([model(image[None]) for image in images])
    assert torch.allclose(together, alone, atol=1e-5)
    assert not torch.allclose(model.train()(images), together, atol=1e-2)


def test_evaluation_leaves_the_running_statistics_alone() -> None:
    model = network(batchnorm=True).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    evaluated(model, split(10))
    assert model.training  # and the mode in which it came
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_validation_during_training_leaves_the_running_statistics_alone() -> None:
    model = network(batchnorm=True)
    Recorded(model, split(12), batch_size=4, epochs=3, validation=split(9, seed=1))
    (layer,) = (module for module in model.modules() if isinstance(module, nn.BatchNorm1d))
    assert layer.num_batches_tracked is not None
    assert int(layer.num_batches_tracked) == 9  # three updates an epoch, no more
