"""A study's report: the answer in one sentence, and the page that backs it.

Formats what `Evidence` and the frames of `studies.curves` hold and computes no statistics: every
figure is a stored one, rounded. A missing figure is empty and says why.
"""

import base64
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from matplotlib.figure import Figure

from pipeline.config import Config, UserError
from pipeline.results import Outcome
from studies import curves, plots, storage, tables
from studies.diagnosis import Finding, unequal
from studies.evidence import Evidence
from studies.statistics import seeds_needed

TEMPLATES = Path(__file__).parent / "templates"
POLICIES = {
    "trainer.epochs": "epochs",
    "trainer.batch_size": "batch size",
    "sampler": "sampler",
    "pruner": "pruner",
}


def write(
    evidence: Evidence, findings: Sequence[Finding], config: Config, folder: Path
) -> list[Path]:
    """Write report.html, report.md and the plots as PNG files beside them; returns the files.

    Raises UserError where the folder can't be written.
    """
    drawn = draw(evidence, config)
    texts = render(page(evidence, findings, drawn, best_overrides(evidence, config)))
    pictures = {p.file: plots.png(p.figure) for p in drawn if p.figure is not None}
    files = pictures | {name: text.encode() for name, text in texts.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise UserError(f"out={folder}: can't be written: {error}") from error
    return [folder / name for name in files]


def render(shown: Mapping[str, Any]) -> dict[str, str]:
    """The text of report.html and report.md, by name; `shown` is `page`'s."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["md"] = _markdown
    names = ("report.html", "report.md")
    return {name: environment.get_template(f"{name}.j2").render(shown) for name in names}


# The answer


def answer(evidence: Evidence) -> str:
    """The study's answer in one sentence, every figure of it from the tables.

    Says so where nothing is shown, where seeds are too few, where budgets differ, and what to run
    where final runs are missing.
    """
    arms = evidence.arms
    measured = arms[arms["test_accuracy_mean"].notna()]
    ranked = measured.sort_values("test_accuracy_mean", ascending=False, kind="stable")
    names = list(ranked["arm"])
    if not names:
        return _unanswered(evidence)
    if len(names) == 1:
        said = f"{names[0]} reaches {_reached(ranked.iloc[0])}"
    elif len(names) == 2:
        said = _two(evidence, *names)
    else:
        said = _several(evidence, ranked)
    if len(names) > 1 and any(unequal(evidence)):
        said += "; the arms' budgets differ (see the warnings)"
    if missing := [arm for arm in arms["arm"] if arm not in names]:
        said += f"; {_join(missing)} {'has' if len(missing) == 1 else 'have'} no final run yet"
    return said + "."


@dataclass(frozen=True)
class Pair:
    """One row of the comparisons, turned so that `a` is the arm asked about first."""

    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    seeds: int
    verdict: str
    pairs: int

    @property
    def points(self) -> str:
        """`14.2 points`."""
        return f"{_points(abs(self.difference))} points"

    @property
    def detail(self) -> str:
        """`95 % interval 13.8 to 14.6, p = 0.002, 10 paired seeds`, as far as there is.

        Of several pairs the seeds are the arms' own, said once."""
        found = []
        if pd.notna(self.low):
            found.append(f"95 % interval {_points(self.low)} to {_points(self.high)}")
        if pd.notna(self.p):
            found.append(f"{'' if self.pairs == 1 else 'Holm-corrected '}{_p(self.p)}")
        if self.pairs == 1:
            found.append(_count(self.seeds, "paired seed"))
        return ", ".join(found)

    @property
    def too_few(self) -> str:
        """How many seeds there are and how many it takes."""
        over = "" if self.pairs == 1 else f" over {self.pairs} pairs"
        needed = seeds_needed(self.pairs)
        return f"too few seeds: {self.seeds}, at least {needed} are needed to reach p < 0.05{over}"


def pair(evidence: Evidence, a: str, b: str) -> Pair | None:
    """The comparison of two arms, whichever way round it is stored; None where there is none."""
    rows = evidence.comparisons
    for _, row in rows.iterrows():
        if {row["arm_a"], row["arm_b"]} != {a, b} or pd.isna(row["difference"]):
            continue
        difference, low, high, p = (
            math.nan if pd.isna(row[name]) else float(row[name])
            for name in ("difference", "low", "high", "p_holm")
        )
        verdict = str(row["verdict"])
        if row["arm_a"] != a:
            difference, low, high = -difference, -high, -low
            verdict = {"better": "worse", "worse": "better"}.get(verdict, verdict)
        pairs = max(1, int(rows["p_value"].notna().sum()))
        return Pair(a, b, difference, low, high, p, int(row["seeds"]), verdict, pairs)
    return None


def _two(evidence: Evidence, a: str, b: str) -> str:
    found = pair(evidence, a, b)
    if found is not None and found.difference < 0:  # seeds of one arm only count in its mean
        found = pair(evidence, b, a)
    if found is None:
        reached = [_reached(_arm(evidence, arm)) for arm in (a, b)]
        return f"{a} reaches {reached[0]}, {b} {reached[1]}; they share no final seed to compare on"
    by = f"{found.points} of test accuracy ({found.detail})"
    ahead = f"{found.a} is ahead of {found.b} by {by}"
    if found.verdict == "better":
        return f"{found.a} is better than {found.b} by {by}"
    if found.verdict == "too few seeds":
        return f"{_capital(found.too_few)}; {ahead}"
    if abs(found.difference) < 0.0005:
        ahead = f"they differ by less than 0.1 points of test accuracy ({found.detail})"
    return f"No difference between {found.a} and {found.b} is shown: {ahead}"


def _several(evidence: Evidence, ranked: pd.DataFrame) -> str:
    best, runner_up, worst = (ranked["arm"].iloc[i] for i in (0, 1, -1))
    said = f"{best} reaches the highest test accuracy, {_reached(ranked.iloc[0], unit=False)}"
    against = {f"the runner-up {runner_up}": runner_up, f"the lowest, {worst},": worst}
    found = {words: pair(evidence, best, other) for words, other in against.items()}
    shown = {words: p for words, p in found.items() if p is not None}
    few = [p for p in shown.values() if p.verdict == "too few seeds"]
    if few:
        said += f"; {few[0].too_few}"
    parts = []
    for words, p in found.items():
        if p is None:
            parts.append(f"it shares no final seed with {words.rstrip(',')}")
        elif p.verdict in ("better", "worse"):
            parts.append(f"it is {p.verdict} than {words} by {p.points} ({p.detail})")
        elif p.verdict == "too few seeds":
            where = "ahead of" if p.difference >= 0 else "behind"
            parts.append(f"it is {where} {words} by {p.points} ({p.detail})")
        else:
            parts.append(f"no difference from {words} is shown ({p.points}, {p.detail})")
    return f"{said}; {' and '.join(parts)}"


def _unanswered(evidence: Evidence) -> str:
    arms = evidence.arms
    without = [arm["arm"] for _, arm in arms.iterrows() if not arm["complete"]]
    budget = sum(b["trials"] for b in evidence.budgets.values())
    ended = int(arms[[outcome.value for outcome in Outcome]].to_numpy().sum())
    trials = (
        f"{ended} of {budget} trials have ended" if budget else f"{_count(ended, 'trial')} ended"
    )
    said = f"No answer yet: no final run has a test accuracy, {trials}"
    if without:
        said += f", none of {_join(without)} is complete"
    return f"{said}; to go on: {resume(evidence)}."


def resume(evidence: Evidence) -> str:
    """The command that goes on with the study."""
    return evidence.command or f"optstudy run study={evidence.study}"


# The page


@dataclass(frozen=True)
class Plot:
    """A figure of the page; `reason` says why there is none."""

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure | None
    reason: str = ""

    @property
    def file(self) -> str:
        """The PNG file it is also written to."""
        return f"{self.name}.png"

    @property
    def uri(self) -> str:
        """The figure as a data URI."""
        assert self.figure is not None
        return "data:image/svg+xml;base64," + base64.b64encode(plots.svg(self.figure)).decode()


@dataclass(frozen=True)
class Cell:
    """One figure of a table; without text, `reason` says why."""

    text: str
    reason: str = ""
    colour: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the page; without rows, `reason` says why.

    The first `lead` columns name what a row is about: a phone shows them as its heading.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    reason: str = ""
    lead: int = 1


def page(
    evidence: Evidence,
    findings: Sequence[Finding],
    drawn: Sequence[Plot],
    overrides: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Everything the templates show, by name."""
    fallback = evidence.provenance.get("data.fallback", "")
    known = evidence.question
    return {
        "study": evidence.study,
        "question": known or f"Study {evidence.study} (its question isn't recorded)",
        "answer": answer(evidence),
        "banner": f"Not the data set asked for: {fallback}." if fallback else "",
        "facts": _facts(evidence),
        "comparisons": comparison_table(evidence),
        "findings": findings,
        "resume": resume(evidence),
        "plots": drawn,
        "arms": arms_table(evidence),
        "configurations": _configurations(evidence, overrides),
        "provenance": provenance(evidence),
        "colours": {arm: style.colour for arm, style in _styles(evidence).items()},
    }


def comparison_table(evidence: Evidence) -> Table:
    """The comparisons as they are stored, differences in points."""
    headers = ["Arm A", "Verdict", "Arm B", "A − B, points", "p", "p (Holm)", "P(A > B)", "Seeds"]
    look = _styles(evidence)
    rows = []
    for _, row in evidence.comparisons.iterrows():
        verdict = str(row["verdict"])
        none = "no shared seed"
        rows.append(
            [
                Cell(row["arm_a"], colour=look[row["arm_a"]].colour),
                Cell(f"{verdict} than" if verdict in ("better", "worse") else verdict),
                Cell(row["arm_b"], colour=look[row["arm_b"]].colour),
                Cell(_between(row, "difference", "low", "high", 100, 2), none),
                Cell(_text(row["p_value"], ".3g"), none),
                Cell(_text(row["p_holm"], ".3g"), none),
                Cell(_between(row, "p_better", "p_better_low", "p_better_high", 1, 2), none),
                Cell(str(int(row["seeds"]))),
            ]
        )
    measured = int(evidence.arms["test_accuracy_mean"].notna().sum())
    if len(evidence.arms) < 2:
        reason = "The study has one arm: there is nothing to compare it with."
    elif measured < 2:
        has = f"{measured} of {len(evidence.arms)} arms"
        reason = f"{has} have final runs with a test accuracy; a comparison needs two."
    else:
        reason = "The arms haven't been compared."
    return Table(headers, rows, reason, lead=3)


def arms_table(evidence: Evidence) -> Table:
    """One row per arm; accuracies in percent."""
    headers = [
        "Arm",
        "Test accuracy, %",
        "Best validation, %",
        "Final runs",
        "Trials",
        "Learning-rate width, decades",
        "Time",
    ]
    look, forgiving = _styles(evidence), curves.tolerance(evidence).set_index("arm")
    rows = []
    for _, arm in evidence.arms.iterrows():
        name = arm["arm"]
        ended = {o.value: int(arm[o.value]) for o in Outcome if arm[o.value]}
        wide = (
            [_text(width, ".1f") for width in forgiving.loc[name]]
            if name in forgiving.index
            else []
        )
        rows.append(
            [
                Cell(name, colour=look[name].colour),
                Cell(
                    _between(arm, "test_accuracy_mean", "test_accuracy_low", "test_accuracy_high"),
                    "no final run",
                ),
                Cell(_text(arm["val_accuracy"], ".2f", 100), "no complete trial"),
                Cell(_of(arm["finals"], evidence.budgets.get(name, {}).get("finals"))),
                Cell(
                    ", ".join(f"{count} {outcome}" for outcome, count in ended.items()),
                    "none ended",
                ),
                Cell(" / ".join(wide) if all(wide) else "", "no learning rate searched"),
                Cell(_duration(arm["seconds"])),
            ]
        )
    return Table(headers, rows, "No arm has run.")


def best_overrides(evidence: Evidence, config: Config) -> dict[str, list[str]]:
    """The stored override list of every arm's best trial; without arms whose journal is gone."""
    if evidence.study not in storage.existing(config):
        return {}
    kept = storage.reading(config, evidence.study)
    found: dict[str, list[str]] = {}
    for arm, runs in evidence.trials.groupby("arm", sort=False):
        best = tables.best_row(runs)
        if best is None or arm not in evidence.definitions:
            continue
        study = optuna.load_study(study_name=f"{evidence.study}/{arm}", storage=kept)
        trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
        if best["trial"] in trials:
            found[str(arm)] = list(trials[best["trial"]].user_attrs["overrides"])
    return found


def _configurations(
    evidence: Evidence, overrides: Mapping[str, Sequence[str]]
) -> list[dict[str, str]]:
    shown = []
    for _, arm in evidence.arms.iterrows():
        name = arm["arm"]
        if pd.isna(arm["val_accuracy"]):
            reason = "No trial of it is complete."
        else:
            reason = "Its override list isn't stored: the study's journal is gone."
        given = overrides.get(name)
        command = shlex.join(["optstudy", "train", *given]) if given else ""
        shown.append({"arm": name, "command": command, "reason": reason})
    return shown


def provenance(evidence: Evidence) -> list[tuple[str, str, str]]:
    """(what, value, reason where the value is empty), in the order of the page."""
    stored = evidence.provenance
    commit = stored.get("git.commit", "")
    if stored.get("git.dirty") == "true":
        commit += ", with uncommitted changes"
    data = stored.get("data.name", "")
    if "data.fingerprint" in stored:
        data += f", fingerprint {stored['data.fingerprint']}"
    prefix = "version."
    versions = [f"{k[len(prefix) :]} {v}" for k, v in stored.items() if k.startswith(prefix)]
    finals = evidence.trials[evidence.trials["test_accuracy"].notna()]
    used = finals.groupby("arm", sort=False).size()
    if "test_evaluations" in finals:
        used = finals.groupby("arm", sort=False)["test_evaluations"].sum()
    tested = {arm: f"{int(used.get(arm, 0))} times" for arm in evidence.arms["arm"]}
    spent = _duration(evidence.arms["seconds"].sum())
    return [
        ("Command", evidence.command, "not recorded"),
        ("Code", commit and f"commit {commit}", "no git commit recorded"),
        ("Data set", data, "not recorded"),
        ("Versions", ", ".join(versions), "not recorded"),
        ("Machine", stored.get("machine", ""), "not recorded"),
        *((f"Budget: {k}", v, "the study's journal is gone") for k, v in _budget(evidence).items()),
        ("Training time", f"{spent}, summed over {len(evidence.trials)} runs", ""),
        ("Test set evaluated", _per_arm(tested), "never"),
    ]


def _budget(evidence: Evidence) -> dict[str, str]:
    arms = list(evidence.arms["arm"])
    figures = {
        "trials per arm": {a: str(evidence.budgets.get(a, {}).get("trials", "")) for a in arms},
        "final runs per arm": {a: str(evidence.budgets.get(a, {}).get("finals", "")) for a in arms},
    }
    for key, name in POLICIES.items():
        values = {arm: evidence.definitions.get(arm, {}).get(key, "") for arm in arms}
        figures[name] = {
            arm: str(value["name"] if isinstance(value, Mapping) else value)
            for arm, value in values.items()
        }
    return {name: _per_arm(values) for name, values in figures.items()}


def _per_arm(values: Mapping[str, str]) -> str:
    """`2`, or where arms differ `2 (minibatch, batch_equal_epochs), 704 (batch_equal_steps)`."""
    arms: dict[str, list[str]] = {}
    for arm, value in values.items():
        arms.setdefault(value, []).append(arm)
    if len(arms) == 1:
        return next(iter(arms))
    return ", ".join(f"{value or 'unknown'} ({', '.join(names)})" for value, names in arms.items())


def _facts(evidence: Evidence) -> list[str]:
    budget = _budget(evidence)
    labels = {"trials per arm": "trials each", "epochs": "epochs"}
    equal = [f"{budget[k]} {label}" for k, label in labels.items() if budget[k].isdigit()]
    seeds = int(evidence.arms["finals"].max())
    return [
        _count(len(evidence.arms), "arm"),
        *equal,
        _count(seeds, "final seed"),
        evidence.provenance.get("data.name", "data set not recorded"),
        f"{_duration(evidence.arms['seconds'].sum())} of training",
    ]


def draw(evidence: Evidence, config: Config) -> list[Plot]:
    """Every figure of the page, in its order."""
    look, finals = _styles(evidence), tables.counting_finals(evidence.trials)
    measured = finals[finals["test_accuracy"].notna()]
    drawn = [
        Plot(
            "test_accuracy",
            "Test accuracy of every final seed",
            "A dot per seed; below it the mean and its 95 % interval.",
            "Test accuracy per arm: " + _named(evidence.arms, "test_accuracy_mean"),
            plots.test_accuracy(measured, evidence.arms, look) if len(measured) else None,
            "No final run has a test accuracy.",
        )
    ]
    losses = {str(d.get("trainer.loss")) for d in evidence.definitions.values()}
    units = {"log": " (nats)", "mse": " (squared error)"}
    unit = units.get(losses.pop(), "") if len(losses) == 1 else ""
    panels = [
        ("epoch", "val_accuracy", "Learning, by epoch", "validation accuracy (%)"),
        ("step", "val_accuracy", "Learning, by weight update", "validation accuracy (%)"),
        ("seconds", "val_accuracy", "Learning, by training time", "validation accuracy (%)"),
        ("epoch", "train_loss", "Training loss, by epoch", f"training loss{unit}"),
    ]
    for x, metric, title, label in panels:
        frame = curves.learning(evidence, x)  # type: ignore[arg-type]
        last = (
            frame[frame["metric"] == metric].sort_values("epoch").groupby("arm", sort=False).tail(1)
        )
        percent = metric == "val_accuracy"
        drawn.append(
            Plot(
                f"{metric}_by_{x}",
                title,
                "Mean over the final seeds, with its 95 % band.",
                f"{label} against {plots.AXES[x]}; at the end: {_named(last, 'mean', percent)}",
                plots.learning(frame, look, x, metric, label) if len(frame) else None,
                "No final run has logged an epoch.",
            )
        )
    rates = curves.learning_rates(evidence)
    progress = curves.search_progress(evidence)
    expected = set(progress["kind"]) == {curves.EXPECTED}
    shares = curves.importance(evidence, config)
    reasons = shares[shares["importance"].isna()]
    without = "; ".join(f"{row.arm}: {row.reason}" for row in reasons.itertuples())
    return [
        *drawn,
        Plot(
            "learning_rates",
            "Accuracy against learning rate",
            "Every trial of the search; a wide top forgives a badly chosen learning rate.",
            f"Validation accuracy against learning rate, {_count(len(rates), 'trial')}",
            plots.learning_rates(rates, look) if len(rates) else None,
            "No arm has searched a learning rate.",
        ),
        Plot(
            "search_progress",
            "What more trials bought",
            "Expected best of so many independent trials, with its 95 % band."
            if expected
            else "Best validation accuracy of the search so far; one search, so it has no band.",
            "Best validation accuracy against the number of trials; at the end: "
            + _named(progress.groupby("arm", sort=False).tail(1), "value"),
            plots.search_progress(progress, look) if len(progress) else None,
            "No trial is complete.",
        ),
        Plot(
            "importance",
            "Which hyperparameters mattered",
            f"PED-ANOVA over complete trials. {f'Empty for {without}.' if without else ''}".strip(),
            "Importance of every searched hyperparameter per arm",
            plots.importance(shares, look) if len(reasons) < len(shares) else None,
            f"{without}." if without else "Nothing has been searched.",
        ),
    ]


def _styles(evidence: Evidence) -> dict[str, plots.Style]:
    return plots.styles(list(evidence.arms["arm"]))


# Words and figures


def _arm(evidence: Evidence, name: str) -> "pd.Series[Any]":
    return evidence.arms[evidence.arms["arm"] == name].iloc[0]


def _reached(arm: "pd.Series[Any]", unit: bool = True) -> str:
    """`51.2 % test accuracy (95 % interval 50.9 to 51.5, 10 seeds)`."""
    seeds = _count(int(arm["finals"]), "seed")
    if pd.notna(arm["test_accuracy_low"]):
        low, high = (_points(arm[f"test_accuracy_{end}"]) for end in ("low", "high"))
        seeds = f"95 % interval {low} to {high}, {seeds}"
    what = " test accuracy" if unit else ""
    return f"{_points(arm['test_accuracy_mean'])} %{what} ({seeds})"


def _points(share: float) -> str:
    return f"{100 * share + 0.0:.1f}".replace("-0.0", "0.0").replace("-", "−")


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def _text(value: Any, form: str, scale: float = 1) -> str:
    return "" if value is None or pd.isna(value) else f"{scale * value:{form}}".replace("-", "−")


def _between(
    row: "pd.Series[Any]", value: str, low: str, high: str, scale: float = 100, places: int = 2
) -> str:
    """`24.71 (23.90 to 25.52)`, or without the interval where there is none."""
    form = f".{places}f"
    middle, *ends = (_text(row[name], form, scale) for name in (value, low, high))
    return f"{middle} ({ends[0]} to {ends[1]})" if all(ends) else middle


def _named(rows: pd.DataFrame, value: str, percent: bool = True) -> str:
    known = rows[rows[value].notna()]
    form, scale, unit = (".1f", 100, " %") if percent else (".3g", 1, "")
    figures = [f"{r['arm']} {_text(r[value], form, scale)}{unit}" for _, r in known.iterrows()]
    return ", ".join(figures) or "none"


def _of(there: int, wanted: int | None) -> str:
    return str(there) if wanted is None or there == wanted else f"{there} of {wanted}"


def _duration(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    if hours:
        return f"{hours} h {m} min"
    return f"{m} min {s} s" if m else f"{s} s"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _join(names: Sequence[str] | Mapping[str, str]) -> str:
    *rest, last = names
    return f"{', '.join(rest)} and {last}" if rest else last


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _markdown(text: str) -> str:
    """Text that Markdown shows as it is, in a table too."""
    for mark in "\\`*_<>|[]":
        text = text.replace(mark, f"\\{mark}")
    return text
