"""Where a study's search shouldn't be trusted, and the override that would fix it.

Rules over `Evidence`, in the order of `diagnose`; each rule's docstring gives its threshold. What
they look at is in `symptoms`. Reads and judges only: no Optuna, no MLflow.
"""

import itertools
import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipeline.words import count
from studies.analysis import statistics, symptoms
from studies.analysis.evidence import Evidence
from studies.analysis.frames import INDEPENDENT, sampler, scores
from studies.analysis.hyperparameters import optimizer
from studies.analysis.symptoms import LAST_FIFTH, ONE_POINT, renamed
from studies.analysis.tables import ended
from studies.search.search_space import searched

DIVERGED = 0.25
OVERFIT = 0.05  # relative rise of validation loss from its minimum

CONTAINS = {  # a general method, and those it becomes at some setting (Choi et al. 2019)
    "momentum": ("sgd",),
    "nesterov": ("sgd",),
    "adam": ("sgd", "momentum"),
    "rmsprop": ("sgd", "momentum"),
}


@dataclass(frozen=True)
class Finding:
    """One reason to doubt: about `arm`, or about the whole study where that is None.

    `kind` is the name of its rule; `text` one sentence with the numbers; `override` what to add to
    the study's command, "" where nothing would do. It brings a new `study.name` along where the
    fix makes another experiment.
    """

    arm: str | None
    kind: str
    text: str
    override: str


def diagnose(evidence: Evidence) -> list[Finding]:
    """All findings: those about the whole study first, then arm by arm."""
    rules = [missing, cut, unequal, chance, boundary, budget]
    rules += [diverged, length, overfitting, inclusion]
    findings = [finding for rule in rules for finding in rule(evidence)]
    order = [None, *symptoms.arms(evidence)]
    return sorted(findings, key=lambda finding: order.index(finding.arm))


def missing(evidence: Evidence) -> Iterator[Finding]:
    """The journal, an arm's trials or its final runs aren't there, or not all of them."""
    if not evidence.definitions:
        logged = count(len(ended(evidence.trials)), "trial")
        anew = f"to search anew, optstudy run study={evidence.study} with a new study.name"
        lost = "ranges, sampler and budgets are unknown"
        text = f"The journal is gone: {logged} in MLflow, but {lost}; {anew}."
        yield Finding(None, "missing", text, "")
    for arm in symptoms.arms(evidence):
        if lack := _lack(evidence, arm):
            yield Finding(arm, "missing", *lack)


def _lack(evidence: Evidence, arm: str) -> tuple[str, str] | None:
    """What an arm lacks, first things first, and the override that asks for it."""
    again = f"go on with {evidence.command or f'optstudy run study={evidence.study}'}"
    trials = symptoms.trials(evidence, arm)
    if len(trials) < (asked := evidence.asked(arm, "trials")):
        return f"{len(trials)} of {count(asked, 'trial')} have ended; {again}.", ""
    if arm not in evidence.best:
        none = f"None of {count(len(trials), 'trial')} is complete ({symptoms.outcomes(trials)})"
        return f"{none}: there is nothing to retrain.", ""
    finals = symptoms.finals(evidence, arm)
    tested = int(finals["test_accuracy"].notna().sum())
    wanted = evidence.asked(arm, "finals", unknown=1)
    if wanted == 0:
        return "No final runs were asked for.", "study.finals=10"
    if tested >= wanted:
        return None
    there = f" ({symptoms.outcomes(finals)})" if len(finals) else ""
    ends = "." if len(finals) >= wanted else f"; {again}."
    return f"{tested} of {wanted} final runs have a test accuracy{there}{ends}", ""


def cut(evidence: Evidence) -> Iterator[Finding]:
    """The search was ended by its hours, before it had its trials."""
    if evidence.journal and (cut := next(iter(evidence.journal.values())).cut):
        done = next(iter(evidence.budgets.values()))["trials"]
        of = count(cut["trials"], "trial")
        text = f"study.hours={cut['hours']:g} ended the search with {done} of {of}"
        yield Finding(None, "cut", f"{text} in every arm.", f"study.hours={2 * cut['hours']:g}")


def unequal(evidence: Evidence) -> Iterator[Finding]:
    """The arms differ in budget or policy, so a difference may be that instead."""
    arms, defined = symptoms.arms(evidence), evidence.definitions
    trials = {arm: len(symptoms.trials(evidence, arm)) for arm in arms}
    tested = {arm: symptoms.finals(evidence, arm).dropna(subset="test_accuracy") for arm in arms}
    seeds = {a: ", ".join(map(str, finals["seed"])) for a, finals in tested.items() if len(finals)}
    for key, name, had in (("trials", "trials", trials), ("finals", "final seeds", seeds)):
        most = max((budget[key] for budget in evidence.budgets.values()), default=0)
        yield from _differ(name, had, override=f"study.{key}={most}" if most else "")
    question = "; unless that is the question, the comparison isn't fair"
    settings = {"epochs": "trainer.epochs", "target": "trainer.target"}
    settings["batch size"] = "trainer.batch_size"
    if any(symptoms.aimed(evidence, arm) for arm in defined):
        del settings["epochs"]  # with a target they are only a limit
    for name, key in settings.items():
        yield from _differ(name, {arm: _setting(evidence, arm, key) for arm in defined}, question)
    for name in ("sampler", "pruner"):
        yield from _differ(name, {arm: _policy(d.get(name, {})) for arm, d in defined.items()})


def _setting(evidence: Evidence, arm: str, key: str) -> str:
    # Of a searched setting its choices: two arms may draw others of them and search the same.
    choices = evidence.definitions[arm].get(f"study.search.{key}")
    return " or ".join(map(str, choices or sorted(evidence.values(arm, key))))


def _differ(
    name: str, values: Mapping[str, Hashable], remark: str = "", override: str = ""
) -> Iterator[Finding]:
    if len(set(values.values())) > 1:
        listed = "; ".join(f"{arm} {value}" for arm, value in values.items())
        yield Finding(None, "unequal", f"The arms differ in {name}: {listed}{remark}.", override)


def chance(evidence: Evidence) -> Iterator[Finding]:
    """An arm's best trial is no better than guessing, within three standard errors."""
    guessing, luck = symptoms.luck(evidence)
    for arm, best in evidence.best.items():
        if best["val_accuracy"] <= luck:
            text = f"The best trial reaches {100 * best['val_accuracy']:.1f} % validation accuracy"
            text += f", guessing {100 * guessing:.1f} %: nothing is learnt in this range."
            yield Finding(arm, "chance", text, "")


def boundary(evidence: Evidence) -> Iterator[Finding]:
    """An arm's best trial, or half of its top tenth (at least 3 trials), in an outer tenth.

    Asks for a decade more (log) or twice the width. An override sets a range in every arm and
    for every choice, so it reaches as far as any of them needs and narrows none.
    """
    edges = [(arm, edge) for arm in evidence.definitions for edge in symptoms.edges(evidence, arm)]
    reach: dict[tuple[str, bool], list[float]] = {}
    for tuned in (t for d in evidence.definitions.values() for t in searched(d)):
        reach.setdefault((tuned.key, False), []).append(tuned.range.low)
        reach.setdefault((tuned.key, True), []).append(tuned.range.high)
    for _, edge in edges:
        reach[edge.key, edge.upper].append(edge.wider)
    for arm, edge in edges:
        furthest, end = (max, "high") if edge.upper else (min, "low")
        bound, text = furthest(reach[edge.key, edge.upper]), edge.text
        if bound != edge.wider:
            text += f"; in this arm alone (study.arms.{arm}) {end}={edge.wider:.6g} would do"
        override = f"search_space.{edge.key}.{end}={bound:.6g} {renamed(evidence)}"
        yield Finding(arm, "boundary", f"{text}.", override)


def budget(evidence: Evidence) -> Iterator[Finding]:
    """The second half of the trials still paid: more of them would too.

    Independent samplers: E[best of N] − E[best of N/2] above the final seeds' standard deviation
    of validation accuracy, unless runs end at a target. Any sampler but grid, whose order means
    nothing: the best trial came in the last fifth. Independent samplers again: no trial went
    beyond the best one's value, though its range does. Searches that have ended, of 5 trials and
    more.
    """
    for arm in symptoms.arms(evidence):
        values = scores(symptoms.trials(evidence, arm))
        n, asked = len(values), evidence.asked(arm, "trials")
        if n < max(5, asked):
            continue
        reasons = "; ".join(_still_paying(evidence, arm, values))
        if reasons:
            more = f"study.trials={2 * max(n, asked) // symptoms.searches(evidence, arm)}"
            yield Finding(arm, "budget", f"{reasons[0].upper()}{reasons[1:]}.", more)


def _still_paying(evidence: Evidence, arm: str, values: "pd.Series[float]") -> Iterator[str]:
    best, n, drawn = evidence.best[arm], len(values), sampler(evidence, arm)
    if drawn in INDEPENDENT and not symptoms.aimed(evidence, arm):
        expected = statistics.expected_best(values).value
        gain, spread = expected[-1] - expected[n // 2 - 1], symptoms.spread(evidence, arm)
        if gain > spread:
            yield (
                f"{n} trials are expected to find {100 * gain:.2f} points more than {n // 2}, "
                f"beyond the seeds' standard deviation of {100 * spread:.2f}"
            )
    came = list(values.index).index(best.name) + 1
    if drawn != "grid" and came > (1 - LAST_FIFTH) * n:
        yield f"the best trial came as number {came} of {n}"
    if drawn in INDEPENDENT:
        yield from symptoms.outermost(evidence, arm, best)


def diverged(evidence: Evidence) -> Iterator[Finding]:
    """Over a quarter of an arm's ended trials, or any of its final runs, diverged.

    Asks for a decade less of learning rate, where that leaves every arm's best a factor of three
    and raises no arm's range.
    """
    for arm in symptoms.arms(evidence):
        trials = symptoms.trials(evidence, arm)
        lost = int((trials["outcome"] == "diverged").sum())
        if lost > DIVERGED * len(trials):
            lower = symptoms.lower_rate(evidence, arm)
            yield Finding(
                arm, "diverged", f"{lost} of {count(len(trials), 'trial')} diverged.", lower
            )
        finals = symptoms.finals(evidence, arm)
        if lost := int((finals["outcome"] == "diverged").sum()):
            text = f"{lost} of {len(finals)} final runs diverged: the mean covers the others only."
            yield Finding(arm, "diverged", text, "")


def length(evidence: Evidence) -> Iterator[Finding]:
    """Final runs are best at their last epoch and were still rising by more than the seeds' spread.

    Means over seeds: accuracy over the last fifth of the epochs, at least one. Not where runs end
    at a target.
    """
    for arm in symptoms.arms(evidence):
        if symptoms.aimed(evidence, arm) or (rise := symptoms.rise(evidence, arm)) is None:
            continue
        n, (back, gain) = len(symptoms.mean_curve(evidence, arm)), rise
        text = f"Validation accuracy was best at the last of {n} epochs, {100 * gain:.2f} points "
        text += f"above {back} epoch{'s' * (back > 1)} earlier."
        yield Finding(arm, "length", text, symptoms.of_length(evidence, 2 * n))


def overfitting(evidence: Evidence) -> Iterator[Finding]:
    """Mean validation loss ends over 5 % above its minimum while training loss fell from there.

    Not where accuracy still rises (`length`). Asks for the epochs up to the best accuracy.
    """
    for arm in symptoms.arms(evidence):
        curve = symptoms.mean_curve(evidence, arm)
        loss, n = curve["val_loss"], len(curve)
        if n < 2 or symptoms.rise(evidence, arm) is not None:
            continue
        lowest = int(loss.argmin())
        risen = loss.iloc[-1] > (1 + OVERFIT) * loss.iloc[lowest]
        if risen and curve["train_loss"].iloc[-1] < curve["train_loss"].iloc[lowest]:
            enough = max(lowest, int(curve["val_accuracy"].argmax())) + 1
            text = f"Validation loss rose from {loss.iloc[lowest]:.3g} at epoch {lowest + 1} to "
            text += f"{loss.iloc[-1]:.3g} at epoch {n} while training loss fell."
            shorter = symptoms.of_length(evidence, enough) if enough < n else ""
            yield Finding(arm, "overfitting", text, shorter)


def inclusion(evidence: Evidence) -> Iterator[Finding]:
    """A general optimizer's arm below a special case's by more than the 95 % half-width.

    Of arms that differ in nothing else: mean test accuracy and the wider of the two half-widths;
    validation accuracy and one point where one of them has no interval.
    """
    for pair in itertools.permutations(evidence.arms.to_dict("records"), 2):
        general, special = pair
        names = [optimizer(pd.Series(row), evidence.journal) for row in pair]
        included = names[1] in CONTAINS.get(str(names[0]), ())
        if not included or not _alike(evidence, general["arm"], special["arm"]):
            continue
        widths = [row["test_accuracy_high"] - row["test_accuracy_low"] for row in pair]
        key, margin = "val_accuracy", ONE_POINT
        if not any(map(math.isnan, widths)):
            key, margin = "test_accuracy_mean", max(widths) / 2
        below, above = general[key], special[key]
        if above - below > margin:
            text = (
                f"{names[0]} includes {names[1]}, yet reaches a {key.split('_')[0]} accuracy "
                f"of {below:.4f} where {special['arm']} reaches {above:.4f}: under-tuned, or "
                "restricted by what it holds fixed."
            )
            trials = evidence.budgets.get(general["arm"], {}).get("trials")
            more = f"study.trials={2 * trials}" if trials else ""
            yield Finding(general["arm"], "inclusion", text, more)


def _alike(evidence: Evidence, one: str, other: str) -> bool:
    own = ("optimizer.", "search_space.optimizer.", "study.search.optimizer")
    defined = (evidence.definitions.get(arm, {}) for arm in (one, other))
    rest = [{k: v for k, v in each.items() if not k.startswith(own)} for each in defined]
    return bool(rest[0]) and rest[0] == rest[1]


def _policy(recipe: Mapping[str, Any]) -> str:
    """A sampler or pruner and its settings; how many epochs there are is no policy."""
    settings = recipe.get("build", recipe.get("design", {}))
    listed = [f"{k}={v}" for k, v in settings.items() if k[0] != "_" and k != "max_resource"]
    return f"{recipe.get('name')}({', '.join(listed)})" if listed else str(recipe.get("name"))
