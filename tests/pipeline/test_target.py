"""A run that ends where it reaches its target: when it is checked, and what it had taken."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from recording import Recorded, configured, evaluated, network, noting, reloaded, split

from pipeline import data, train, trainer
from pipeline.config import Loss, Pixels
from pipeline.data import DataSet, Split
from pipeline.results import (
    Diverged,
    Epoch,
    Evaluation,
    Outcome,
    Phase,
    Reached,
    Result,
    objective,
)

UNSEEN = 1.0  # a target never reached: no network here gets every random label right


def given(monkeypatch: pytest.MonkeyPatch, accuracies: Iterable[float]) -> None:
    """Let the checks find these accuracies, one after the other."""
    left = iter(accuracies)
    monkeypatch.setattr(trainer, "evaluate", lambda *_, **__: Evaluation(1.0, next(left)))


# When it is checked


@pytest.mark.parametrize(
    ("images", "checks", "at"),
    [
        (20, 1, [10]),
        (20, 2, [5, 10]),
        (20, 5, [2, 4, 6, 8, 10]),
        (20, 10, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (20, 25, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),  # an epoch has fewer steps
        (19, 5, [2, 4, 6, 8, 10]),  # the last of the ten batches is a smaller one
        (7, 2, [2, 4]),
        (14, 2, [4, 7]),  # not a whole number of steps between them
        (22, 4, [3, 6, 9, 11]),
        (20, 4, [3, 5, 8, 10]),
        (20, 3, [4, 7, 10]),
        (22, 10, [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        (2, 3, [1]),
    ],
)
def test_an_epoch_is_checked_evenly_and_always_at_its_end(
    images: int, checks: int, at: list[int]
) -> None:
    how = {"batch_size": 2, "epochs": 2, "target": UNSEEN, "checks": checks}
    run = Recorded(network(), split(images), **how)
    assert run.checked == at + [at[-1] + step for step in at]
    assert [epoch.step for epoch in run.epochs] == [at[-1], 2 * at[-1]]


def test_without_a_target_only_the_epochs_end_is_validated() -> None:
    assert Recorded(network(), split(20), batch_size=2, epochs=2).checked == [10, 20]


# Where it ends


@pytest.mark.parametrize(
    ("accuracies", "steps"),
    [
        ([0.9], [1]),
        ([0.8], [1]),  # reached is as good as passed
        ([0.1, 0.79, 0.8], [3]),
        ([0.1, 0.2, 0.3, 0.4, 0.8], [5]),  # at an epoch's end
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.85], [5, 7]),
        ([0.1] * 15, [5, 10, 15]),  # never
    ],
)
def test_a_run_ends_where_it_reaches_its_target(
    accuracies: list[float], steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, accuracies)
    run = Recorded(network(), split(20), batch_size=4, epochs=3, target=0.8, checks=5)
    assert [(e.epoch, e.step) for e in run.epochs] == list(enumerate(steps, 1))
    assert len(run.gradients) == len(run.rows) == steps[-1]
    assert run.epochs[-1].val_accuracy == accuracies[-1]


def test_without_a_target_an_accuracy_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, [1.0, 1.0])
    run = Recorded(network(), split(20), batch_size=4, epochs=2)
    assert [epoch.step for epoch in run.epochs] == [5, 10]


def test_the_last_record_is_of_the_weights_that_reached_the_target() -> None:
    held_out = split(30, seed=3)
    how = {"batch_size": 4, "epochs": 2, "lr": 0.5, "validation": held_out, "checks": 25}
    run = Recorded(network(), split(40), **how, target=0.4)
    last = run.epochs[-1]
    assert last.val_accuracy >= 0.4 and 1 < last.step < 10  # within an epoch
    after = evaluated(run.model, held_out)
    assert (last.val_loss, last.val_accuracy) == (after.loss, after.accuracy)
    unaimed = Recorded(network(), split(40), **how | {"checks": 1})
    pairs = zip(run.parameters(), unaimed.weights[last.step], strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(("accuracies", "first"), [([0.1, 0.9], 0), ([0.1] * 6 + [0.9], 5)])
def test_training_figures_are_means_over_the_part_of_the_epoch_seen(
    accuracies: list[float], first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = split(18)  # batches of 4, 4, 4, 4 and 2
    given(monkeypatch, accuracies)
    how = {"batch_size": 4, "epochs": 2, "lr": 0.0, "target": 0.8, "checks": 5}
    run = Recorded(network(), training, **how)
    seen = torch.tensor(list(chain(*run.rows[first:])))
    assert len(seen) == 8
    part = Split(training.images, training.labels, seen)
    expected = evaluated(run.model, part)
    last = run.epochs[-1]
    assert last.train_loss == pytest.approx(expected.loss, rel=1e-5)
    assert last.train_accuracy == pytest.approx(expected.accuracy)
    norms = [torch.cat([g.flatten() for g in step]).norm().item() for step in run.gradients]
    assert last.grad_norm == pytest.approx(sum(norms[first:]) / 2, rel=1e-5)


def test_the_last_of_the_examples_seen_may_be_a_smaller_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training = split(18)
    given(monkeypatch, [0.1, 0.1, 0.1, 0.1, 0.9])
    run = Recorded(network(), training, batch_size=4, lr=0.0, target=0.8, checks=5)
    whole = evaluated(run.model, training)
    assert run.epochs[0].train_loss == pytest.approx(whole.loss, rel=1e-5)


# Checking changes nothing


@pytest.mark.parametrize("checks", [1, 3, 25])
@pytest.mark.parametrize("batchnorm", [False, True])
def test_checking_changes_no_weight_and_no_loss(batchnorm: bool, checks: int) -> None:
    def run(**changes: Any) -> Recorded:
        model = network(batchnorm=batchnorm)
        return Recorded(model, split(18), batch_size=3, epochs=3, lr=0.5, **changes)

    aimed, unaimed = run(target=UNSEEN, checks=checks), run()
    assert (len(aimed.checked) > len(unaimed.checked)) == (checks > 1)
    assert aimed.rows == unaimed.rows
    for a, b in zip(aimed.epochs, unaimed.epochs, strict=True):
        for figure in ("step", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr"):
            assert getattr(a, figure) == getattr(b, figure), figure
        assert a.grad_norm == b.grad_norm
    others = unaimed.model.state_dict()  # the running statistics too
    assert all(torch.equal(v, others[k]) for k, v in aimed.model.state_dict().items())


def test_every_update_is_of_a_model_in_training_mode() -> None:
    how = {"batch_size": 3, "epochs": 2, "target": UNSEEN, "checks": 6}
    run = Recorded(network(batchnorm=True), split(18), **how)
    assert len(run.rows) == len(run.gradients) == 12


def test_a_divergence_after_a_check_is_still_one() -> None:
    how = {"batch_size": 2, "epochs": 3, "lr": 1e8, "loss": Loss.mse, "pixels": Pixels.raw}
    run = Recorded(network(), split(40), **how, target=UNSEEN, checks=20)
    assert run.records == Recorded(network(), split(40), **how).records
    assert isinstance(run.records[-1], Diverged)


def test_a_target_is_not_reached_by_a_loss_that_is_not_finite(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trainer, "evaluate", lambda *_, **__: Evaluation(float("nan"), 0.9))
    run = Recorded(network(), split(20), batch_size=4, target=0.8, checks=5)
    assert run.records == [Diverged(step=1)]


# What it took


def test_seconds_of_training_are_those_without_the_checks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(
        trainer, "time", SimpleNamespace(perf_counter=lambda: now, time=lambda: now)
    )
    accuracies = iter([0.1] * 5 + [0.1, 0.9])

    def evaluate(*_: Any, **__: Any) -> Evaluation:
        nonlocal now
        now += 100
        return Evaluation(1.0, next(accuracies))

    def pass_(*_: Any) -> None:
        nonlocal now
        now += 1

    monkeypatch.setattr(trainer, "evaluate", evaluate)
    model = network()
    model.register_forward_pre_hook(pass_)
    run = Recorded(model, split(18), batch_size=4, epochs=2, target=0.8, checks=5)
    assert [(e.seconds, e.train_seconds) for e in run.epochs] == [(505, 5), (707, 7)]
    assert [e.images_per_second for e in run.epochs] == [18 / 5, 8 / 2]


def test_seconds_of_training_are_those_without_what_goes_on_between_epochs(
    digits: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def tick() -> float:
        nonlocal now
        now += 1
        return now

    def on_epoch(epoch: Epoch) -> bool:  # logging, for one
        nonlocal now
        now += 1000
        epochs.append(epoch)
        return False

    epochs: list[Epoch] = []
    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=tick, time=tick))
    train.run(configured("trainer.epochs=3"), digits, on_epoch=on_epoch)
    assert [epoch.seconds // 1000 for epoch in epochs] == [0, 1, 2]
    assert all(0 < epoch.train_seconds < 100 for epoch in epochs)


@pytest.mark.parametrize("checks", [1, 5])
def test_training_takes_no_longer_than_the_run(checks: int) -> None:
    run = Recorded(network(), split(20), batch_size=4, epochs=3, target=UNSEEN, checks=checks)
    for epoch in run.epochs:
        assert 0 < epoch.train_seconds < epoch.seconds


@pytest.mark.parametrize(
    ("step", "size", "batch_size", "images"),
    [
        (2, 10, 4, 8),
        (3, 10, 4, 10),  # 4, 4 and 2
        (4, 10, 4, 14),
        (6, 10, 4, 20),
        (8, 10, 4, 28),
        (6, 12, 4, 24),
        (7, 10, 10, 70),  # full
        (13, 10, 1, 13),
    ],
)
def test_the_images_it_took_count_a_smaller_last_batch(
    step: int, size: int, batch_size: int, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, [0.1] * (step - 1) + [0.9])
    how = {"batch_size": batch_size, "epochs": 7, "target": 0.8, "checks": 25}
    last = Recorded(network(), split(size), **how).epochs[-1]
    reached = train.followed(Result(Outcome.complete, 0, 0, 0.0, None), last, size).reached
    assert reached is not None
    assert (reached.steps, reached.images) == (last.step, last.images) == (step, images)
    assert reached.seconds == last.train_seconds
    assert reached.epochs == pytest.approx(images / size)


def test_only_the_record_that_ends_the_run_has_reached_the_target(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given(monkeypatch, [0.1, 0.9])
    run = Recorded(network(), split(20), batch_size=4, epochs=3, target=0.8)
    assert [epoch.reached for epoch in run.epochs] == [False, True]


def heard(digits: DataSet, *overrides: str, **how: Any) -> tuple[Result, list[Epoch]]:
    epochs: list[Epoch] = []
    config = configured(*overrides)
    result = train.run(config, digits, on_epoch=noting(epochs), **how)
    return result, epochs


# Ends within an epoch, not the first; eleven steps are an epoch, the last of them 15 images
WITHIN = ["trainer.epochs=9", "optimizer.lr=0.2", "trainer.target=0.6", "trainer.checks=11"]


def test_a_run_says_what_reaching_its_target_took(
    digits: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []
    loss = trainer.summed_loss

    def counted(logits: Any, labels: Any, name: Loss) -> Any:
        if logits.requires_grad:
            trained.append(len(labels))
        return loss(logits, labels, name)

    monkeypatch.setattr(trainer, "summed_loss", counted)
    result, epochs = heard(digits, *WITHIN)
    last, reached = epochs[-1], result.reached
    assert reached is not None and last.step > 11 and last.step % 11 != 0
    assert last.val_accuracy >= 0.6 > epochs[-2].val_accuracy
    assert (reached.steps, reached.images) == (len(trained), sum(trained))
    assert reached.epochs == pytest.approx(sum(trained) / 1295)
    assert reached.seconds == last.train_seconds < last.seconds
    assert (result.outcome, result.epochs, result.steps) == (
        Outcome.complete,
        last.epoch,
        last.step,
    )
    assert result.best == last


@pytest.mark.parametrize("overrides", [["trainer.target=1"], []])
def test_a_target_that_is_not_reached_or_not_set_took_nothing(
    overrides: list[str], digits: DataSet
) -> None:
    result, epochs = heard(digits, *overrides)
    assert (result.outcome, len(epochs), result.reached) == (Outcome.complete, 2, None)


@pytest.mark.parametrize(("target", "outcome"), [(0.01, Outcome.complete), (1.0, Outcome.pruned)])
def test_a_run_that_reaches_its_target_is_not_pruned_there(
    target: float, outcome: Outcome, digits: DataSet
) -> None:
    config = configured(f"trainer.target={target}")
    result = train.run(config, digits, on_epoch=lambda epoch: True)
    assert (result.outcome, result.steps) == (outcome, 11)
    assert (result.reached is not None) == (outcome is Outcome.complete)


def test_a_run_pruned_before_its_target_has_not_reached_it(digits: DataSet) -> None:
    result = train.run(configured(*WITHIN), digits, on_epoch=lambda epoch: epoch.epoch == 1)
    assert (result.outcome, result.steps, result.reached) == (Outcome.pruned, 11, None)


def test_a_final_run_tests_the_weights_that_reached_the_target(digits: DataSet) -> None:
    result, epochs = heard(digits, *WITHIN, phase=Phase.final)
    config = configured(*WITHIN)
    model = reloaded(config, result)
    _, validation = data.search_splits(digits, config.data)
    assert evaluated(model, validation).accuracy == epochs[-1].val_accuracy >= 0.6
    assert result.test == evaluated(model, data.test_split(digits))


# What a search maximises

BEST = Epoch(1, 1, 1, 1.0, 0.5, 1.0, 0.6, 0.1, 1.0, 1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("target", "reached", "expected"),
    [
        (None, None, 0.6),
        (0.7, None, 0.6 / 4),  # all its epochs, in vain
        (0.5, Reached(9, 2.5, 9, 1.0), 0.5 / 2.5),  # no more than the target counts
    ],
)
def test_the_objective_is_accuracy_and_with_a_target_accuracy_per_epoch(
    target: float | None, reached: Reached | None, expected: float
) -> None:
    result = Result(Outcome.complete, 4, 12, 1.0, BEST, reached=reached)
    assert objective(result, target) == expected
    for outcome in set(Outcome) - {Outcome.complete}:
        assert objective(replace(result, outcome=outcome), target) is None


@pytest.mark.parametrize("overrides", [[], ["trainer.target=0.01"], ["trainer.target=1"]])
def test_a_run_says_its_objective(overrides: list[str], digits: DataSet) -> None:
    config = configured(*overrides)
    result = train.run(config, digits, phase=Phase.search)
    assert result.objective == objective(result, config.trainer.target) is not None
    pruned = train.run(configured(), digits, on_epoch=lambda epoch: True)
    assert pruned.objective is None
