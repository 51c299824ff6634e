"""Where a study's search shouldn't be trusted, and the override that would settle it.

Rules over `Evidence`, in the order of `diagnose`. Each fires in at most one of twenty healthy
searches; docs/method.md shows how often, and how often in sick ones. What they look at is in
`symptoms`, `edges`, `rising` and `fairness`. Reads and judges only: no Optuna, no MLflow.
"""

import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.words import count
from studies.analysis import edges, fairness, rising, symptoms
from studies.analysis.evidence import Evidence
from studies.analysis.frames import sampler
from studies.analysis.searches import searches_needed
from studies.analysis.statistics import ALPHA
from studies.analysis.symptoms import ONE_POINT, SETTLE, TOLERANCE, renamed

ENOUGH = 5  # trials from which on a search can stop short
TIES = 4  # final runs from which on their spread is known well enough to call trials tied
DIVERGES = 0.1  # of a healthy space: its outermost learning rates
DIVERGED = 0.25  # of an arm's trials: as much is lost as a smaller budget would cost
OVERFIT = 0.05  # relative rise of validation loss from its minimum
UNEVEN = 2.5  # times as many epochs trained in one arm as in another of as many trials


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
    rules = [missing, cut, unequal, widths, trained, failures, chance, boundary, budget]
    rules += [ties, diverged, unsteady, length, overfitting, inclusion]
    findings = [finding for rule in rules for finding in rule(evidence)]
    if evidence.rounds:  # which settles already: its answer says what is open, and at which limit
        findings = [replace(f, override=f.override.replace(SETTLE, "")) for f in findings]
    order = [None, *symptoms.arms(evidence)]
    return sorted(findings, key=lambda finding: order.index(finding.arm))


def missing(evidence: Evidence) -> Iterator[Finding]:
    """The journal, an arm's trials or its final runs aren't there, or not all of them."""
    if not evidence.definitions:
        yield Finding(None, "missing", fairness.without_journal(evidence), "")
    for arm in symptoms.arms(evidence):
        if lack := fairness.lack(evidence, arm):
            yield Finding(arm, "missing", *lack)


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
        had_of = {arm: fairness.setting(evidence, arm, key) for arm in defined}
        yield from _differ(name, had_of, question)
    for name in ("sampler", "pruner"):
        policies = {arm: fairness.policy(d.get(name, {})) for arm, d in defined.items()}
        yield from _differ(name, policies)


def _differ(
    name: str, values: Mapping[str, Hashable], remark: str = "", override: str = ""
) -> Iterator[Finding]:
    if len(set(values.values())) > 1:
        listed = "; ".join(f"{arm} {value}" for arm, value in values.items())
        yield Finding(None, "unequal", f"The arms differ in {name}: {listed}{remark}.", override)


def widths(evidence: Evidence) -> Iterator[Finding]:
    """The arms' ranges of a hyperparameter differ in width, which makes searches unequally hard.

    Ranges that only lie elsewhere, where an arm's natural scale does, don't.
    """
    for key, had in fairness.widths(evidence).items():
        if len(set(had.values())) > 1:
            listed = "; ".join(f"{arm} {width}" for arm, width in had.items())
            text = f"The arms differ in the width of {key}'s range, so that as many trials search "
            yield Finding(None, "widths", f"{text}the wider more thinly: {listed}.", SETTLE)


def trained(evidence: Evidence) -> Iterator[Finding]:
    """An arm's trials were trained for over 2.5 times the epochs of another's as many.

    A pruner spends unevenly by chance: successive halving on arms that are alike, 8 to 40 trials,
    gives a ratio beyond 2.2 in 5 %. Not where arms differ in trials or in epochs (`unequal`), nor
    where runs end at a target.
    """
    had = fairness.trained(evidence)
    spent = [epochs for _, epochs in had.values()]
    if had and max(spent) > UNEVEN * min(spent):
        each = [f"{arm} {count(n, 'trial')}, {epochs} epochs" for arm, (n, epochs) in had.items()]
        text = f"As many trials were trained for unequally many epochs: {'; '.join(each)}."
        override = f"pruner=none {renamed(evidence)}" if fairness.pruned(evidence) else SETTLE
        yield Finding(None, "trained", text, override)


def failures(evidence: Evidence) -> Iterator[Finding]:
    """Arms differ in how many final runs failed: diverged, or learnt no more than guessing.

    By Fisher's exact test at 5 %. Then a difference of means is one of two kinds of run, and the
    share that fails is a result of its own.
    """
    lost = {arm: symptoms.failed(evidence, arm) for arm in symptoms.arms(evidence)}
    if (p := symptoms.failures_apart(lost)) < ALPHA:
        counts = "; ".join(f"{a} {int(own.sum())} of {len(own)}" for a, own in lost.items())
        runs = "Searches with final runs" if evidence.replicated else "Final runs"
        text = f"{runs} that diverged or learnt no more than guessing: {counts} (p = {p:.2g}); "
        text += "a mean over both kinds of run describes neither."
        yield Finding(None, "failures", text, _twice(evidence, "finals"))


def unsteady(evidence: Evidence) -> Iterator[Finding]:
    """A final run ended below half of what others of the same configuration reach."""
    for arm in symptoms.arms(evidence):
        if text := symptoms.unsteady(evidence, arm):
            yield Finding(arm, "unsteady", text, SETTLE)


def chance(evidence: Evidence) -> Iterator[Finding]:
    """An arm's best trial is no better than guessing gets by luck (`symptoms.luck`)."""
    for arm, best in evidence.best.items():
        guessing, luck = symptoms.luck(evidence, symptoms.epochs(symptoms.trials(evidence, arm)))
        if best["val_accuracy"] <= luck:
            text = f"The best trial reaches {100 * best['val_accuracy']:.1f} % validation accuracy"
            text += f", guessing {100 * guessing:.1f} %: nothing is learnt in this range."
            yield Finding(arm, "chance", text, SETTLE)


def boundary(evidence: Evidence) -> Iterator[Finding]:
    """The best trials crowd at an end of a range, and the best lies in its outer tenth.

    How far the four best trials lie from an end, summed, has a known distribution where the
    hyperparameter doesn't matter; it fires below 5 %, divided by the number of ranges. Of several
    searches the best two or the best one each, whose median lies in the outer tenth: that
    independent searches agree says more. TPE gathers near whatever was good, so its crowds must be
    100 times rarer (simulated). The best trial alone in an outer tenth would fire in 20 % of
    irrelevant ranges. Asks for a decade more (log) or twice the width. An override sets a range
    in every arm and for every choice, so it reaches as far as any of them needs and narrows none.
    """
    found = [(arm, edge) for arm in evidence.definitions for edge in edges.edges(evidence, arm)]
    for arm, edge in found:
        end, text = "high" if edge.upper else "low", edge.text
        bound = edges.furthest(evidence, [each for _, each in found if each.end == edge.end])
        if bound != edge.wider:
            text += f"; in this arm alone (study.arms.{arm}) {end}={edge.wider:.6g} would do"
        override = f"search_space.{edge.key}.{end}={bound:.6g} {renamed(evidence)}"
        yield Finding(arm, "boundary", f"{text}.", override)


def budget(evidence: Evidence) -> Iterator[Finding]:
    """Too few trials: the best of a search stands alone, none other within two tolerances of it.

    Where a share s of the space lies within two tolerances of its best, ln 0.05/ln(1 − s) trials
    find it with 95 %. With no fewer trials than that a best one stands alone in at most 5 % of
    searches, so one that does asks for what its own share, 1 of n, needs. Of several searches more
    must than 5 % of them would by chance. A late best is no sign: any trial is as likely to be it.
    Not for a grid, whose points are chosen, nor where runs end at a target. From 5 trials on.
    """
    for arm in symptoms.arms(evidence):
        n, searches = len(symptoms.trials(evidence, arm)), symptoms.searches(evidence, arm)
        few = n < max(ENOUGH * searches, evidence.asked(arm, "trials"))
        if few or sampler(evidence, arm) == "grid" or symptoms.aimed(evidence, arm):
            continue
        alone = symptoms.alone(evidence, arm)
        if symptoms.unlikely(alone.searches, alone.of, ALPHA):
            each = n // searches
            needed = math.ceil(math.log(ALPHA) / math.log1p(-1 / each))
            best = f"the best of {each} trials stands alone, none other within "
            text = f"in {alone.searches} of {alone.of} searches {best}" if searches > 1 else best
            text = f"{text[0].upper()}{text[1:]}{100 * alone.window:.2f} points of it: to meet "
            text += f"so small a share of the space with 95 % takes {needed} trials"
            yield Finding(arm, "budget", f"{text}.", f"study.trials={needed}")


def ties(evidence: Evidence) -> Iterator[Finding]:
    """Several trials are as good as the best within the seeds' noise, and that noise matters.

    Two standard deviations of at least 4 final runs, where one is above two tolerances (a point;
    ordinary seeds spread by 0.3 to 0.6): which of the tied trials was retrained is luck then. With
    several searches that luck is in the interval.
    """
    for arm in symptoms.arms(evidence):
        noise, (close, n) = symptoms.spread(evidence, arm), symptoms.tied(evidence, arm)
        known = symptoms.finals(evidence, arm)["val_accuracy"].notna().sum() >= TIES
        if known and symptoms.searches(evidence, arm) == 1 and noise > ONE_POINT and close > 1:
            text = f"{close} of {count(n, 'complete trial')} are within the seeds' noise of the "
            text += f"best (standard deviation {100 * noise:.2f} points): which was retrained is "
            needed = searches_needed(max(1, len(evidence.contrasts)))
            yield Finding(arm, "ties", f"{text}luck.", f"study.searches={needed}")


def diverged(evidence: Evidence) -> Iterator[Finding]:
    """Over a quarter of an arm's ended trials diverged, or any of its final runs.

    And more trials than a healthy space, a tenth of which diverges, would give in 5 %. Asks for a
    decade less of learning rate, where that leaves every arm's best a factor of three and raises no
    arm's range.
    """
    for arm in symptoms.arms(evidence):
        trials = symptoms.trials(evidence, arm)
        lost = int((trials["outcome"] == "diverged").sum())
        if lost > DIVERGED * len(trials) and symptoms.unlikely(lost, len(trials), DIVERGES):
            lower = edges.lower_rate(evidence, arm) or SETTLE
            text = f"{lost} of {count(len(trials), 'trial')} diverged."
            yield Finding(arm, "diverged", text, lower)
        finals = symptoms.finals(evidence, arm)
        if lost := int((finals["outcome"] == "diverged").sum()):
            text = f"{lost} of {len(finals)} final runs diverged: the mean covers the others only."
            yield Finding(arm, "diverged", text, _twice(evidence, "finals"))


def length(evidence: Evidence) -> Iterator[Finding]:
    """Twice the epochs would add more than the tolerance, half a point, to an arm's final runs.

    By what their curves say beside the learning rate's decay (`rising.doubling`), with 95 %. That
    accuracy rises to the end is no sign: under a decaying learning rate it always does. Not where
    runs end at a target.
    """
    for arm in symptoms.arms(evidence):
        more = rising.doubling(evidence, arm)
        if symptoms.aimed(evidence, arm) or more.value is None or (more.low or 0) <= TOLERANCE:
            continue
        n = len(rising.mean_curve(evidence, arm))
        text = f"By the curves of {n} epochs, twice as many would add {100 * more.value:.2f} points"
        text += f" of validation accuracy, at least {100 * (more.low or 0):.2f}."
        yield Finding(arm, "length", text, rising.of_length(evidence, 2 * n) or SETTLE)


def overfitting(evidence: Evidence) -> Iterator[Finding]:
    """Mean validation loss ends over 5 % above its minimum while training loss fell from there.

    Both are means over a fifth of the epochs: single ones fire by their noise. Not where longer
    runs would gain (`length`). Asks for the epochs up to the best accuracy.
    """
    for arm in symptoms.arms(evidence):
        curve = rising.mean_curve(evidence, arm)
        more = rising.doubling(evidence, arm)
        if (found := rising.turned(curve)) is None or (more.low or 0) > TOLERANCE:
            continue
        (at, lowest, last), n = found, len(curve)
        falls = curve["train_loss"].iloc[-1] < curve["train_loss"].iloc[at]
        if last > (1 + OVERFIT) * lowest and falls:
            enough = max(at, int(curve["val_accuracy"].argmax())) + 1
            text = f"Validation loss rose from {lowest:.3g} at epoch {at + 1} to "
            text += f"{last:.3g} at epoch {n} while training loss fell."
            shorter = rising.of_length(evidence, enough) if enough < n else ""
            yield Finding(arm, "overfitting", text, shorter)


def inclusion(evidence: Evidence) -> Iterator[Finding]:
    """A general optimizer's arm is shown to be worse than one that it contains.

    Of arms that differ in nothing else, by the study's own verdict, and where what was searched
    contains the special case's best trial (`fairness.includes`).
    """
    for (special, general), below in fairness.shown(evidence).items():
        names = fairness.includes(evidence, general, special)
        if names and fairness.alike(evidence, general, special):
            text = f"{names[0]} includes {names[1]} as it was searched, yet is {100 * below:.2f} "
            text += f"points of test accuracy below {special}: under-tuned."
            yield Finding(general, "inclusion", text, _twice(evidence, "trials"))


def _twice(evidence: Evidence, what: Literal["trials", "finals"]) -> str:
    most = max((budget[what] for budget in evidence.budgets.values()), default=0)
    return f"study.{what}={2 * most}" if most else SETTLE
