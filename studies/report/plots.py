"""Which figures a report shows, with their titles, captions and alternative texts."""

import math
from dataclasses import replace
from typing import Literal

import pandas as pd

from studies.analysis import frames, space
from studies.analysis.evidence import Evidence
from studies.report import canvas, drawing, kinds, live, words
from studies.report.canvas import Look
from studies.report.parts import Plot


def draw(evidence: Evidence) -> list[Plot]:
    """Every figure of the page, in its order: those of the study's kinds, then all studies', and
    those of the search where there is one.
    """
    look = canvas.styles(list(evidence.arms["arm"]))
    with canvas.styled():
        own = [plot for kind in kinds.of(evidence) for plot in kind.plots(evidence, look)]
        drawn = [*own, *_learning(evidence, look)]
        if set(look) - set(space.fixed(evidence)):
            drawn += [_search_space(evidence, look), _learning_rates(evidence, look)]
            drawn += [_search_progress(evidence, look), _importance(evidence, look)]
        return drawn


def _search_space(evidence: Evidence, look: Look) -> Plot:
    return Plot(
        "search_space",
        "The search, trial by trial",
        "A line per trial; drag along an axis to keep the trials that pass there.",
        "Hyperparameters and accuracy of every trial",
        None,
        "" if _varied(evidence) else "No two trials differ.",
        live.parallel(evidence, look) if _varied(evidence) else None,
    )


def _varied(evidence: Evidence) -> bool:
    return len(space.points(evidence)) > 0 and len(space.varied(evidence)) > 0


def _learning(evidence: Evidence, look: Look) -> list[Plot]:
    losses = {str(d.get("trainer.loss")) for d in evidence.definitions.values()}
    units = {"log": " (nats)", "mse": " (squared error)"}
    unit = units.get(losses.pop(), "") if len(losses) == 1 else ""
    accuracy, loss = "validation accuracy (%)", f"training loss{unit}"
    panels: list[tuple[Literal["step", "epoch", "seconds"], str, str, str]] = [
        ("epoch", "val_accuracy", "Learning", accuracy),
        ("step", "val_accuracy", "Learning, by weight update", accuracy),
        ("seconds", "val_accuracy", "Learning, by training time", accuracy),
        ("epoch", "train_loss", "Training loss", loss),
    ]
    drawn = []
    curves = _possible(frames.learning(evidence))
    for x, metric, title, label in panels:
        points = curves[curves["metric"] == metric].sort_values("epoch")
        last = points.groupby("arm", sort=False).tail(1)
        at_end = words.named(last, "mean", percent=metric == "val_accuracy")
        plot = Plot(
            f"{metric}_by_{x}",
            title,
            f"Mean over the {words.units(evidence.replicated)}, with its 95 % band.",
            f"{label} against {drawing.AXES[x]}; at the end: {at_end}",
            drawing.learning(curves, look, x, metric, label) if len(curves) else None,
            "No final run has logged an epoch.",
            shown=x == "epoch",  # its live figure switches to the others
        )
        if plot.shown and plot.figure:
            plot = replace(plot, live=live.learning(evidence, curves, look, metric, label))
        drawn.append(plot)
    return drawn


def _possible(curves: pd.DataFrame) -> pd.DataFrame:
    """Curves whose bands are cut to what there is: no loss below 0, no accuracy above 1."""
    most = curves["metric"].map({"val_accuracy": 1.0}).fillna(math.inf)
    low, high = (curves[end].astype(float) for end in ("low", "high"))
    return curves.assign(low=low.clip(lower=0), high=high.clip(upper=most))


def _learning_rates(evidence: Evidence, look: Look) -> Plot:
    rates = evidence.learning_rates
    return Plot(
        "learning_rates",
        "Accuracy against hyperparameters",
        "Every trial of the search; a wide top forgives a badly chosen value.",
        f"Validation accuracy against learning rate, {words.count(len(rates), 'trial')}",
        drawing.learning_rates(rates, look) if len(rates) else None,
        "No arm has searched a learning rate.",
        live.search_space(evidence, look) if _varied(evidence) else None,
    )


def _search_progress(evidence: Evidence, look: Look) -> Plot:
    progress = frames.search_progress(evidence)
    at_end = words.named(progress.groupby("arm", sort=False).tail(1), "value")
    caption = "Best validation accuracy of the search so far; one search, so it has no band."
    if evidence.replicated:
        caption = "Best validation accuracy so far, mean over the searches, with its 95 % band."
    elif set(progress["kind"]) == {frames.EXPECTED}:
        caption = "Expected best of so many independent trials, with its 95 % band."
    return Plot(
        "search_progress",
        "What more trials bought",
        caption,
        f"Best validation accuracy against the number of trials; at the end: {at_end}",
        drawing.search_progress(progress, look) if len(progress) else None,
        "No trial is complete.",
    )


def _importance(evidence: Evidence, look: Look) -> Plot:
    shares = evidence.importance
    unjudged = shares[shares["importance"].isna()]
    without = "; ".join(
        f"{words.joined(list(alike['arm']))}: {reason}"
        for reason, alike in unjudged.groupby("reason", sort=False)
    )
    return Plot(
        "importance",
        "Which hyperparameters mattered",
        f"PED-ANOVA over complete trials. {f'Not judged: {without}.' if without else ''}".strip(),
        "Importance of every searched hyperparameter per arm",
        drawing.importance(shares, look) if len(unjudged) < len(shares) else None,
        f"Not judged: {without}.",
    )
