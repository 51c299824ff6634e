"""oneDNN's products against torch's own, and who gets which."""

import pytest
import torch
from recording import configured, noting
from torch import nn
from torch.utils._pytree import tree_map

from pipeline import environment, products, train
from pipeline.data import DataSet
from pipeline.model import mlp
from pipeline.results import Epoch

AMD = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 avx512f avx512dq\n"
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "cpuinfo, library",
    [
        (AMD, "onednn"),
        (AMD.replace("avx512f ", ""), "mkl"),  # before Zen 4
        (AMD.replace("AuthenticAMD", "GenuineIntel"), "mkl"),
        ("", "mkl"),
    ],
)
def test_the_processor_alone_says_which_library_multiplies(cpuinfo: str, library: str) -> None:
    assert environment.products_of(cpuinfo) == library


def test_a_run_is_tagged_with_its_library() -> None:
    assert environment.environment()["products"] == environment.products()


@pytest.fixture
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "LARGE", 0)


@pytest.mark.parametrize(
    "batch, wide, narrow, by_onednn",
    [(128, 3072, 100, True), (32, 3072, 100, False), (128, 100, 10, False), (1, 3072, 100, False)],
)
def test_only_large_products_are_worth_a_call_of_onednn(
    batch: int, wide: int, narrow: int, by_onednn: bool
) -> None:
    outputs = products.linear(nn.Linear(wide, narrow), torch.randn(batch, wide))
    assert ("_Linear" in type(outputs.grad_fn).__name__) == by_onednn


@pytest.mark.parametrize("size", [1, 3, 128])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.usefixtures("any_size")
def test_onednn_gives_torchs_outputs_and_gradients(size: int, bias: bool) -> None:
    torch.manual_seed(0)
    layer, inputs = nn.Linear(70, 9, bias=bias), torch.randn(size, 70, requires_grad=True)
    outward = torch.randn(size, 9)

    def figures(outputs: torch.Tensor) -> list[torch.Tensor]:
        inputs.grad, layer.weight.grad = None, None
        layer.zero_grad()
        outputs.backward(outward)  # type: ignore[no-untyped-call]
        given = [inputs.grad, *(parameter.grad for parameter in layer.parameters())]
        return [outputs.detach(), *(g.clone() for g in given if g is not None)]

    own, other = figures(layer(inputs)), figures(products.linear(layer, inputs))
    assert len(own) == len(other) == 3 + bias
    for one, two in zip(own, other, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


@pytest.fixture
def onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "products", lambda: "onednn")


@pytest.mark.usefixtures("onednn")
def test_weights_keep_their_names_and_values() -> None:
    own = mlp(12, 3, hidden=[5], batchnorm="after")
    before = tree_map(torch.clone, own.state_dict())
    assert products.use_fastest(own, CPU).state_dict().keys() == before.keys()
    assert all(torch.equal(before[key], value) for key, value in own.state_dict().items())


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("model", ["mlp", "mlp_batchnorm"])
def test_a_run_by_onednn_is_one_by_torch_but_for_rounding(
    model: str, digits: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losses(library: str) -> list[float]:
        monkeypatch.setattr(products, "products", lambda: library)
        epochs: list[Epoch] = []
        train.run(configured(f"model={model}"), digits, on_epoch=noting(epochs))
        return [loss for epoch in epochs for loss in (epoch.train_loss, epoch.val_loss)]

    assert losses("onednn") == pytest.approx(losses("mkl"), rel=1e-4)


@pytest.mark.usefixtures("onednn", "any_size")
def test_autocast_stays_torchs_own() -> None:
    layer, inputs = nn.Linear(4, 2), torch.randn(3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert products.linear(layer, inputs).dtype is torch.bfloat16
