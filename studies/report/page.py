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
from studies.analysis import advice
from studies.analysis.diagnosis import Finding
from studies.analysis.evidence import Evidence
from studies.report import canvas, export, kinds, live, runs, words
from studies.report.parts import Cell, Plot, Table
from studies.report.plots import draw

TEMPLATES = Path(__file__).parent / "templates"
# The parts of a budget, and where an arm's own budget or its definition keeps each.
BUDGET = {"searches per arm": "searches", "trials per search": "trials"}
BUDGET |= {"final runs per search": "finals", "epochs": "trainer.epochs"}
BUDGET |= {"batch size": "trainer.batch_size", "sampler": "sampler", "pruner": "pruner"}


def write(
    evidence: Evidence, findings: Sequence[Finding], folder: Path, address: str = ""
) -> list[Path]:
    """Write report.html, report.md and the plots as PNG files beside them; returns the files.

    `address` is where MLflow shows a {run}. Raises UserError where the folder can't be written.
    """
    plots = draw(evidence)
    texts = render(page(evidence, findings, plots, address))
    pictures = {f"{plot.name}.png": plot.png for plot in plots if plot.png}
    return export.write(folder, pictures | {name: text.encode() for name, text in texts.items()})


def render(parts: Mapping[str, Any]) -> dict[str, str]:
    """The text of report.html and report.md, by name; `parts` is `page`'s."""
    settings: dict[str, Any] = {"undefined": StrictUndefined, "trim_blocks": True}
    settings |= {"lstrip_blocks": True, "autoescape": select_autoescape(("html.j2",))}
    environment = Environment(loader=FileSystemLoader(TEMPLATES), **settings)
    filters = {"md": words.markdown, "prose": words.prose, "unbroken": words.unbroken}
    environment.filters |= filters
    names = ("report.html", "report.md")
    return {name: environment.get_template(f"{name}.j2").render(parts) for name in names}


def page(
    evidence: Evidence, findings: Sequence[Finding], plots: Sequence[Plot], address: str = ""
) -> dict[str, Any]:
    """Everything the templates show, by name."""
    fallback = evidence.provenance.get("data.fallback", "")
    unknown = f"Study {evidence.study} (its question isn't recorded)"
    styles = canvas.styles(list(evidence.arms["arm"]))
    own = [table for kind in kinds.of(evidence) for table in kind.tables(evidence)]
    return {
        "study": evidence.study,
        "question": evidence.question or unknown,
        "answer": kinds.answer(evidence),
        "banner": f"Not the data set asked for: {fallback}." if fallback else "",
        "facts": facts(evidence),
        "results": [arms_table(evidence), *own],
        "warnings": advice.causes(findings),
        "mending": advice.command(evidence, findings),
        "plots": plots,
        "library": live.library() if any(plot.live for plot in plots) else "",
        "runs": runs.table(evidence, address),
        "sources": [configurations(evidence), provenance(evidence)],
        "colours": {arm: style.colour for arm, style in styles.items()},
    }


def facts(evidence: Evidence) -> list[str]:
    """What kind of study it is, at a glance; a budget only where all arms have the same."""
    budgets = _budgets(evidence)
    trials, epochs = (set(budgets[name].values()) for name in ("trials per search", "epochs"))
    searches = int(evidence.arms["searches"].max())
    each = "a search" if searches > 1 else "each"
    return [
        words.count(len(evidence.arms), "arm"),
        *([f"{searches} searches each"] if searches > 1 else []),
        *(f"{words.count(n, 'trial')} {each}" for n in trials if len(trials) == 1 and n != ""),
        *(words.count(n, "epoch") for n in epochs if len(epochs) == 1 and n != ""),
        words.count(
            int(evidence.arms["finals"].max()), "final run" if searches > 1 else "final seed"
        ),
        evidence.provenance.get("data.name", "data set not recorded"),
        f"{words.duration(evidence.arms['seconds'].sum())} of training",
    ]


def arms_table(evidence: Evidence) -> Table:
    """One row per arm; accuracies in percent."""
    test = [f"test_accuracy_{figure}" for figure in ("mean", "low", "high")]
    widths = evidence.tolerance.set_index("arm").T
    rows = []
    for _, arm in evidence.arms.iterrows():
        name = arm["arm"]
        ended = ", ".join(f"{arm[o.value]} {o.value}" for o in Outcome if arm[o.value])
        forgiving = [words.figure(width, ".1f") for width in widths.get(name, ())]
        wide = " / ".join(forgiving) if all(forgiving) else ""
        narrow = "no learning rate searched" if not wide else "no second trial within 5 points"
        asked = evidence.asked(name, "finals", unknown=arm["finals"])
        finals = str(asked) if arm["finals"] == asked else f"{arm['finals']} of {asked}"
        cells = {
            "Arm": Cell(name, arm=True),
            "Test accuracy, %": Cell(words.between(arm[test], words.percent), "no final run"),
            "Best validation, %": Cell(words.percent(arm["val_accuracy"]), "no complete trial"),
            "Final runs": Cell(finals),
            "Trials": Cell(ended, "none ended"),
            "Learning-rate width, decades": Cell(wide if wide.strip("0./ ") else "", narrow),
            "Time": Cell(words.duration(arm["seconds"])),
        }
        rows.append(cells)
    note = (
        "Test accuracy is the mean over final seeds (over searches, where there are several) with "
        "its 95 % interval. Learning-rate width: "
        "the decades of learning rate whose trials, with the best trial's optimizer, come within "
        "1, 2 and 5 points of the arm's best; 0.0 where the best stands alone."
    )
    return Table("Arms", rows, note, "No arm has run.")


def configurations(evidence: Evidence) -> Table:
    """The command that trains each arm's best trial again."""
    rows = []
    for _, arm in evidence.arms.iterrows():
        reason = "Its override list isn't stored: the study's journal is gone."
        if pd.isna(arm["val_accuracy"]):
            reason = "No trial of it is complete."
        overrides = evidence.best_overrides.get(arm["arm"])
        command = shlex.join(["optstudy", "train", *overrides]) if overrides else ""
        cells = {"Arm": Cell(arm["arm"], arm=True), "Command": Cell(command, reason, code=True)}
        rows.append(cells)
    return Table("Best configurations", rows, reason="No arm has run.")


def provenance(evidence: Evidence) -> Table:
    """What the study was made with and spent."""
    stored = evidence.provenance
    commit = stored.get("git.commit", "")
    if stored.get("git.dirty") == "true":
        commit += ", with uncommitted changes"
    data = stored.get("data.name", "")
    if "data.fingerprint" in stored:
        data += f", fingerprint {stored['data.fingerprint']}"
    prefix = "version."
    versions = [f"{k[len(prefix) :]} {v}" for k, v in stored.items() if k.startswith(prefix)]
    looks, spent = evidence.test_evaluations, words.duration(evidence.arms["seconds"].sum())
    tested = {arm: words.count(int(looks.get(arm, 0)), "time") for arm in evidence.arms["arm"]}
    cells = {
        "Command": Cell(evidence.command, "not recorded", code=True),
        "Code": Cell(commit and f"commit {commit}", "no git commit recorded"),
        "Data set": Cell(data, "not recorded"),
        "Versions": Cell(", ".join(versions), "not recorded"),
        "Machine": Cell(stored.get("machine", ""), "not recorded"),
    }
    for name, values in _budgets(evidence).items():
        cells[f"Budget: {name}"] = Cell(_per_arm(values), "the study's journal is gone")
    cells["Training time"] = Cell(
        f"{spent}, summed over {words.count(len(evidence.trials), 'run')}"
    )
    cells["Test set evaluated, per arm"] = Cell(_per_arm(tested))
    rows = [{"What": Cell(what), "Recorded": cell} for what, cell in cells.items()]
    return Table("Provenance", rows)


def _budgets(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """Every part of a budget by name, for every arm; empty text where it isn't stored."""
    budgets: dict[str, dict[str, Any]] = {name: {} for name in BUDGET}
    for arm in evidence.arms["arm"]:
        stored = {**evidence.definitions.get(arm, {}), **evidence.budgets.get(arm, {})}
        for name, key in BUDGET.items():
            value = stored.get(key, "")  # of a sampler or pruner its recipe, which has a name
            budgets[name][arm] = value["name"] if isinstance(value, Mapping) else value
    return budgets


def _per_arm(values: Mapping[str, Any]) -> str:
    """`2`, or where arms differ `2 (minibatch, batch_equal_epochs), 704 (batch_equal_steps)`."""
    arms: dict[str, list[str]] = {}
    for arm, value in values.items():
        arms.setdefault(str(value), []).append(arm)
    if len(arms) == 1:
        return next(iter(arms))
    return ", ".join(f"{value or 'unknown'} ({', '.join(names)})" for value, names in arms.items())
