"""Whole studies that settle by themselves, of accuracies made up from a response surface."""

import math
import random
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness import InlineWorker, at, finish, gathered, one_line, opened, own_yaml
from test_ledger import Kill, Killed, books, tables

from pipeline.compose import compose
from pipeline.data import DataSet
from pipeline.errors import UserError
from pipeline.results import Epoch, Evaluation, Outcome, Phase, Result
from studies.report import kinds
from studies.search import journal, rounds
from studies.search.arms import Study, plan
from studies.search.settling import cost
from studies.search.unsettled import rules
from studies.search.workers import Task

pytestmark = pytest.mark.slow  # every test runs studies, of runs that take no training

LR = "optimizer.sgd.lr"
SURFACE = """
name: surface
question: Which reaches more?
arms:
  plain: [model=mlp]
  batchnorm: [model=mlp_batchnorm]
fixed: [data=digits, trainer.epochs=2, pruner=none]
search:
  optimizer: [sgd]
trials: 4
finals: 1
searches: 2
settle: true
limit: 12
"""


class Surface(InlineWorker):
    """Makes up accuracies: a parabola of the learning rate's logarithm, and noise."""

    peak, width, noise, longer, most = -2.0, 0.0005, 0.0005, 0.0, math.inf

    def send(self, message: Task | bool) -> None:
        if isinstance(message, Task):
            self.run = self.invented(message)
            self.advance(lambda run: next(run))
        else:
            self.advance(lambda run: run.send(message))

    def advance(self, how: Callable[[Generator[Epoch, bool, Result]], Epoch]) -> None:
        assert self.run is not None
        try:
            self.report = how(self.run)
        except StopIteration as end:
            self.report = end.value

    def invented(self, task: Task) -> Generator[Epoch, bool, Result]:
        composed = compose(task.overrides)
        lr, epochs = float(composed.optimizer.lr), int(composed.trainer.epochs)
        if lr > self.most:
            return Result(Outcome.diverged, 0, 1, 0.1, None)
        drawn = random.Random(repr(task.overrides)).gauss(0, self.noise)
        height = 0.9 - self.width * (math.log10(lr) - self.peak) ** 2
        if composed.model.name == "mlp_batchnorm":
            height += self.longer * math.log2(epochs / 2)
        reached = min(0.99, max(0.1, height + drawn))
        for n in range(1, epochs + 1):
            accuracy = reached - 0.01 * (epochs - n)
            figures = (1.0, accuracy, 1.0, accuracy, lr, 1.0)
            last = Epoch(n, 11 * n, 1300 * n, *figures, 0.1 * n, 0.1 * n, 13_000.0)
            yield last
        test = Evaluation(1.0, reached) if task.phase is Phase.final else None
        return Result(
            Outcome.complete, epochs, 11 * epochs, 0.1, last, test, objective=last.val_accuracy
        )


@pytest.fixture(scope="module")
def surface(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Study]]:
    """The study of SURFACE with these overrides."""
    folder = tmp_path_factory.mktemp("surface")
    own_yaml(folder, "study", "surface", SURFACE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield lambda *overrides: plan(["study=surface", *overrides])


@pytest.fixture(scope="module")
def one(study: Study) -> Study:
    """Its second arm alone, which takes half as long."""
    return replace(study, arms=study.arms[1:])


def narrowed(**surface: float) -> type[Surface]:
    return type("Other", (Surface,), surface)


BEYOND = narrowed(peak=0.7, width=0.02)


def settled(study: Study, mlruns: Path) -> list[rounds.Round]:
    return gathered(study, mlruns).rounds


@pytest.fixture(scope="module")
def study(surface: Callable[..., Study]) -> Study:
    return surface()


def test_a_flat_surface_is_settled_at_once_and_its_winners_meet_the_test_set_once(
    study: Study, digits: DataSet, mlruns: Path
) -> None:
    ended = finish(study, digits, mlruns, Surface)
    assert [r.stage for r in settled(study, mlruns)] == ["confirm", "longer", "frozen"]
    assert settled(study, mlruns)[-1].end == "settled"
    at_end = [name for name in ended if "final" in name]
    assert ended[-4:] == at_end and len(at_end) == 4
    found = gathered(study, mlruns)
    assert "not settled" not in kinds.answer(found)
    assert len(found.finals) == 4 and set(found.trials["phase"]) == {"search", "final"}
    assert finish(study, digits, mlruns, Surface) == []


def test_confirmation_runs_have_seeds_and_splits_of_their_own(
    study: Study, digits: DataSet, mlruns: Path
) -> None:
    finish(study, digits, mlruns, Surface)
    stored = journal.read(at(study, mlruns).config, study.name)
    for arm in stored.values():
        for search in arm.searches:
            seeds = {seed for runs in search.confirmations.values() for seed in runs}
            assert seeds == set(study.fresh_seeds(search.search))
            assert len(seeds) == 3 and not seeds & {*study.final_seeds(search.search)}
            assert all(seed < study.seed(search.search + 1) for seed in seeds)


def test_a_peak_beyond_the_range_is_found(one: Study, digits: DataSet, mlruns: Path) -> None:
    finish(one, digits, mlruns, BEYOND)
    done = settled(one, mlruns)
    assert any("upper tenth" in fired for fired in done[1].fired)
    assert done[-1].ranges == {"batchnorm": {LR: [1e-4, 10.0]}}
    (arm,) = journal.read(at(one, mlruns).config, one.name).values()
    assert all(search.best and search.best.params[LR] > 1 for search in arm.searches)
    assert all(t.params[LR] <= 1 for s in arm.searches for t in s.trials[:4])


def test_epochs_that_change_the_contrast_are_doubled_and_kept_for_final_runs(
    study: Study, digits: DataSet, mlruns: Path
) -> None:
    finish(study, digits, mlruns, narrowed(longer=0.02))
    done = settled(study, mlruns)
    assert any("twice the epochs" in fired for r in done for fired in r.fired)
    found = gathered(study, mlruns)
    lengths = {int(found.setting(row, "trainer.epochs")) for _, row in found.finals.iterrows()}
    assert lengths == {done[-1].epochs} and done[-1].epochs in (4, 8)
    assert done[-1].end.startswith("not settled")  # it would go on for ever


def test_rates_that_diverge_are_not_drawn_again(one: Study, digits: DataSet, mlruns: Path) -> None:
    finish(one, digits, mlruns, narrowed(most=2e-3))
    first = next(r for r in settled(one, mlruns) if r.caps)
    assert any("diverged" in fired for fired in first.fired)
    (arm,) = journal.read(at(one, mlruns).config, one.name).values()
    new = [t.params[LR] for s in arm.searches for t in s.trials if t.number >= first.first]
    assert new and max(new) <= first.caps["batchnorm"][LR]


@pytest.mark.parametrize("limit", [5, 9])
def test_what_never_settles_ends_within_its_limit_and_says_so(
    limit: int, surface: Callable[..., Study], digits: DataSet, mlruns: Path
) -> None:
    study = surface(f"study.limit={limit}")
    finish(study, digits, mlruns, narrowed(width=0.05))
    stored = journal.read(at(study, mlruns).config, study.name)
    searches = [search for arm in stored.values() for search in arm.searches]
    assert cost(searches) <= limit * rules(study).plan(searches)
    assert "; not settled: " in kinds.answer(gathered(study, mlruns))
    assert len(gathered(study, mlruns).finals) == 4


def test_a_larger_limit_goes_on(
    surface: Callable[..., Study], digits: DataSet, mlruns: Path
) -> None:
    worker = narrowed(width=0.05)
    finish(surface("study.limit=5"), digits, mlruns, worker)
    more = surface("study.limit=9")
    before = len(settled(more, mlruns))
    assert finish(more, digits, mlruns, worker) != []
    assert "asked for with limit=9" in settled(more, mlruns)[before].done


MOMENTS = {
    "a confirmation run ended in MLflow alone": (journal, "end_confirmation", 5, False),
    "a confirmation run ended in both": (journal, "end_confirmation", 20, True),
    "a decision taken and not written": (journal, "begin_round", 1, False),
    "a round of which nothing but itself is written": (rounds, "asked", 2, False),
    "a round of which half is asked": (rounds, "asked", 3, False),
    "a round written": (journal, "begin_round", 1, True),
    "a trial of the second round asked for": (journal, "begin", 10, False),
    "a trial of the second round ended": (journal, "end", 10, True),
    "the end decided": (journal, "begin_round", 2, False),
    "the end written": (journal, "begin_round", 2, True),
    "a final run ended in MLflow alone": (journal, "end_final", 2, False),
}


@pytest.fixture(scope="module")
def limited(one: Study) -> Study:
    """One that has two rounds and is out of its limit then."""
    budget = replace(one.budget, limit=7.0)
    return replace(one, config=replace(one.config, study=budget))


@pytest.fixture(scope="module")
def undisturbed(limited: Study, digits: DataSet, fresh: Callable[[str], Path]) -> Any:
    mlruns = fresh("undisturbed")
    finish(limited, digits, mlruns, BEYOND)
    assert [r.number for r in settled(limited, mlruns)] == [1, 2, 2]
    return tables(limited, mlruns), rounds.as_data(settled(limited, mlruns))


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment_a_study_that_settles_ends_as_undisturbed(
    moment: str, undisturbed: Any, limited: Study, digits: DataSet, mlruns: Path
) -> None:
    with pytest.raises(Killed), Kill(*MOMENTS[moment]):
        finish(limited, digits, mlruns, BEYOND)
    finish(limited, digits, mlruns, BEYOND)
    assert (tables(limited, mlruns), rounds.as_data(settled(limited, mlruns))) == undisturbed
    logged, named = books(limited, mlruns)
    assert logged == named


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("sampler=grid", ["sampler=grid", "tpe or random", "settle=true"]),
        ("study.finals=0", ["study.finals=0", "1"]),
        ("study.limit=1", ["study.limit=1", "or more", "first round"]),
        ("trainer.target=0.5", ["trainer.target=0.5", "settle=true"]),
    ],
)
def test_what_cannot_settle_is_refused_in_one_line(
    override: str,
    parts: list[str],
    surface: Callable[..., Study],
    digits: DataSet,
    mlruns: Path,
) -> None:
    searches = ("study.searches=1",) if "finals" in override else ()
    study = surface(override, *searches)
    with pytest.raises(UserError) as error, opened(study, digits, mlruns):
        pass
    one_line(error.value, *parts)


def test_the_command_line_says_whether_a_study_settles(
    surface: Callable[..., Study],
) -> None:
    assert surface().settles
    assert not surface("settle=false").settles
    assert surface("settle=true", "study.settle=false").settles
