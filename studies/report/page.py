"""A study's page: the answer in one sentence, and all that backs it.

Formats what `Evidence` and the frames of studies.analysis hold and computes no statistics: every
figure is a stored one, rounded. A missing figure is empty and says why.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from pipeline.results import Outcome
from studies.analysis.diagnosis import Finding
from studies.analysis.evidence import Evidence
from studies.report import canvas, export, kinds, words
from studies.report.answer import answer
from studies.report.parts import Cell, Plot, Table
from studies.report.plots import draw

TEMPLATES = Path(__file__).parent / "templates"
# The parts of a budget, and where it keeps the first two and an arm's definition the others.
NUMBERS = {"trials per arm": "trials", "final runs per arm": "finals"}
SETTINGS = {"epochs": "trainer.epochs", "batch size": "trainer.batch_size"}
SETTINGS |= {"sampler": "sampler", "pruner": "pruner"}


def write(evidence: Evidence, findings: Sequence[Finding], folder: Path) -> list[Path]:
    """Write report.html, report.md and the plots as PNG files beside them; returns the files.

    Raises UserError where the folder can't be written.
    """
    plots = draw(evidence)
    texts = render(page(evidence, findings, plots))
    pictures = {p.file: canvas.png(p.figure) for p in plots if p.figure is not None}
    return export.write(folder, pictures | {name: text.encode() for name, text in texts.items()})


def render(parts: Mapping[str, Any]) -> dict[str, str]:
    """The text of report.html and report.md, by name; `parts` is `page`'s."""
    escape, loader = select_autoescape(("html.j2",)), FileSystemLoader(TEMPLATES)
    environment = Environment(
        loader=loader,
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["md"] = words.markdown
    names = ("report.html", "report.md")
    return {name: environment.get_template(f"{name}.j2").render(parts) for name in names}


def page(evidence: Evidence, findings: Sequence[Finding], plots: Sequence[Plot]) -> dict[str, Any]:
    """Everything the templates show, by name."""
    fallback = evidence.provenance.get("data.fallback", "")
    unknown = f"Study {evidence.study} (its question isn't recorded)"
    styles = canvas.styles(list(evidence.arms["arm"]))
    return {
        "study": evidence.study,
        "question": evidence.question or unknown,
        "answer": answer(evidence),
        "banner": f"Not the data set asked for: {fallback}." if fallback else "",
        "facts": facts(evidence),
        "tables": [table for kind in kinds.of(evidence) for table in kind.tables(evidence)],
        "findings": findings,
        "resume": words.resume(evidence),
        "plots": plots,
        "arms": arms_table(evidence),
        "configurations": configurations(evidence),
        "provenance": provenance(evidence),
        "colours": {arm: style.colour for arm, style in styles.items()},
    }


def facts(evidence: Evidence) -> list[str]:
    """What kind of study it is, at a glance; a budget only where all arms have the same."""
    budgets = _budgets(evidence)
    labels = {"trials per arm": "trials each", "epochs": "epochs"}
    common = [(set(budgets[name].values()), label) for name, label in labels.items()]
    return [
        words.count(len(evidence.arms), "arm"),
        *(f"{n} {label}" for (n, *others), label in common if isinstance(n, int) and not others),
        words.count(int(evidence.arms["finals"].max()), "final seed"),
        evidence.provenance.get("data.name", "data set not recorded"),
        f"{words.duration(evidence.arms['seconds'].sum())} of training",
    ]


def arms_table(evidence: Evidence) -> Table:
    """One row per arm; accuracies in percent."""
    test = ("test_accuracy_mean", "test_accuracy_low", "test_accuracy_high")
    widths = evidence.tolerance.set_index("arm").T
    rows = []
    for _, arm in evidence.arms.iterrows():
        name = arm["arm"]
        ended = ", ".join(f"{arm[o.value]} {o.value}" for o in Outcome if arm[o.value])
        forgiving = [words.figure(width, ".1f") for width in widths.get(name, ())]
        wide = " / ".join(forgiving) if all(forgiving) else ""
        asked = evidence.budgets.get(name, {}).get("finals", arm["finals"])
        finals = str(asked) if arm["finals"] == asked else f"{arm['finals']} of {asked}"
        best = words.figure(arm["val_accuracy"], ".2f", 100)
        cells = {
            "Arm": Cell(name, arm=True),
            "Test accuracy, %": Cell(words.between(arm, *test), "no final run"),
            "Best validation, %": Cell(best, "no complete trial"),
            "Final runs": Cell(finals),
            "Trials": Cell(ended, "none ended"),
            "Learning-rate width, decades": Cell(wide, "no learning rate searched"),
            "Time": Cell(words.duration(arm["seconds"])),
        }
        rows.append(cells)
    note = (
        "Test accuracy is the mean over final seeds with its 95 % interval. Learning-rate width: "
        "the decades of learning rate whose trials, with the best trial's optimizer, come within "
        "1, 2 and 5 points of the arm's best."
    )
    return Table("Arms", rows, note, "No arm has run.")


def configurations(evidence: Evidence) -> list[dict[str, str]]:
    """The command that trains each arm's best trial again, or the reason why there is none."""
    configured = []
    for _, arm in evidence.arms.iterrows():
        reason = "Its override list isn't stored: the study's journal is gone."
        if pd.isna(arm["val_accuracy"]):
            reason = "No trial of it is complete."
        overrides = evidence.best_overrides.get(arm["arm"])
        command = shlex.join(["optstudy", "train", *overrides]) if overrides else ""
        configured.append({"arm": arm["arm"], "command": command, "reason": reason})
    return configured


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
    looks = evidence.test_evaluations
    tested = {arm: words.count(int(looks.get(arm, 0)), "time") for arm in evidence.arms["arm"]}
    spent = words.duration(evidence.arms["seconds"].sum())
    budgets, gone = _budgets(evidence), "the study's journal is gone"
    return [
        ("Command", evidence.command, "not recorded"),
        ("Code", commit and f"commit {commit}", "no git commit recorded"),
        ("Data set", data, "not recorded"),
        ("Versions", ", ".join(versions), "not recorded"),
        ("Machine", stored.get("machine", ""), "not recorded"),
        *((f"Budget: {name}", _per_arm(values), gone) for name, values in budgets.items()),
        ("Training time", f"{spent}, summed over {len(evidence.trials)} runs", ""),
        ("Test set evaluated, per arm", _per_arm(tested), ""),
    ]


def _budgets(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """Every part of a budget by name, for every arm; empty text where it isn't stored."""
    budgets: dict[str, dict[str, Any]] = {}
    for stored, keys in ((evidence.budgets, NUMBERS), (evidence.definitions, SETTINGS)):
        for name, key in keys.items():
            values = {arm: stored.get(arm, {}).get(key, "") for arm in evidence.arms["arm"]}
            # a sampler or pruner is its recipe, which has a name
            texts = {a: v["name"] if isinstance(v, Mapping) else v for a, v in values.items()}
            budgets[name] = texts
    return budgets


def _per_arm(values: Mapping[str, Any]) -> str:
    """`2`, or where arms differ `2 (minibatch, batch_equal_epochs), 704 (batch_equal_steps)`."""
    arms: dict[str, list[str]] = {}
    for arm, value in values.items():
        arms.setdefault(str(value), []).append(arm)
    if len(arms) == 1:
        return next(iter(arms))
    return ", ".join(f"{value or 'unknown'} ({', '.join(names)})" for value, names in arms.items())
