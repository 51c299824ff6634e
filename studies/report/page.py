"""A study's report: the answer in one sentence, and the page that backs it.

Formats what `Evidence` and the frames of `studies.curves` hold and computes no statistics: every
figure is a stored one, rounded. A missing figure is empty and says why.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.results import Outcome
from studies.analysis import frames, tables, targets
from studies.analysis.diagnosis import Finding
from studies.analysis.evidence import Evidence
from studies.report import drawing, words
from studies.report.answer import answer, resume
from studies.report.plots import Plot, draw, styles
from studies.search import journal

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
    pictures = {p.file: drawing.png(p.figure) for p in drawn if p.figure is not None}
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
    environment.filters["md"] = words.markdown
    names = ("report.html", "report.md")
    return {name: environment.get_template(f"{name}.j2").render(shown) for name in names}


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
        "targets": target_table(evidence),
        "comparisons": comparison_table(evidence),
        "findings": findings,
        "resume": resume(evidence),
        "plots": drawn,
        "arms": arms_table(evidence),
        "configurations": _configurations(evidence, overrides),
        "provenance": provenance(evidence),
        "colours": {arm: style.colour for arm, style in styles(evidence).items()},
    }


def target_table(evidence: Evidence) -> Table:
    """What the target took, an arm a row; without rows where the study has none."""
    headers = ["Arm", "Steps", "Epochs", "Training, s", "Best learning rate", "Reached"]
    look, rows = styles(evidence), []
    for _, arm in targets.table(evidence).iterrows():
        lr = "" if pd.isna(arm["lr"]) else words.significant(arm["lr"], 2)
        rows.append(
            [
                Cell(arm["arm"], colour=look[arm["arm"]].colour),
                *(Cell(_measured(arm, cost), "never reached") for cost in targets.COSTS),
                Cell(lr, "not searched"),
                Cell(f"{arm['reached']} of {arm['finals']}"),
            ]
        )
    return Table(headers, rows)


def _measured(arm: "pd.Series[Any]", cost: str) -> str:
    """`91.7 (89.0 to 94.4)`, or without the interval where there is none; empty if unmeasured."""
    if pd.isna(arm[cost]):
        return ""
    value, low, high = (words.significant(arm[f"{cost}{end}"]) for end in ("", "_low", "_high"))
    return value if pd.isna(arm[f"{cost}_low"]) else f"{value} ({low} to {high})"


def comparison_table(evidence: Evidence) -> Table:
    """The comparisons as they are stored, differences in points."""
    headers = ["Arm A", "Verdict", "Arm B", "A − B, points", "p", "p (Holm)", "P(A > B)", "Seeds"]
    look = styles(evidence)
    rows = []
    for _, row in evidence.comparisons.iterrows():
        verdict = str(row["verdict"])
        none = "no shared seed"
        rows.append(
            [
                Cell(row["arm_a"], colour=look[row["arm_a"]].colour),
                Cell(f"{verdict} than" if verdict in ("better", "worse") else verdict),
                Cell(row["arm_b"], colour=look[row["arm_b"]].colour),
                Cell(words.between(row, "difference", "low", "high", 100, 2), none),
                Cell(words.figure(row["p_value"], ".3g"), none),
                Cell(words.figure(row["p_holm"], ".3g"), none),
                Cell(words.between(row, "p_better", "p_better_low", "p_better_high", 1, 2), none),
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
    look, forgiving = styles(evidence), frames.tolerance(evidence).set_index("arm")
    rows = []
    for _, arm in evidence.arms.iterrows():
        name = arm["arm"]
        ended = {o.value: int(arm[o.value]) for o in Outcome if arm[o.value]}
        wide = (
            [words.figure(width, ".1f") for width in forgiving.loc[name]]
            if name in forgiving.index
            else []
        )
        rows.append(
            [
                Cell(name, colour=look[name].colour),
                Cell(
                    words.between(
                        arm, "test_accuracy_mean", "test_accuracy_low", "test_accuracy_high"
                    ),
                    "no final run",
                ),
                Cell(words.figure(arm["val_accuracy"], ".2f", 100), "no complete trial"),
                Cell(words.of(arm["finals"], evidence.budgets.get(name, {}).get("finals"))),
                Cell(
                    ", ".join(f"{count} {outcome}" for outcome, count in ended.items()),
                    "none ended",
                ),
                Cell(" / ".join(wide) if all(wide) else "", "no learning rate searched"),
                Cell(words.duration(arm["seconds"])),
            ]
        )
    return Table(headers, rows, "No arm has run.")


def best_overrides(evidence: Evidence, config: Config) -> dict[str, list[str]]:
    """The stored override list of every arm's best trial; without arms whose journal is gone."""
    if evidence.study not in journal.existing(config):
        return {}
    kept = journal.reading(config, evidence.study)
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
    used = evidence.test_evaluations
    tested = {arm: words.count(int(used.get(arm, 0)), "time") for arm in evidence.arms["arm"]}
    spent = words.duration(evidence.arms["seconds"].sum())
    return [
        ("Command", evidence.command, "not recorded"),
        ("Code", commit and f"commit {commit}", "no git commit recorded"),
        ("Data set", data, "not recorded"),
        ("Versions", ", ".join(versions), "not recorded"),
        ("Machine", stored.get("machine", ""), "not recorded"),
        *((f"Budget: {k}", v, "the study's journal is gone") for k, v in _budget(evidence).items()),
        ("Training time", f"{spent}, summed over {len(evidence.trials)} runs", ""),
        ("Test set evaluated, per arm", _per_arm(tested), ""),
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
        words.count(len(evidence.arms), "arm"),
        *equal,
        words.count(seeds, "final seed"),
        evidence.provenance.get("data.name", "data set not recorded"),
        f"{words.duration(evidence.arms['seconds'].sum())} of training",
    ]
