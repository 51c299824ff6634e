"""What is measured inside a network, each figure worked out another way, and when it is."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from recording import configured, loader, noting, reloaded, softmax
from torch import Tensor, nn

from pipeline import data, internals, train, trainer
from pipeline.config import Loss
from pipeline.data import DataSet
from pipeline.errors import UserError
from pipeline.model import mlp
from pipeline.results import Epoch, Phase, Result

CLASSES = 3
FIGURES = {
    *(f"unit/{side}_p{p}" for side in ("input", "output") for p in (15, 50, 85)),
    *(f"gradient/{name}" for name in ("variance", "full_squared", "noise_scale")),
}


RATES = {f"optimizer/rate_p{p}" for p in (15, 50, 85)}


def network(hidden: list[int], batchnorm: str = "none", activation: str = "relu") -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return mlp(6, CLASSES, hidden=hidden, batchnorm=batchnorm, activation=activation)


def batches(count: int = 4, size: int = 5) -> list[tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(1)
    images = torch.randn(count * size, 6, generator=random)
    labels = torch.randint(0, CLASSES, (count * size,), generator=random)
    return list(zip(torch.split(images, size), torch.split(labels, size), strict=True))


def mean_log_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return trainer.summed_loss(logits, labels, Loss.log) / len(labels)


# A hidden unit's input and output


def linear(layer: nn.Module, x: Any) -> Any:
    assert isinstance(layer, nn.Linear)
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def normalised(x: Any) -> Any:
    """By the batch, with scale 1 and shift 0 as BatchNorm starts."""
    return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)


ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("batchnorm", ["none", "after", "before"])
def test_the_last_hidden_layer_is_seen_before_its_activation_and_after_its_last_part(
    batchnorm: str, activation: str
) -> None:
    model, activated = network([7, 4], batchnorm, activation), ACTIVATIONS[activation]
    first, second, _ = (layer for layer in model if isinstance(layer, nn.Linear))
    inputs, outputs = [], []
    for images, _ in batches():  # BatchNorm takes each batch by itself
        hidden = linear(first, images.numpy())
        if batchnorm == "before":
            hidden = normalised(hidden)
        hidden = activated(hidden)
        if batchnorm == "after":
            hidden = normalised(hidden)
        entering = linear(second, hidden)
        if batchnorm == "before":
            entering = normalised(entering)
        inputs.append(entering)
        received = activated(entering)
        outputs.append(normalised(received) if batchnorm == "after" else received)
    found = internals.last_hidden_layer(model, (images for images, _ in batches()))
    assert np.allclose(found[0].numpy(), np.concatenate(inputs), rtol=1e-3, atol=1e-4)
    assert np.allclose(found[1].numpy(), np.concatenate(outputs), rtol=1e-3, atol=1e-4)


def test_batches_that_share_a_buffer_are_told_apart() -> None:
    def through_one_buffer() -> Iterator[Tensor]:
        buffer = torch.empty(5, 6)
        for images, _ in batches():
            yield buffer.copy_(images)

    model = nn.Sequential(nn.ReLU(), nn.Linear(6, CLASSES))  # its ReLU reads the buffer itself
    entering, _ = internals.last_hidden_layer(model, through_one_buffer())
    assert torch.equal(entering, torch.cat([images for images, _ in batches()]))


def test_a_hidden_layer_ends_at_whatever_activation_is_before_the_output_layer() -> None:
    gelu, output = nn.GELU(), nn.Linear(4, CLASSES)
    first, second = nn.Linear(6, 4), nn.Linear(4, 4)
    model = nn.Sequential(first, nn.ReLU(), nn.Sequential(second, gelu), output, nn.Softmax(1))
    assert internals.ends(model) == (gelu, output)
    assert internals.ends(nn.Sequential(output, nn.Softmax(1))) is None


@pytest.mark.parametrize(
    ("deviations", "typical"),
    [([3, 1, 2], {2}), ([5, 0.1, 100, 4, 3], {3}), ([4, 1, 3, 2], {2, 3}), ([7], {0})],
)
def test_the_typical_units_input_deviates_as_the_median_does(
    deviations: list[float], typical: set[int]
) -> None:
    random = torch.Generator().manual_seed(0)
    column = torch.randn(50, 1, generator=random)
    far_off = torch.arange(len(deviations), 0, -1) * 50.0  # means have no say
    assert internals.typical_unit(column * torch.tensor(deviations) + far_off) in typical


@pytest.mark.parametrize("size", [1, 2, 100, 101])
def test_percentiles_are_numpys(size: int) -> None:
    values = torch.randn(size, generator=torch.Generator().manual_seed(0))
    expected = np.percentile(values.numpy(), [15, 50, 85])
    found = internals.percentiles("unit/input", values)
    assert list(found) == ["unit/input_p15", "unit/input_p50", "unit/input_p85"]
    assert np.allclose(list(found.values()), expected, rtol=1e-5, atol=1e-6)


# The gradient's noise


def by_hand(model: nn.Sequential, images: Any, labels: Any) -> Any:
    """The gradient of the mean log loss of a perceptron with one hidden layer, or none."""
    weights = [p.detach().double().numpy() for p in model.parameters()]
    error = (np.eye(CLASSES)[labels], len(labels))
    if len(weights) == 2:
        w, b = weights
        d = (softmax(images @ w.T + b) - error[0]) / error[1]
        parts = [d.T @ images, d.sum(0)]
    else:
        v, c, w, b = weights
        entering = images @ v.T + c
        hidden = np.maximum(entering, 0)
        d = (softmax(hidden @ w.T + b) - error[0]) / error[1]
        back = (d @ w) * (entering > 0)
        parts = [back.T @ images, back.sum(0), d.T @ hidden, d.sum(0)]
    return np.concatenate([part.ravel() for part in parts])


@pytest.mark.parametrize("hidden", [[], [4]])
@pytest.mark.parametrize(("count", "size"), [(4, 5), (20, 1), (2, 10)])
def test_the_gradients_noise_is_that_of_every_minibatch_worked_out_by_hand(
    hidden: list[int], count: int, size: int
) -> None:
    model, pairs = network(hidden), batches(count, size)
    rows = [(images.double().numpy(), labels.numpy()) for images, labels in pairs]
    # The gradient of the mean loss over all rows at once, not a mean of gradients.
    full = by_hand(model, *(np.concatenate(column) for column in zip(*rows, strict=True)))
    apart = [((by_hand(model, *pair) - full) ** 2).sum() for pair in rows]
    variance = np.sum(apart) / (count - 1)  # of a sample, drawn independently
    found = internals.gradient_noise(model, iter(pairs), mean_log_loss)
    assert found["gradient/full_squared"] == pytest.approx((full**2).sum(), rel=1e-4)
    assert found["gradient/variance"] == pytest.approx(variance, rel=1e-4)
    expected = size * variance / (full**2).sum()
    assert found["gradient/noise_scale"] == pytest.approx(expected, rel=1e-4)


def slopes(*gradients: float, size: int = 2) -> dict[str, float]:
    """The noise of a model of one weight whose minibatches have these gradients."""
    given = ((torch.full((size, 1), float(g)), torch.zeros(size)) for g in gradients)
    model = nn.Linear(1, 1, bias=False)
    return internals.gradient_noise(model, given, lambda logits, _: logits.mean())


def test_the_noise_scale_is_the_batch_at_which_variance_and_square_are_equal() -> None:
    # G = 2, the variance of {1, 3} is 2, ‖G‖² = 4; a batch of 0.5 × 2 images would have one of 4
    found = slopes(1, 3)
    expected = {
        "gradient/variance": 2.0,
        "gradient/full_squared": 4.0,
        "gradient/noise_scale": 1.0,
    }
    assert found == pytest.approx(expected)
    assert slopes(1, 3, size=6)["gradient/noise_scale"] == pytest.approx(3.0)


def test_the_variance_falls_as_one_over_the_batch_size() -> None:
    """In the mean over many ways to make a pass of the same 60 images."""
    images, labels = (torch.cat(parts) for parts in zip(*batches(12, 5), strict=True))
    model, random = network([4]), torch.Generator().manual_seed(0)

    def variance(size: int) -> float:
        def once() -> float:
            rows = torch.split(torch.randperm(60, generator=random), size)
            given = ((images[r], labels[r]) for r in rows)
            return internals.gradient_noise(model, given, mean_log_loss)["gradient/variance"]

        return float(np.mean([once() for _ in range(60 if size > 1 else 1)]))

    one = variance(1)
    for size in (6, 20, 30):
        assert size * variance(size) == pytest.approx(one, rel=0.15), size


def test_a_sample_of_the_minibatches_has_the_noise_of_all_in_the_mean() -> None:
    # Labels of one class: a full gradient that isn't lost in the noise.
    pairs = [(images, torch.zeros_like(labels)) for images, labels in batches(60, 1)]
    model, random = network([4]), torch.Generator().manual_seed(0)
    whole = internals.gradient_noise(model, pairs, mean_log_loss)

    def sampled() -> dict[str, float]:
        some = [pairs[i] for i in torch.randperm(60, generator=random)[:20]]
        return internals.gradient_noise(model, some, mean_log_loss, share=1 / 3)

    samples = [sampled() for _ in range(150)]
    for name in ("gradient/variance", "gradient/full_squared"):
        mean = np.mean([sample[name] for sample in samples])
        assert mean == pytest.approx(whole[name], rel=0.05), name


def test_where_the_gradients_cancel_there_is_no_noise_scale() -> None:
    assert slopes(1, -1) == {"gradient/variance": 2.0, "gradient/full_squared": 0.0}


def test_one_batch_of_everything_has_no_noise() -> None:
    found = internals.gradient_noise(network([4]), batches(1, 20), mean_log_loss)
    assert found["gradient/variance"] == pytest.approx(0, abs=1e-9)
    assert found["gradient/variance"] >= 0 and found["gradient/full_squared"] > 0


def test_with_batchnorm_a_gradient_is_the_batchs_own() -> None:
    model = network([4], "after")
    before = internals.gradient_noise(model, batches(), mean_log_loss)
    squares = []
    for images, labels in batches():
        model.zero_grad()
        mean_log_loss(model.train()(images), labels).backward()  # type: ignore[no-untyped-call]
        squares.append(float(trainer.gradient_norm(list(model.parameters()))) ** 2)
    total = before["gradient/variance"] * 3 / 4 + before["gradient/full_squared"]  # E‖g‖²
    assert total == pytest.approx(np.mean(squares), rel=1e-4)
    # The running statistics, which the passes above have moved, have no say.
    assert internals.gradient_noise(model.eval(), batches(), mean_log_loss) == before


# The rates of an adaptive optimizer


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer=adagrad"],
        ["optimizer=adagrad_textbook", "optimizer.eps=0.01"],
        ["optimizer=rmsprop", "optimizer.eps=0.01"],
        ["optimizer=rmsprop_textbook", "optimizer.eps=0.01"],
        ["optimizer=adam", "optimizer.beta1=0.0"],  # with momentum an update isn't g times a rate
    ],
)
def test_a_weights_rate_is_what_its_last_gradient_was_multiplied_by(overrides: list[str]) -> None:
    weights = nn.Parameter(torch.zeros(50))
    optimizer = train.build("optimizer", configured(*overrides).optimizer, [weights])
    random = torch.Generator().manual_seed(0)
    for lr in (0.1, 0.03, 0.2):
        before = weights.detach().clone()
        gradient = torch.randn(50, generator=random)
        gradient[:10] = 0  # they never have one
        weights.grad = gradient
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
    moved = ((before - weights.detach()) / gradient)[10:]
    optimizer.param_groups[0]["lr"] = 0.7  # the scheduler has moved on
    found = internals.effective_rates(optimizer, 0.2)
    assert found.keys() == RATES
    expected = np.percentile(moved.numpy(), [15, 50, 85])
    assert np.allclose(list(found.values()), expected, rtol=1e-3)


def test_an_optimizer_without_squares_has_no_rates_and_none_has_before_a_gradient() -> None:
    weights = nn.Parameter(torch.zeros(5))
    for name in ("momentum", "adagrad", "adam"):
        optimizer = train.build("optimizer", configured(f"optimizer={name}").optimizer, [weights])
        weights.grad = torch.ones(5) if name == "momentum" else torch.zeros(5)
        optimizer.step()
        assert internals.effective_rates(optimizer, 0.1) == {}


# Measuring changes nothing


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("batchnorm", ["none", "after", "before"])
def test_measuring_leaves_the_model_as_it_was(batchnorm: str, mode: bool) -> None:
    model = network([4], batchnorm).train(mode)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    internals.last_hidden_layer(model, (images for images, _ in batches()))
    internals.gradient_noise(model, batches(), mean_log_loss)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(layer.training is mode for layer in model.modules())
    assert not any(layer._forward_pre_hooks for layer in model.modules())


def traced(
    digits: DataSet, *overrides: str, **how: Any
) -> tuple[Result, list[dict[str, float]], Result]:
    """A run with and without measuring: both results, and that both had the same epochs."""

    def once(measured: bool) -> tuple[Result, list[dict[str, float]]]:
        epochs: list[Epoch] = []
        config = configured(f"trainer.internals={str(measured).lower()}", *overrides)
        result = train.run(config, digits, on_epoch=noting(epochs), **how)
        times = {"seconds", "train_seconds", "images_per_second", "time", "checkpoint"}
        return result, [{k: v for k, v in asdict(e).items() if k not in times} for e in epochs]

    (with_, inside), (without, outside) = once(True), once(False)
    assert inside == outside
    return with_, inside, without


@pytest.mark.parametrize("model", ["mlp", "mlp_batchnorm"])
def test_a_measured_run_has_the_losses_and_test_accuracy_of_an_unmeasured_one(
    model: str, digits: DataSet
) -> None:
    overrides = [f"model={model}", "trainer.epochs=3"]
    with_, epochs, without = traced(digits, *overrides, phase=Phase.final)
    assert len(epochs) == 3
    assert with_.test is not None and with_.test == without.test
    assert (measured_at(with_), measured_at(without)) == ([0, 11, 22, 33], [])


# When it is measured


def measured_at(result: Result) -> list[int]:
    return [step for step, figures in result.internals if figures]


@pytest.mark.parametrize("phase", [Phase.final, Phase.train])
def test_final_and_train_runs_are_measured_before_the_first_epoch_and_after_each(
    phase: Phase, digits: DataSet
) -> None:
    result = train.run(configured("trainer.internals=true"), digits, phase=phase)
    assert measured_at(result) == [0, 11, 22]
    assert all(figures.keys() == FIGURES for _, figures in result.internals)


def test_the_rates_of_an_adaptive_optimizer_are_measured_after_each_epoch(digits: DataSet) -> None:
    result = train.run(configured("trainer.internals=true", "optimizer=adagrad"), digits)
    assert [figures.keys() - FIGURES for _, figures in result.internals] == [set(), RATES, RATES]
    medians = [figures["optimizer/rate_p50"] for _, figures in result.internals[1:]]
    assert medians[0] > medians[1] > 0  # r grows


def test_a_run_that_reaches_its_target_is_measured_where_it_ends(digits: DataSet) -> None:
    overrides = ["trainer.internals=true", "trainer.target=0.01", "trainer.checks=11"]
    result = train.run(configured(*overrides), digits)
    assert result.reached is not None and 0 < result.steps < 11
    assert measured_at(result) == [0, result.steps]


@pytest.mark.parametrize("overrides", [["trainer.internals=true"], ["trainer.internals=false"]])
def test_a_trial_of_a_search_is_never_measured(
    overrides: list[str], digits: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: Any, **__: Any) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(internals, "last_hidden_layer", measured)
    monkeypatch.setattr(internals, "gradient_noise", measured)
    result = train.run(configured(*overrides), digits, phase=Phase.search)
    assert measured_at(result) == []


@pytest.mark.parametrize(
    "attempt",
    [
        train.check_buildable,
        # A trial of a search too: its final runs could not be measured.
        *(partial(train.run, phase=phase) for phase in Phase),
    ],
)
def test_a_model_without_hidden_units_is_refused_in_one_line(
    attempt: Callable[[Any, DataSet], object], digits: DataSet
) -> None:
    with pytest.raises(UserError) as caught:
        attempt(configured("trainer.internals=true", "model.hidden=[]"), digits)
    expected = "trainer.internals=True: allowed is false for a model without a hidden activation"
    assert str(caught.value) == expected


def test_a_model_without_hidden_units_trains_unmeasured(digits: DataSet) -> None:
    train.check_buildable(configured("model.hidden=[]"), digits)


# What a run measures


def one_epoch(digits: DataSet, *overrides: str) -> tuple[Result, list[nn.Module]]:
    """A measured run of one epoch, and its model as it began and as it ended."""
    config = configured("trainer.internals=true", "trainer.epochs=1", *overrides)
    result = train.run(config, digits)
    models = [train.build_model(config, 64, 10), reloaded(config, result)]
    return result, models


def test_the_unit_is_chosen_at_the_start_and_seen_on_the_validation_images(digits: DataSet) -> None:
    result, models = one_epoch(digits, "seed=1", "optimizer.lr=1")
    _, validation = data.search_splits(digits, configured().data)
    images = validation.images.flatten(1).numpy()[validation.indices] / 255 - 0.5
    entering = [linear(next(model.children()), images) for model in models]
    unit, another = (int(layer.std(0).argsort()[8 // 2]) for layer in entering)
    assert unit != another  # at the end it would be another one
    for (_, figures), layer in zip(result.internals, entering, strict=True):
        for side, values in (("input", layer), ("output", np.maximum(layer, 0))):
            expected = np.percentile(values[:, unit], [15, 50, 85])
            found = [figures[f"unit/{side}_p{p}"] for p in (15, 50, 85)]
            assert found == pytest.approx(expected, rel=1e-4, abs=1e-5), side


@pytest.mark.parametrize("loss", Loss)
def test_the_full_gradient_is_that_of_the_runs_loss_over_the_training_split(
    loss: Loss, digits: DataSet
) -> None:
    # 1295 = 5 · 259: no image is left over
    overrides = ["trainer.batch_size=259", f"trainer.loss={loss.value}", "optimizer.lr=0.01"]
    result, models = one_epoch(digits, *overrides)
    training, _ = data.search_splits(digits, configured().data)
    images, labels = loader(training).load(training.indices)
    for (_, figures), model in zip(result.internals, models, strict=True):
        mean = trainer.summed_loss(model(images), labels, loss) / len(labels)
        mean.backward()  # type: ignore[no-untyped-call]
        expected = float(trainer.gradient_norm(list(model.parameters()))) ** 2
        assert figures["gradient/full_squared"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("measured", "share"), [(5000, 1.0), (4, 0.4)])
def test_only_whole_minibatches_are_measured_and_not_too_many(
    measured: int, share: float, digits: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[list[int]] = []
    monkeypatch.setattr(internals, "MEASURED", measured)
    noise = internals.gradient_noise

    def noted(model: nn.Module, given: Any, mean_loss: Any, of: float) -> dict[str, float]:
        assert of == share
        taken = [(images.clone(), labels) for images, labels in given]
        sizes.append([len(labels) for _, labels in taken])
        return noise(model, taken, mean_loss, of)

    monkeypatch.setattr(internals, "gradient_noise", noted)
    result, _ = one_epoch(digits)
    assert sizes == [[128] * min(10, measured)] * 2  # 1295 = 10 · 128 + 15
    for _, figures in result.internals:
        expected = 128 * figures["gradient/variance"] / figures["gradient/full_squared"]
        assert figures["gradient/noise_scale"] == pytest.approx(expected)


@pytest.mark.parametrize("model", ["mlp", "mlp_batchnorm"])
def test_a_model_that_stands_still_is_measured_the_same_each_time(
    model: str, digits: DataSet
) -> None:
    overrides = [f"model={model}", "optimizer.lr=1e-30"]
    (_, before), (_, after) = one_epoch(digits, *overrides)[0].internals
    assert before == after


def test_a_seed_measures_the_same_twice_and_another_does_not(digits: DataSet) -> None:
    first, again, other = (one_epoch(digits, f"seed={seed}")[0].internals for seed in (0, 0, 1))
    assert list(first) == list(again) and list(first) != list(other)


def test_one_image_left_over_is_not_given_to_batchnorm(
    digits: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "CHUNK", 142)  # of 143 validation images
    config = configured("model=mlp_batchnorm", "trainer.internals=true", "trainer.epochs=1")
    result = train.run(config, digits)
    assert [set(figures) >= {"unit/input_p50"} for _, figures in result.internals] == [True, True]


def test_a_gradient_too_large_to_square_is_left_out() -> None:
    batches = [(torch.full((2, 1), 3e38), torch.zeros(2))] * 2
    model = nn.Linear(1, 1, bias=False)
    assert internals.gradient_noise(model, batches, lambda out, _: (out * 2e38).mean()) == {}
