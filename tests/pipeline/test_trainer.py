"""The training loop against numpy, and what a run does with its records."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recording import (
    Recorded,
    configured,
    evaluated,
    inputs_of,
    loader,
    network,
    noting,
    reloaded,
    same,
    softmax,
    split,
)
from torch import nn

from pipeline import data, train, trainer
from pipeline.config import Loss, Pixels, Precision
from pipeline.data import DataSet, Loader, Split
from pipeline.errors import UserError
from pipeline.results import Diverged, Epoch, Outcome, Phase, Result

# Gradients and updates


@pytest.mark.parametrize("loss", Loss)
def test_the_batch_gradient_is_the_mean_of_the_minibatches_gradients(loss: Loss) -> None:
    training = split(24)
    whole = Recorded(network(), training, lr=0.0, loss=loss)
    parts = Recorded(network(), training, lr=0.0, loss=loss, batch_size=6)
    assert len(whole.gradients) == 1 and len(parts.gradients) == 4
    mean = [torch.stack(gradients).mean(0) for gradients in zip(*parts.gradients, strict=True)]
    assert same(whole.gradients[0], mean)


@pytest.mark.parametrize("loss", Loss)
def test_summing_up_in_chunks_changes_nothing(loss: Loss, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Recorded(network(), split(24), loss=loss, epochs=3)
    monkeypatch.setattr(trainer, "CHUNK", 7)
    chunked = Recorded(network(), split(24), loss=loss, epochs=3)
    assert max(len(rows) for rows in chunked.rows) == 7
    assert same(whole.weights[-1], chunked.weights[-1])
    for a, b in zip(whole.epochs, chunked.epochs, strict=True):
        for figure in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "grad_norm"):
            assert getattr(a, figure) == pytest.approx(getattr(b, figure), rel=1e-5), figure


def test_batchnorm_sees_the_whole_batch_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "CHUNK", 7)
    model, training = network(batchnorm=True), split(24)
    images, _ = inputs_of(training, training.indices.tolist())
    linear, norm = model[0], model[2]
    assert isinstance(linear, nn.Linear) and isinstance(norm, nn.BatchNorm1d)
    weight, bias = linear.weight.detach().numpy().copy(), linear.bias.detach().numpy().copy()
    hidden = np.maximum(images @ weight.T + bias, 0)
    Recorded(model, training)
    assert norm.running_mean is not None and norm.running_var is not None
    assert np.allclose(norm.running_mean.numpy(), 0.1 * hidden.mean(0), rtol=1e-4, atol=1e-7)
    assert np.allclose(norm.running_var.numpy(), 0.9 + 0.1 * hidden.var(0, ddof=1), rtol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 5, 12])
def test_minibatch_descent_is_that_of_numpy(batch_size: int) -> None:
    training, model = split(12), network(hidden=False)
    linear = model[0]
    assert isinstance(linear, nn.Linear)
    w, b = (p.detach().numpy().astype(np.float64) for p in (linear.weight, linear.bias))
    run = Recorded(model, training, batch_size=batch_size, epochs=2, lr=0.5)
    losses, norms = [], []
    for rows in run.rows:
        x, y = inputs_of(training, rows)
        p = softmax(x @ w.T + b)
        losses.append(-np.log((p * y).sum(1)).sum())
        gw, gb = (p - y).T @ x / len(rows), (p - y).mean(0)
        norms.append(np.sqrt((gw**2).sum() + (gb**2).sum()))
        w, b = w - 0.5 * gw, b - 0.5 * gb
    assert np.allclose(linear.weight.detach().numpy(), w, rtol=1e-4, atol=1e-6)
    assert np.allclose(linear.bias.detach().numpy(), b, rtol=1e-4, atol=1e-6)
    updates = len(run.rows) // 2
    for i, epoch in enumerate(run.epochs):
        passed = slice(i * updates, (i + 1) * updates)
        assert epoch.train_loss == pytest.approx(sum(losses[passed]) / 12, rel=1e-5)
        assert epoch.grad_norm == pytest.approx(np.mean(norms[passed]), rel=1e-5)


def test_bf16_is_near_fp32_and_not_the_same() -> None:
    full = Recorded(network(), split(24), epochs=3, lr=0.5).epochs
    half = Recorded(network(), split(24), epochs=3, lr=0.5, precision=Precision.bf16).epochs
    for a, b in zip(full, half, strict=True):
        assert a.train_loss != b.train_loss
        assert a.train_loss == pytest.approx(b.train_loss, rel=0.02)


# Losses and pixels

LOGITS = [[2.0, 0.0, -1.0], [0.5, 0.5, 0.5], [0.0, 3.0, 1.0]]
LABELS = [0, 2, 2]


def test_the_log_loss_is_minus_log_p_in_nats() -> None:
    p = softmax(np.array(LOGITS))
    expected = -sum(np.log(p[i, label]) for i, label in enumerate(LABELS))
    loss = trainer.summed_loss(torch.tensor(LOGITS), torch.tensor(LABELS), Loss.log)
    assert loss.item() == pytest.approx(expected)


def test_the_squared_error_is_against_one_hot_targets() -> None:
    # (1 + 0 + 1) + (0.25 + 0.25 + 0.25) + (0 + 9 + 0)
    loss = trainer.summed_loss(torch.tensor(LOGITS), torch.tensor(LABELS), Loss.mse)
    assert loss.item() == pytest.approx(11.75)


@pytest.mark.parametrize("loss", Loss)
def test_an_evaluation_is_the_mean_over_examples(
    loss: Loss, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "CHUNK", 4)  # 4, 4 and 2 images
    model, held_out = network(hidden=False), split(10)
    linear = model[0]
    assert isinstance(linear, nn.Linear)
    x, y = inputs_of(held_out, held_out.indices.tolist())
    logits = x @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
    log = -np.log((softmax(logits) * y).sum(1)).mean()
    expected = log if loss is Loss.log else ((logits - y) ** 2).sum(1).mean()
    evaluation = evaluated(model, held_out, loss)
    assert evaluation.loss == pytest.approx(expected, rel=1e-5)
    assert evaluation.accuracy == pytest.approx((logits.argmax(1) == y.argmax(1)).mean())


@pytest.mark.parametrize(
    ("pixels", "ends"), [(Pixels.centered, (-0.5, 0.5)), (Pixels.raw, (0.0, 255.0))]
)
def test_pixels_run_exactly_from_end_to_end(pixels: Pixels, ends: tuple[float, float]) -> None:
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1)
    every_level = loader(Split(every, torch.zeros(1), torch.arange(1)), pixels)
    images, _ = every_level.load(torch.tensor([0]))
    assert images.shape == (1, 256) and images.dtype == torch.float32
    assert (images[0, 0].item(), images[0, -1].item()) == ends
    step = (ends[1] - ends[0]) / 255
    assert np.allclose(images[0].numpy(), ends[0] + step * np.arange(256), atol=1e-7)


@pytest.mark.parametrize("sizes", [[4, 2], [2, 4], [4, 1, 3]])
def test_batches_may_differ_in_size(sizes: list[int]) -> None:
    training = split(6)
    batches = loader(training, Pixels.raw)
    for size in sizes:
        rows = torch.randperm(12)[:size]
        images, labels = batches.load(rows)
        assert torch.equal(images, training.images.flatten(1)[rows].float())
        assert torch.equal(labels, training.labels[rows])


def test_images_are_taken_from_their_split_once_in_a_run(
    digits: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And moved to the device then: on CUDA every time is a copy of the whole data set."""
    taken: list[Split] = []

    class Watched(Split):
        def __getattribute__(self, name: str) -> Any:
            if name == "images":
                taken.append(self)
            return super().__getattribute__(name)

    config = configured("trainer.epochs=3", "trainer.target=1", "trainer.checks=5")
    splits = [
        Watched(s.images, s.labels, s.indices) for s in data.search_splits(digits, config.data)
    ]
    monkeypatch.setattr(data, "search_splits", lambda *_: tuple(splits))
    assert train.run(config, digits).epochs == 3
    assert len(taken) == 2 and all(a is b for a, b in zip(taken, splits, strict=True))


def test_a_loaders_pass_is_its_splits_rows_in_batches() -> None:
    images = split(10)
    batches = Loader(images, Pixels.raw, torch.device("cpu"), 4)
    assert [len(rows) for rows in batches] == [4, 4, 2] and len(batches) == 10
    for _ in range(2):  # in their own order, where nothing shuffles them
        assert torch.equal(torch.cat(list(batches)), images.indices)


def test_a_training_that_is_left_ends_there(digits: DataSet) -> None:
    epochs = train.training(configured("trainer.epochs=5"), digits)
    assert next(epochs).epoch == 1
    assert epochs.send(False).epoch == 2
    epochs.close()
    with pytest.raises(StopIteration):
        next(epochs)


# Epochs


def test_an_epoch_counts_its_last_smaller_batch() -> None:
    run = Recorded(network(), split(10), batch_size=4, epochs=2)
    assert [(epoch.epoch, epoch.step) for epoch in run.epochs] == [(1, 3), (2, 6)]
    assert [len(rows) for rows in run.rows] == [4, 4, 2, 4, 4, 2]


def test_training_figures_are_means_over_examples() -> None:
    training = split(10)  # batches of 4, 4 and 2, which a mean of means would weigh alike
    run = Recorded(network(), training, batch_size=4, lr=0.0)
    whole = evaluated(run.model, training)
    assert run.epochs[0].train_loss == pytest.approx(whole.loss, rel=1e-5)
    assert run.epochs[0].train_accuracy == pytest.approx(whole.accuracy)


def test_validation_follows_the_epochs_last_update() -> None:
    held_out = split(9, seed=3)
    run = Recorded(network(), split(10), batch_size=4, epochs=2, validation=held_out)
    after = evaluated(run.model, held_out)
    assert run.epochs[-1].val_loss == pytest.approx(after.loss)
    assert run.epochs[-1].val_accuracy == after.accuracy


def test_every_epoch_sees_every_example_once_in_an_order_of_its_own() -> None:
    training = split(20)
    rows = Recorded(network(), training, batch_size=6, epochs=3).rows
    orders = [list(chain(*rows[i : i + 4])) for i in (0, 4, 8)]
    for order in orders:
        assert sorted(order) == training.indices.tolist()
    assert len({tuple(order) for order in orders} | {tuple(training.indices.tolist())}) == 4


def test_seconds_count_from_the_runs_start() -> None:
    first, second = Recorded(network(), split(10), epochs=2).epochs
    assert 0 < first.seconds < second.seconds
    assert first.images_per_second > 0


# Divergence


def test_a_non_finite_loss_ends_the_run_and_counts_the_updates_before_it() -> None:
    model = network()
    with torch.no_grad():
        next(model.parameters()).fill_(torch.inf)
    run = Recorded(model, split(12), batch_size=4, epochs=2)
    assert run.records == [Diverged(step=0)]
    assert len(run.rows) == 3  # it is seen at the end of the first epoch


def test_a_divergence_is_dated_to_its_update(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverging(read: int) -> Recorded:
        monkeypatch.setattr(trainer, "READ", read)
        changes = {"batch_size": 2, "epochs": 3, "lr": 1e8}
        return Recorded(network(), split(40), **changes, loss=Loss.mse, pixels=Pixels.raw)

    at_once = diverging(1)
    steps = len(at_once.gradients) - 1  # the last update was that of the non-finite loss
    assert at_once.records == [Diverged(steps)] and steps >= 1
    for read in (2, 7, 50):  # figures are read together; what is found is the same
        later = diverging(read)
        assert later.records == at_once.records
        assert len(later.gradients) <= steps + read


def test_a_non_finite_validation_loss_is_a_divergence() -> None:
    run = Recorded(network(), split(12), lr=1e38, pixels=Pixels.raw, epochs=3)
    assert run.records == [Diverged(step=1)]


# Runs


def figures(digits: DataSet, *overrides: str) -> list[tuple[float, ...]]:
    """Everything of every epoch that isn't a time."""
    epochs: list[Epoch] = []
    train.run(configured(*overrides), digits, on_epoch=noting(epochs))
    return [(e.train_loss, e.train_accuracy, e.val_loss, e.grad_norm) for e in epochs]


@pytest.mark.parametrize("model", ["mlp", "mlp_batchnorm"])
def test_the_same_seed_gives_identical_losses(model: str, digits: DataSet) -> None:
    first = figures(digits, f"model={model}", "seed=3")
    torch.manual_seed(99)  # torch's global generator has no say
    assert figures(digits, f"model={model}", "seed=3") == first


def test_another_seed_gives_other_losses(digits: DataSet) -> None:
    assert figures(digits, "seed=0") != figures(digits, "seed=1")


def test_another_seed_gives_another_initialisation(digits: DataSet) -> None:
    models = [train.build_model(configured(f"seed={seed}"), 64, 10) for seed in (0, 0, 1)]
    first, again, other = (next(model.parameters()) for model in models)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_run_leaves_torchs_global_generator_alone(digits: DataSet) -> None:
    before = torch.get_rng_state()
    figures(digits)
    assert torch.equal(torch.get_rng_state(), before)


def test_full_is_one_update_an_epoch(digits: DataSet) -> None:
    result = train.run(configured("trainer.batch_size=full"), digits)
    assert (result.outcome, result.epochs, result.steps) == (Outcome.complete, 2, 2)


def test_batch_size_one_is_one_update_an_image(digits: DataSet) -> None:
    config = configured("trainer.batch_size=1", "trainer.epochs=1", "optimizer.lr=0.01")
    assert train.run(config, digits).steps == 1295


def test_bf16_trains(digits: DataSet) -> None:
    result = train.run(configured("trainer.precision=bf16"), digits)
    assert result.best is not None and result.best.val_accuracy > 0.2


def test_a_diverged_run_is_a_result(digits: DataSet) -> None:
    overrides = ["optimizer.lr=1e30", "data.pixels=raw", "trainer.batch_size=400"]
    result = train.run(configured(*overrides), digits)
    assert result.outcome is Outcome.diverged
    assert (result.epochs, result.best, result.error) == (0, None, None)


def test_on_epoch_returning_true_prunes_the_run(digits: DataSet) -> None:
    heard: list[int] = []

    def stop(epoch: Epoch) -> bool:
        heard.append(epoch.epoch)
        return epoch.epoch == 2

    result = train.run(configured("trainer.epochs=5"), digits, on_epoch=stop)
    assert (result.outcome, result.epochs, heard) == (Outcome.pruned, 2, [1, 2])


def test_threads_are_applied(digits: DataSet) -> None:
    before = torch.get_num_threads()
    try:
        for threads in (2, 1):
            figures(digits, f"trainer.threads={threads}", "trainer.epochs=1")
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


# The test set


def without_test_images(digits: DataSet, folder: Path) -> DataSet:
    shutil.copytree(digits.folder, folder)
    for file in folder.glob("test_*.npy"):
        file.unlink()
    return replace(digits, folder=folder)


def test_only_a_final_run_opens_the_test_images(digits: DataSet, tmp_path: Path) -> None:
    dataset = without_test_images(digits, tmp_path / "cache")
    for phase in (Phase.search, Phase.train):
        result = train.run(configured(), dataset, phase=phase)
        assert result.outcome is Outcome.complete and result.test is None


def test_a_final_run_opens_the_test_images(digits: DataSet, tmp_path: Path) -> None:
    dataset = without_test_images(digits, tmp_path / "cache")
    with pytest.raises(UserError, match=r"can't read .*test_images\.npy"):
        train.run(configured(), dataset, phase=Phase.final)


# The best epoch


def test_the_weights_reach_the_best_accuracies(digits: DataSet) -> None:
    config = configured("model=mlp_batchnorm", "trainer.epochs=3")
    result = train.run(config, digits, phase=Phase.final)
    _, validation = data.search_splits(digits, config.data)
    again = evaluated(reloaded(config, result), validation)
    assert result.best is not None
    assert (again.loss, again.accuracy) == (result.best.val_loss, result.best.val_accuracy)
    assert result.test == evaluated(reloaded(config, result), data.test_split(digits))


def test_weights_come_home_from_all_but_a_search(digits: DataSet) -> None:
    results = {phase: train.run(configured(), digits, phase=phase) for phase in Phase}
    there = {phase: result.weights is not None for phase, result in results.items()}
    validated = {Phase.search: False, Phase.confirm: False}
    assert there == validated | {Phase.final: True, Phase.train: True}


def staged(digits: DataSet, monkeypatch: pytest.MonkeyPatch) -> Result:
    """A final run whose epochs' accuracies are given; after epoch e it answers class e always."""

    def fit(model: nn.Sequential, *_: Any, **__: Any) -> Iterator[Epoch]:
        for epoch, accuracy in enumerate([0.5, 0.7, 0.7, 0.6], 1):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.zero_()
                model[-1].bias[epoch] = 1  # type: ignore[operator]
            yield Epoch(epoch, epoch, 128 * epoch, 1, 0.5, 1, accuracy, 0.1, 1, 1, 1, 1)

    monkeypatch.setattr(trainer, "fit", fit)
    return train.run(configured(), digits, phase=Phase.final)


def test_the_best_epoch_is_the_earliest_of_equals(
    digits: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = staged(digits, monkeypatch)
    assert result.best is not None and (result.best.epoch, result.epochs) == (2, 4)


def test_the_test_set_and_the_file_get_the_best_epochs_weights(
    digits: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = staged(digits, monkeypatch)
    assert result.test is not None
    labels = data.test_split(digits).labels
    assert result.test.accuracy == pytest.approx((labels == 2).float().mean().item())
    assert (labels == 2).sum() not in [(labels == other).sum() for other in (1, 3, 4)]
    model = reloaded(configured(), result)
    assert int(list(model.parameters())[-1].argmax()) == 2
