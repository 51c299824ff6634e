"""The interactive figures, as what plotly.js draws: data and layout, plain dictionaries.

Each has a hover that names arm, trial or seed and value; a point's `customdata` is the row of the
trials table that it belongs to, where its links are. Colours are those of the still figures, and
backgrounds transparent: the page decides on light or dark.
"""

import base64
import gzip
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from studies.analysis import frames, space
from studies.analysis.evidence import Evidence
from studies.analysis.hyperparameters import LR
from studies.report import drawing
from studies.report.canvas import Look
from studies.report.drawing import AXES

Live = dict[str, Any]
FAINT = "rgba(128,128,128,.3)"
SYMBOLS = {"complete": "circle", "pruned": "circle-open"}  # others are crosses
MOST = 12_000  # points of all seeds' curves: beyond them every so many epochs are left out
X: TypeAlias = Literal["step", "epoch", "seconds"]
BY: dict[X, str] = {"epoch": "epochs", "step": "steps", "seconds": "seconds"}
MISSING = "–"  # of a hyperparameter that a trial doesn't have


def library() -> str:
    """plotly.js, gzipped and as text, for a page that needs no network."""
    source = files("plotly") / "package_data" / "plotly.min.js"
    return base64.b64encode(gzip.compress(source.read_bytes(), 6, mtime=0)).decode()


def row_id(index: Any) -> str:
    """The name on the page of a run's row in the trials table."""
    return f"run-{index}"


def learning(evidence: Evidence, means: pd.DataFrame, look: Look, metric: str, label: str) -> Live:
    """Curves of all final runs, their mean and its 95 % band, by steps, epochs or seconds.

    `means` is `frames.learning`.
    """
    scale = 100 if "accuracy" in metric else 1
    curves = _thinned(frames.final_curves(evidence).dropna(subset=metric))
    rows = {run: row_id(index) for index, run in evidence.trials["run_id"].items()}
    traces: list[Live] = []
    along: dict[X, list[Any]] = {x: [] for x in BY}
    for arm, style in look.items():
        seeds = [run for _, run in curves[curves["arm"] == arm].groupby("run_id", sort=False)]
        measured = means.query("arm == @arm and metric == @metric and mean.notna()")
        if measured.empty:
            continue
        group = {"legendgroup": arm, "name": arm, "line": {"color": style.colour}}
        mean = _rounded(scale * measured["mean"])
        band = _rounded(scale * pd.concat([measured["high"], measured["low"][::-1]]))
        traces += [
            group
            | {"y": band, "fill": "toself", "opacity": 0.25, "hoverinfo": "skip", "mode": "none"}
            | {"showlegend": False, "fillcolor": style.colour},
            group
            | {"y": _broken(_rounded(scale * run[metric]) for run in seeds), "mode": "lines"}
            | {"text": _broken([f"seed {run['seed'].iloc[0]}"] * len(run) for run in seeds)}
            | {"customdata": _broken([rows[run["run_id"].iloc[0]]] * len(run) for run in seeds)}
            | {"opacity": 0.4, "showlegend": False, "line": {"color": style.colour, "width": 1}}
            | {"hovertemplate": f"{arm}, %{{text}}<br>%{{x}}: %{{y}}<extra></extra>"},
            group
            | {"y": mean, "mode": "lines+markers", "marker": {"size": 5}}
            | {"hovertemplate": f"{arm}, mean<br>%{{x}}: %{{y}}<extra></extra>"},
        ]
        for x in BY:
            at = _rounded(measured[x])
            along[x] += [at + at[::-1], _broken(_rounded(run[x]) for run in seeds), at]
    ends = means.groupby("arm")[list(BY)].max()
    axes = {x: _axis(AXES[x], "log" if drawing.wide(ends[x]) else "linear") for x in BY}
    if axes["epoch"]["xaxis.type"] == "linear":  # at whole epochs
        axes["epoch"]["xaxis.dtick"] = max(1, round(float(ends["epoch"].max()) / 8))
    figure = _switched(traces, along, axes, label, BY)
    losses = means.query("metric == @metric")["mean"].dropna()
    logarithmic = metric == "train_loss" and drawing.wide(losses)
    figure["layout"]["yaxis"]["type"] = "log" if logarithmic else "linear"
    return figure


def _axis(title: str, scale: str) -> Live:
    return {"xaxis.title.text": title, "xaxis.type": scale, "xaxis.dtick": None}


def _thinned(curves: pd.DataFrame) -> pd.DataFrame:
    """Every so many epochs of curves that have too many points, and the last."""
    every = -(-len(curves) // MOST)
    back = curves.groupby("run_id").cumcount(ascending=False)
    return curves[back % every == 0] if every > 1 else curves


def test_accuracy(evidence: Evidence, look: Look) -> Live:
    """A dot per final seed, the mean and its 95 % interval; a row per arm."""
    traces: list[Live] = []
    for row, arm in enumerate(evidence.arms.to_dict("records")):
        name, colour = arm["arm"], look[arm["arm"]].colour
        runs = evidence.finals.query("arm == @name").dropna(subset="test_accuracy")
        mean, low, high = (100 * arm[f"test_accuracy_{end}"] for end in ("mean", "low", "high"))
        dots = {"x": _rounded(100 * runs["test_accuracy"]), "y": [row] * len(runs), "name": name}
        dots |= {"text": [f"seed {seed}" for seed in runs["seed"]], "mode": "markers"}
        dots |= {"customdata": [row_id(index) for index in runs.index]}
        dots |= {"marker": {"color": colour, "size": 9, "opacity": 0.6}}
        traces.append(dots | {"hovertemplate": f"{name}, %{{text}}<br>%{{x}} %<extra></extra>"})
        if pd.notna(low):
            ends = {"array": [min(high, 100) - mean], "arrayminus": [mean - max(low, 0)]}
            error = {"type": "data", "symmetric": False, "color": colour, "thickness": 2.5} | ends
            middle = {"x": [mean], "y": [row + 0.25], "error_x": error, "mode": "markers"}
            middle |= {"marker": {"color": colour, "size": 9, "symbol": "line-ns-open"}}
            said = f"{name}, mean<br>%{{x:.2f}} %<extra></extra>"
            traces.append(middle | {"hovertemplate": said})
    ticks = {"tickvals": list(range(len(look))), "ticktext": list(look), "autorange": "reversed"}
    layout = _layout("test accuracy (%)", "", showlegend=False, height=140 + 60 * len(look))
    layout["yaxis"] |= ticks | {"showgrid": False, "automargin": True}
    return {"data": [{"type": "scatter"} | trace for trace in traces], "layout": layout}


def search_space(evidence: Evidence, look: Look) -> Live:
    """Accuracy of every trial against each hyperparameter in turn."""
    trials = space.points(evidence)
    keys = sorted(space.varied(evidence), key=lambda key: key != LR)  # the one to see first
    traces: list[Live] = []
    along: dict[str, list[Any]] = {key: [] for key in keys}
    for arm, style in look.items():
        own = trials[trials["arm"] == arm]
        symbols = [SYMBOLS.get(outcome, "x") for outcome in own["outcome"]]
        named = zip(own["trial"], own["search"], own["outcome"], strict=True)
        text = [f"{evidence.trial_name(t, s)}, {outcome}" for t, s, outcome in named]
        marks = {"color": style.colour, "size": 8, "opacity": 0.75, "symbol": symbols}
        traces.append(
            {"name": arm, "mode": "markers", "y": _rounded(100 * own["val_accuracy"])}
            | {"text": text, "customdata": [row_id(index) for index in own.index], "marker": marks}
            | {"hovertemplate": f"{arm}, %{{text}}<br>%{{x}}: %{{y}} %<extra></extra>"}
        )
        for key in keys:
            along[key].append(_rounded(own[key]))
    axes = {key: _axis(key, _scale(evidence, key)) for key in keys}
    return _switched(traces, along, axes, "validation accuracy (%)", {k: k for k in keys})


def _scale(evidence: Evidence, key: str) -> str:
    if not pd.api.types.is_numeric_dtype(evidence.trials[key]):
        return "category"
    return "log" if space.is_log(evidence, key) else "linear"


def parallel(evidence: Evidence, look: Look) -> Live:
    """A line per trial through its arm, its hyperparameters and its accuracy."""
    trials = space.points(evidence)
    reached = _rounded(100 * trials["val_accuracy"])
    dimensions = [_named("arm", trials["arm"], list(look))]
    for key in space.varied(evidence):
        if (scale := _scale(evidence, key)) == "category":
            dimensions.append(_named(key, trials[key], list(trials[key].dropna().unique())))
        else:
            dimensions.append(_measured(key, trials[key], scale == "log"))
    dimensions.append({"label": "validation accuracy (%)", "values": reached})
    line = {"color": reached, "colorscale": "Viridis", "showscale": False}
    trace = {"type": "parcoords", "dimensions": dimensions, "line": line, "labelangle": -12}
    margin = {"l": 24 + 6 * max(map(len, look)), "r": 50, "t": 90, "b": 20}
    return {"data": [trace], "layout": _layout("", "", height=420, margin=margin)}


def _named(label: str, values: "pd.Series[Any]", choices: Sequence[Any]) -> Live:
    """An axis of names; those that have none at its foot."""
    names = [MISSING] * bool(values.isna().any()) + [str(choice) for choice in choices]
    at = [names.index(MISSING if pd.isna(value) else str(value)) for value in values]
    return {"label": label, "values": at, "tickvals": list(range(len(names))), "ticktext": names}


def _measured(label: str, values: "pd.Series[Any]", log: bool) -> Live:
    """An axis of numbers, which plotly has no log scale for; those that have none at its foot."""
    at = pd.Series(np.log10(values.astype(float)) if log else values.astype(float))
    low, high = at.min(), at.max()
    ticks = [float(f"{10**t if log else t:.2g}") for t in np.linspace(low, high, 5)]
    places = [float(np.log10(t)) if log else t for t in ticks]
    names = [f"{tick:g}" for tick in ticks]
    if values.isna().any():
        foot = low - (high - low) / 6
        at, places, names = at.fillna(foot), [foot, *places], [MISSING, *names]
    return {"label": label, "values": _rounded(at), "tickvals": places, "ticktext": names}


def _switched(
    traces: Sequence[Live],
    along: Mapping[Any, Sequence[Any]],
    axes: Mapping[Any, Live],
    label: str,
    names: Mapping[Any, str],
) -> Live:
    """Traces against the first x, and a button for each there is."""
    first = next(iter(along))
    buttons = [
        {"label": names[x], "method": "update", "args": [{"x": list(along[x])}, axes[x]]}
        for x in along
    ]
    few = {"type": "buttons", "direction": "right"}
    switch: Live = few if len(buttons) < 4 else {"type": "dropdown"}
    switch |= {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.03, "yanchor": "bottom"}
    switch |= {"bordercolor": FAINT, "bgcolor": "rgba(0,0,0,0)", "pad": {"t": 0, "b": 4}}
    layout = _layout(axes[first]["xaxis.title.text"], label, updatemenus=[switch])
    layout["xaxis"] |= {key: axes[first][f"xaxis.{key}"] for key in ("type", "dtick")}
    drawn = [{"type": "scatter", "x": x} | t for t, x in zip(traces, along[first], strict=True)]
    return {"data": drawn, "layout": layout}


def _layout(x: str, y: str, **more: Any) -> Live:
    axis = {"gridcolor": FAINT, "zeroline": False, "linecolor": FAINT, "automargin": True}
    axis |= {"exponentformat": "power"}
    usual: Live = {
        "height": 420,
        "margin": {"l": 56, "r": 12, "t": 44, "b": 48},
        "hovermode": "closest",
    }
    usual |= {"paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)"}
    usual |= {"legend": {"orientation": "h", "y": -0.22}, "font": {"family": "inherit", "size": 12}}
    labelled = {"xaxis": {"title": {"text": x}} | axis, "yaxis": {"title": {"text": y}} | axis}
    return usual | labelled | more


def _rounded(values: "pd.Series[Any]") -> list[Any]:
    """Four digits, which no screen shows more of; None for what is missing."""
    return [
        None if pd.isna(v) else float(f"{v:.4g}") if isinstance(v, float) else v for v in values
    ]


def _broken(lines: Iterable[Sequence[Any]]) -> list[Any]:
    """Lines one after another as one, with a gap between them."""
    return [value for line in lines for value in [*line, None]]
