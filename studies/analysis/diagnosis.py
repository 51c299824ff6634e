"""Where a study's search shouldn't be trusted, and the override that would fix it.

Rules over `Evidence`, in the order of `diagnose`; each rule's docstring gives its threshold.
Reads and judges only: no Optuna, no MLflow.
"""

import math
import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from studies.analysis import statistics
from studies.analysis.evidence import Evidence
from studies.analysis.frames import (
    ENDED,
    INDEPENDENT,
    final_curves,
    optimizer,
    ranges,
    sampler,
    scores,
)
from studies.analysis.tables import best_row, counting_finals, ranked

EDGE = 0.1  # outer tenth of a range, in log space where it is log-scaled
TOP_AT_LEAST = 3  # the top tenth of few trials is too few to have a tendency
DIVERGED = 0.25
LAST_FIFTH = 0.2
OVERFIT = 0.05  # relative rise of validation loss from its minimum
ONE_POINT = 0.01  # stands in for the seeds' spread where fewer than two final runs measure it
UNTESTED = ("val_accuracy", ONE_POINT)

# Natural ends: beyond them a setting is invalid, or the same method as at the end. A bound at or
# past one isn't flagged, a suggestion stops there. Elsewhere 0, where the range doesn't cross it.
LIMITS = {
    "momentum": (0.01, 0.99),  # 0 is plain SGD (Nesterov's range ends at 0.01), 1 never forgets
    "beta1": (0.01, 0.99),
    "beta2": (0.01, 0.9999),
    "rho": (0.01, 0.9999),
    "end_fraction": (1e-3, 1.0),  # 1 is no schedule; a thousandth of the first rate is as good as 0
    "decay_rate": (1e-3, 1.0),
}
CONTAINS = {  # a general method, and those it becomes at some setting (Choi et al. 2019)
    "momentum": ("sgd",),
    "nesterov": ("sgd",),
    "adam": ("sgd", "momentum"),
    "rmsprop": ("sgd", "momentum"),
}


@dataclass(frozen=True)
class Finding:
    """One reason to doubt: about `arm`, or about the whole study where that is None.

    `kind` is missing, unequal, boundary, budget, diverged, length, overfitting or inclusion;
    `text` one sentence with the numbers; `override` what to add to the study's command, "" where
    nothing would do. It brings a new `study.name` along where the fix makes another experiment.
    """

    arm: str | None
    kind: str
    text: str
    override: str


def diagnose(evidence: Evidence) -> list[Finding]:
    """All findings: those about the whole study first, then arm by arm."""
    rules = (missing, unequal, boundary, budget, diverged, length, overfitting, inclusion)
    found = [finding for rule in rules for finding in rule(evidence)]
    arms = [None, *_arms(evidence)]
    return sorted(found, key=lambda finding: arms.index(finding.arm))


def missing(evidence: Evidence) -> Iterator[Finding]:
    """The journal, an arm's trials or its final runs aren't there, or not all of them."""
    again = f"go on with {evidence.command or f'optstudy run study={evidence.study}'}"
    if not evidence.definitions:
        count = len(_search(evidence.trials))
        yield Finding(
            None,
            "missing",
            f"The journal is gone: {count} trials are logged, but ranges, sampler and budgets are "
            f"unknown; to search anew, optstudy run study={evidence.study} with a new study.name.",
            "",
        )
    for arm in _arms(evidence):
        runs = evidence.trials[evidence.trials["arm"] == arm]
        ended, asked = len(_search(runs)), evidence.budgets.get(arm, {})
        if ended < asked.get("trials", 0):
            text = f"{ended} of {asked['trials']} trials have ended; {again}."
            yield Finding(arm, "missing", text, "")
        elif best_row(runs) is None:
            how = _outcomes(_search(runs))
            text = f"None of {ended} trials is complete ({how}): there is nothing to retrain."
            yield Finding(arm, "missing", text, "")
        else:
            finals = _finals(evidence, arm)
            tested, wanted = int(finals["test_accuracy"].notna().sum()), asked.get("finals", 1)
            if wanted == 0:
                yield Finding(arm, "missing", "No final runs were asked for.", "study.finals=10")
            elif tested < wanted:
                there = f" ({_outcomes(finals)})" if len(finals) else ""
                text = f"{tested} of {wanted} final runs have a test accuracy{there}"
                ends = "." if len(finals) >= wanted else f"; {again}."
                yield Finding(arm, "missing", text + ends, "")


def unequal(evidence: Evidence) -> Iterator[Finding]:
    """The arms differ in budget or policy, so a difference may be that instead."""
    arms, defined = _arms(evidence), evidence.definitions
    ended = {arm: len(_search(evidence.trials[evidence.trials["arm"] == arm])) for arm in arms}
    tested = {arm: _finals(evidence, arm).dropna(subset="test_accuracy")["seed"] for arm in arms}
    seeds = {arm: ", ".join(map(str, found)) for arm, found in tested.items() if len(found)}
    wanted = max((b["trials"] for b in evidence.budgets.values()), default=0)
    finals = max((b["finals"] for b in evidence.budgets.values()), default=0)
    question = "; unless that is the question, the comparison isn't fair"
    yield from _differ("trials", ended, "", f"study.trials={wanted}" if wanted else "")
    yield from _differ("final seeds", seeds, "", f"study.finals={finals}" if finals else "")
    aimed = any(_aimed(evidence, arm) for arm in defined)
    epochs = [] if aimed else [("epochs", "trainer.epochs")]  # with a target they are only a limit
    for name, key in (*epochs, ("target", "trainer.target"), ("batch size", "trainer.batch_size")):
        yield from _differ(name, {arm: defined[arm].get(key) for arm in defined}, question)
    for name in ("sampler", "pruner"):
        policies = {arm: _policy(defined[arm].get(name, {})) for arm in defined}
        yield from _differ(name, policies, "")


def _differ(
    name: str, values: Mapping[str, Hashable], remark: str, override: str = ""
) -> Iterator[Finding]:
    if len(set(values.values())) > 1:
        listed = "; ".join(f"{arm} {value}" for arm, value in values.items())
        yield Finding(None, "unequal", f"The arms differ in {name}: {listed}{remark}.", override)


def boundary(evidence: Evidence) -> Iterator[Finding]:
    """An arm's best trial, or half of its top tenth (at least 3 trials), in an outer tenth.

    Asks for a decade more (log) or twice the width. An override sets a range in every arm and
    for every choice, so it reaches as far as any of them needs and narrows none.
    """
    hits: list[tuple[str, str, bool, float, str]] = []  # arm, key, upper, wider bound, text
    reach: dict[tuple[str, bool], list[float]] = {}
    for arm, definition in evidence.definitions.items():
        complete = ranked(evidence.trials[evidence.trials["arm"] == arm])
        top = complete.head(max(TOP_AT_LEAST, math.ceil(len(complete) / 10)))
        for group, choice, key, span in ranges(definition):
            points = [_place(row, group, choice, key, span) for _, row in top.iterrows()]
            for upper in (False, True):
                reach.setdefault((key, upper), []).append(span["high" if upper else "low"])
                at = [u is not None and (u > 1 - EDGE if upper else u < EDGE) for u in points]
                many = len(top) >= TOP_AT_LEAST and 2 * sum(at) >= len(top)
                wider = _wider(key, span, upper)
                if wider is None or not (many or at[:1] == [True]):
                    continue
                best = f"The best trial's {key}={top.iloc[0][key]:.3g}" if at[0] else ""
                several = f"{sum(at)} of the {len(top)} best trials' {key}"
                side = "upper" if upper else "lower"
                within = f"{span['low']:g} to {span['high']:g} ({choice})"
                lie = "lies" if best else "lie"
                text = f"{best or several} {lie} in the {side} tenth of its range, {within}"
                hits.append((arm, key, upper, wider, text))
    for _, key, upper, wider, _ in hits:
        reach[key, upper].append(wider)
    for arm, key, upper, wider, text in hits:
        bound, end = (max if upper else min)(reach[key, upper]), "high" if upper else "low"
        if bound != wider:
            text += f"; in this arm alone (study.arms.{arm}) {end}={wider:.6g} would do"
        override = f"search_space.{key}.{end}={bound:.6g} {_renamed(evidence)}"
        yield Finding(arm, "boundary", f"{text}.", override)


def budget(evidence: Evidence) -> Iterator[Finding]:
    """The second half of the trials still paid: more of them would too.

    Independent samplers: E[best of N] − E[best of N/2] above the final seeds' standard deviation
    of validation accuracy, unless runs end at a target. Any sampler but grid, whose order means
    nothing: the best trial came in the last fifth. Independent samplers again: no trial went
    beyond the best one's value, though its range does. Searches that have ended, of 5 trials and
    more.
    """
    for arm in _arms(evidence):
        runs = evidence.trials[evidence.trials["arm"] == arm]
        values, best = scores(runs), best_row(runs)
        n, asked = len(values), evidence.budgets.get(arm, {}).get("trials", 0)
        if best is None or n < max(5, asked):
            continue
        reasons = []
        if sampler(evidence, arm) in INDEPENDENT and not _aimed(evidence, arm):
            expected = statistics.expected_best(values).value
            gain, spread = expected[-1] - expected[n // 2 - 1], _spread(evidence, arm)
            if gain > spread:
                reasons.append(
                    f"{n} trials are expected to find {100 * gain:.2f} points more than {n // 2}, "
                    f"beyond the seeds' standard deviation of {100 * spread:.2f}"
                )
        came = list(values.index).index(best.name) + 1
        if sampler(evidence, arm) != "grid" and came > (1 - LAST_FIFTH) * n:
            reasons.append(f"the best trial came as number {came} of {n}")
        if sampler(evidence, arm) in INDEPENDENT:
            reasons += _outermost(evidence, arm, runs, best)
        if reasons:
            text = "; ".join(reasons)
            more = f"study.trials={2 * max(n, asked)}"
            yield Finding(arm, "budget", f"{text[0].upper()}{text[1:]}.", more)


def diverged(evidence: Evidence) -> Iterator[Finding]:
    """Over a quarter of an arm's ended trials, or any of its final runs, diverged.

    Asks for a decade less of learning rate, where that leaves every arm's best a factor of three
    and raises no arm's range.
    """
    for arm in _arms(evidence):
        ended = _search(evidence.trials[evidence.trials["arm"] == arm])
        lost = int((ended["outcome"] == "diverged").sum())
        if lost > DIVERGED * len(ended):
            text = f"{lost} of {len(ended)} trials diverged."
            yield Finding(arm, "diverged", text, _lower_rate(evidence, arm))
        finals = _finals(evidence, arm)
        if lost := int((finals["outcome"] == "diverged").sum()):
            text = f"{lost} of {len(finals)} final runs diverged: the mean covers the others only."
            yield Finding(arm, "diverged", text, "")


def length(evidence: Evidence) -> Iterator[Finding]:
    """Final runs are best at their last epoch and were still rising by more than the seeds' spread.

    Means over seeds: accuracy over the last fifth of the epochs, at least one. Not where runs end
    at a target.
    """
    for arm in _arms(evidence):
        curve = _mean_curve(evidence, arm)["val_accuracy"]
        if _aimed(evidence, arm) or not _rising(evidence, arm):
            continue
        back = max(1, round(LAST_FIFTH * len(curve)))
        gain, n = curve.iloc[-1] - curve.iloc[-1 - back], len(curve)
        text = (
            f"Validation accuracy was best at the last of {n} epochs, {100 * gain:.2f} points "
            f"above {back} epoch{'s' * (back > 1)} earlier."
        )
        yield Finding(arm, "length", text, _epochs(evidence, 2 * n))


def overfitting(evidence: Evidence) -> Iterator[Finding]:
    """Mean validation loss ends over 5 % above its minimum while training loss fell from there.

    Not where accuracy still rises (`length`). Asks for the epochs up to the best accuracy.
    """
    for arm in _arms(evidence):
        curve = _mean_curve(evidence, arm)
        loss, n = curve["val_loss"], len(curve)
        if n < 2 or _rising(evidence, arm):
            continue
        lowest = int(loss.argmin())
        risen = loss.iloc[-1] > (1 + OVERFIT) * loss.iloc[lowest]
        if risen and curve["train_loss"].iloc[-1] < curve["train_loss"].iloc[lowest]:
            enough = max(lowest, int(curve["val_accuracy"].argmax())) + 1
            text = (
                f"Validation loss rose from {loss.iloc[lowest]:.3g} at epoch {lowest + 1} to "
                f"{loss.iloc[-1]:.3g} at epoch {n} while training loss fell."
            )
            yield Finding(arm, "overfitting", text, _epochs(evidence, enough) if enough < n else "")


def inclusion(evidence: Evidence) -> Iterator[Finding]:
    """A general optimizer's arm below a special case's by more than the 95 % half-width.

    Of arms that differ in nothing else: mean test accuracy and the wider of the two half-widths;
    validation accuracy and one point where one of them has no interval.
    """
    for general in evidence.arms.to_dict("records"):
        for special in evidence.arms.to_dict("records"):
            names = [optimizer(evidence, pd.Series(row)) for row in (general, special)]
            if names[1] not in CONTAINS.get(str(names[0]), ()):
                continue
            if not _alike(evidence, general["arm"], special["arm"]):
                continue
            halves = [_half_width(row) for row in (general, special)]
            tested = not any(math.isnan(half) for half in halves)
            key, margin = ("test_accuracy_mean", max(halves)) if tested else UNTESTED
            below, above = _figure(general, key), _figure(special, key)
            if above - below > margin:
                text = (
                    f"{names[0]} includes {names[1]}, yet reaches a {key.split('_')[0]} accuracy "
                    f"of {below:.4f} where {special['arm']} reaches {above:.4f}: under-tuned, or "
                    "restricted by what it holds fixed."
                )
                trials = evidence.budgets.get(general["arm"], {}).get("trials")
                yield Finding(
                    general["arm"],
                    "inclusion",
                    text,
                    f"study.trials={2 * trials}" if trials else "",
                )


def _arms(evidence: Evidence) -> list[str]:
    return list(dict.fromkeys([*evidence.arms["arm"], *evidence.definitions]))


def _aimed(evidence: Evidence, arm: str) -> bool:
    """Whether an arm's runs end at a target."""
    return evidence.definitions.get(arm, {}).get("trainer.target") is not None


def _search(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[(runs["phase"] == "search") & runs["outcome"].isin(ENDED)]


def _finals(evidence: Evidence, arm: str) -> pd.DataFrame:
    return counting_finals(evidence.trials[evidence.trials["arm"] == arm])


def _outcomes(runs: pd.DataFrame) -> str:
    return ", ".join(
        f"{count} {outcome}" for outcome, count in runs["outcome"].value_counts().items()
    )


def _spread(evidence: Evidence, arm: str) -> float:
    reached = _finals(evidence, arm)["val_accuracy"].dropna().astype(float)
    return float(reached.std()) if len(reached) > 1 else ONE_POINT


def _place(
    trial: "pd.Series[Any]", group: str, choice: str, key: str, span: Mapping[str, Any]
) -> float | None:
    """Where in its range a trial lies, 0 to 1; None for a trial of another choice."""
    chosen = trial.get(group)
    if pd.isna(trial.get(key)) or (pd.notna(chosen) and str(chosen) != choice):
        return None
    scale = math.log if span["log"] else float
    low, high, x = (scale(v) for v in (span["low"], span["high"], trial[key]))
    return (x - low) / (high - low)


def _outermost(
    evidence: Evidence, arm: str, runs: pd.DataFrame, best: "pd.Series[Any]"
) -> Iterator[str]:
    """The best trial's values that are the highest or lowest tried, and not at their range's edge.

    Those at the edge are `boundary`'s; natural ends are exempt here too.
    """
    for group, choice, key, span in ranges(evidence.definitions.get(arm, {})):
        place = _place(best, group, choice, key, span)
        if place is None or not EDGE <= place <= 1 - EDGE:
            continue
        others = [_place(run, group, choice, key, span) for _, run in _search(runs).iterrows()]
        tried = sorted(other for other in others if other is not None)
        if tried[0] == tried[-1]:
            continue
        for upper, end in ((True, tried[-1]), (False, tried[0])):
            if place == end and _wider(key, span, upper) is not None:
                which = "highest" if upper else "lowest"
                yield f"the best trial's {key}={best[key]:.3g} is the {which} of {len(tried)} tried"


def _wider(key: str, span: Mapping[str, Any], upper: bool) -> float | None:
    """The bound a wider range would have; None where it is a natural one."""
    low, high = float(span["low"]), float(span["high"])
    name = key.rpartition(".")[2]
    least, most = LIMITS.get(name, (0.0 if low >= 0 else -math.inf, math.inf))
    if upper:
        return None if high >= most else min(most, high * 10 if span["log"] else 2 * high - low)
    return None if low <= least else max(least, low / 10 if span["log"] else 2 * low - high)


def _lower_rate(evidence: Evidence, arm: str) -> str:
    key = "optimizer.lr"
    spans = {a: [s for *_, k, s in ranges(d) if k == key] for a, d in evidence.definitions.items()}
    if not spans.get(arm):
        return ""
    high = max(span["high"] for span in spans[arm])
    best = [float(x) for x in evidence.arms.get(key, pd.Series(dtype=float)) if pd.notna(x)]
    wanted = max([high / 10, *(3 * x for x in best)])
    every = [span["high"] for found in spans.values() for span in found]
    fits = wanted < high and wanted <= min(every)
    return f"search_space.{key}.high={wanted:.3g} {_renamed(evidence)}" if fits else ""


def _mean_curve(evidence: Evidence, arm: str) -> pd.DataFrame:
    figures = ["val_accuracy", "val_loss", "train_loss"]
    curves = final_curves(evidence, "complete")
    return curves[curves["arm"] == arm].groupby("epoch")[figures].mean().dropna()


def _rising(evidence: Evidence, arm: str) -> bool:
    curve = _mean_curve(evidence, arm)["val_accuracy"]
    back = max(1, round(LAST_FIFTH * len(curve)))
    if len(curve) < 2 or curve.argmax() < len(curve) - 1:
        return False
    return bool(curve.iloc[-1] - curve.iloc[-1 - back] > _spread(evidence, arm))


def _epochs(evidence: Evidence, epochs: int) -> str:
    # Arms of different length set it themselves; the command line then isn't allowed to.
    lengths = {definition.get("trainer.epochs") for definition in evidence.definitions.values()}
    return f"trainer.epochs={epochs} {_renamed(evidence)}" if len(lengths) == 1 else ""


def _alike(evidence: Evidence, one: str, other: str) -> bool:
    """Whether two arms differ in nothing but their optimizer."""
    own = ("optimizer.", "search_space.optimizer.", "study.search.optimizer")
    rest = [
        {k: v for k, v in evidence.definitions.get(arm, {}).items() if not k.startswith(own)}
        for arm in (one, other)
    ]
    return bool(rest[0]) and rest[0] == rest[1]


def _half_width(arm: Mapping[Hashable, Any]) -> float:
    return (_figure(arm, "test_accuracy_high") - _figure(arm, "test_accuracy_low")) / 2


def _figure(arm: Mapping[Hashable, Any], key: str) -> float:
    return math.nan if pd.isna(arm[key]) else float(arm[key])


def _policy(recipe: Mapping[str, Any]) -> str:
    """A sampler or pruner and its settings; how many epochs there are is no policy."""
    settings = recipe.get("build", recipe.get("design", {}))
    shown = [f"{k}={v}" for k, v in settings.items() if k[0] != "_" and k != "max_resource"]
    return f"{recipe.get('name')}({', '.join(shown)})" if shown else str(recipe.get("name"))


def _renamed(evidence: Evidence) -> str:
    """`study.name=` of the next free-looking name: digits → digits-2 → digits-3."""
    stem, number = re.fullmatch(r"(.*?)(?:-(\d+))?", evidence.study).groups()  # type: ignore[union-attr]
    return f"study.name={stem}-{int(number or 1) + 1}"
