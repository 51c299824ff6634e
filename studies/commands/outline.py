"""What a study would do, before it does: its arms, what it searches, its budget, how long it takes.

Reads configurations, and journals of studies that ran; no image, no MLflow.
"""

from collections.abc import Iterator
from statistics import median

from rich.table import Table
from rich.text import Text

from pipeline.compose import override_key
from pipeline.words import count, duration
from studies.search import journal
from studies.search.arms import Arm, Study
from studies.search.capacity import pool_size
from studies.search.search_space import Range
from studies.search.unsettled import rules

ALIKE = ("data.name", "trainer.batch_size")  # where these agree, an epoch takes about as long


def outline(study: Study) -> Table:
    """Two columns: what, and how it is in this study."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for what, how in (*_experiment(study), *_cost(study)):
        table.add_row(what, Text(how))  # as it stands: brackets are no markup
    return table


def _experiment(study: Study) -> Iterator[tuple[str, str]]:
    yield "study", study.name
    yield "question", study.budget.question
    own = {override_key(o) for overrides in study.budget.arms.values() for o in overrides}
    for arm in study.arms:
        yield "arm", f"{arm.name}: {' '.join(study.budget.arms[arm.name]) or 'as fixed'}"
    yield "fixed", " ".join(o for o in study.arms[0].base if override_key(o) not in own) or "–"
    searched: dict[str, list[str]] = {}  # of every line, the arms it is true of
    for arm in study.arms:
        for line in _searched(arm):
            searched.setdefault(line, []).append(arm.name)
    for line, arms in sorted(searched.items(), key=lambda item: -len(item[1])):
        alone = len(arms) < len(study.arms)
        yield "searched", f"{', '.join(arms)}: {line}" if alone else line
    for policy in ("sampler", "pruner"):
        yield policy, str(study.arms[0].policy(policy)["name"])


def _searched(arm: Arm) -> Iterator[str]:
    """`schedule constant or linear`, and `optimizer.lr (adam) 1e-05 to 0.1, log`."""
    for dimension in arm.space:
        if len(dimension.choices) > 1:
            yield f"{dimension.key} {' or '.join(map(str, dimension.choices))}"
        for tuned in dimension.tuned:
            yield f"{tuned.label} {_range(tuned.range)}"


def _range(span: Range) -> str:
    kind = ", whole numbers" if span.whole else ""
    return f"{span.low:g} to {span.high:g}, {'log' if span.log else 'linear'}{kind}"


def _cost(study: Study) -> Iterator[tuple[str, str]]:
    budget = study.budget
    epochs, runs = {arm.name: arm.epochs for arm in study.arms}, study.runs
    total = runs * sum(epochs.values())
    each = f"({count(budget.trials, 'trial')} + {count(budget.finals, 'final run')})"
    several = f" × {budget.searches} searches" if budget.searches > 1 else ""
    each = f"{count(len(study.arms), 'arm')}{several} × {each}"
    each += f" × {count(max(epochs.values()), 'epoch')}" if len({*epochs.values()}) == 1 else ""
    all_runs, most = count(runs * len(study.arms), "run"), count(total, "epoch")
    yield "budget", f"{each} = {all_runs}, at most {most}"
    if budget.hours is not None:
        yield "", f"no new trials after {duration(3600 * budget.hours)} of work (study.hours)"
    if study.settles:
        most = f"at most {budget.limit * total:.0f} epochs (study.limit={budget.limit:g})"
        points = f"{100 * rules(study).tolerance:g} points"
        yield "settle", f"goes on while more would change it by over {points}, {most}"
    if stored := journal.read(study.config, study.name):
        trials = sum(len(arm.ended) for arm in stored.values())
        finals = sum(len(arm.finals) for arm in stored.values())
        yield "so far", f"{count(trials, 'trial')} and {count(finals, 'final run')} have ended"
    workers = pool_size(study.workers, runs * len(study.arms))
    yield "workers", str(workers)
    yield "time", _time(study, epochs, workers)


def _time(study: Study, epochs: dict[str, int], workers: int) -> str:
    """An estimate from all trials on the same images in batches of the same size."""
    took: dict[tuple[str, ...], list[float]] = {}
    for name in journal.existing(study.config):
        for stored in journal.read(study.config, name).values():
            alike = took.setdefault(tuple(str(stored.definition.get(key)) for key in ALIKE), [])
            for trial in stored.ended:
                if trial.duration is not None and (ended := len(trial.intermediate_values)):
                    alike.append(trial.duration.total_seconds() / ended)
    seconds = 0.0
    for arm in study.arms:
        kind = tuple(str(arm.definition().get(key)) for key in ALIKE)
        if not took.get(kind):
            what = ", ".join(f"{key}={value}" for key, value in zip(ALIKE, kind, strict=True))
            return f"can't be told: no study has been run here with {what}"
        seconds += study.runs * epochs[arm.name] * median(took[kind])
    return (
        f"about {duration(seconds / workers)}, by the trials of earlier studies; pruning saves some"
    )
