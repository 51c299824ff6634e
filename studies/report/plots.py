"""Which figures a report shows, with their titles, captions and alternative texts."""

import base64
from dataclasses import dataclass

from matplotlib.figure import Figure

from pipeline.config import Config
from studies.analysis import frames, internals, tables, targets
from studies.analysis.evidence import Evidence
from studies.report import drawing, words


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
        return "data:image/svg+xml;base64," + base64.b64encode(drawing.svg(self.figure)).decode()


def draw(evidence: Evidence, config: Config) -> list[Plot]:
    """Every figure of the page, in its order."""
    look, finals = styles(evidence), tables.counting_finals(evidence.trials)
    measured = finals[finals["test_accuracy"].notna()]
    drawn = [
        *_targets(evidence, look),
        *_internals(evidence, look),
        Plot(
            "test_accuracy",
            "Test accuracy of every final seed",
            "A dot per seed; below it the mean and its 95 % interval.",
            "Test accuracy per arm: " + words.named(evidence.arms, "test_accuracy_mean"),
            drawing.test_accuracy(measured, evidence.arms, look) if len(measured) else None,
            "No final run has a test accuracy.",
        ),
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
        frame = frames.learning(evidence, x)  # type: ignore[arg-type]
        last = (
            frame[frame["metric"] == metric].sort_values("epoch").groupby("arm", sort=False).tail(1)
        )
        percent = metric == "val_accuracy"
        drawn.append(
            Plot(
                f"{metric}_by_{x}",
                title,
                "Mean over the final seeds, with its 95 % band.",
                f"{label} against {drawing.AXES[x]}; at the end: "
                + words.named(last, "mean", percent),
                drawing.learning(frame, look, x, metric, label) if len(frame) else None,
                "No final run has logged an epoch.",
            )
        )
    rates = frames.learning_rates(evidence)
    progress = frames.search_progress(evidence)
    expected = set(progress["kind"]) == {frames.EXPECTED}
    shares = frames.importance(evidence, config)
    reasons = shares[shares["importance"].isna()]
    without = "; ".join(f"{row.arm}: {row.reason}" for row in reasons.itertuples())
    return [
        *drawn,
        Plot(
            "learning_rates",
            "Accuracy against learning rate",
            "Every trial of the search; a wide top forgives a badly chosen learning rate.",
            f"Validation accuracy against learning rate, {words.count(len(rates), 'trial')}",
            drawing.learning_rates(rates, look) if len(rates) else None,
            "No arm has searched a learning rate.",
        ),
        Plot(
            "search_progress",
            "What more trials bought",
            "Expected best of so many independent trials, with its 95 % band."
            if expected
            else "Best validation accuracy of the search so far; one search, so it has no band.",
            "Best validation accuracy against the number of trials; at the end: "
            + words.named(progress.groupby("arm", sort=False).tail(1), "value"),
            drawing.search_progress(progress, look) if len(progress) else None,
            "No trial is complete.",
        ),
        Plot(
            "importance",
            "Which hyperparameters mattered",
            f"PED-ANOVA over complete trials. {f'Empty for {without}.' if without else ''}".strip(),
            "Importance of every searched hyperparameter per arm",
            drawing.importance(shares, look) if len(reasons) < len(shares) else None,
            f"{without}." if without else "Nothing has been searched.",
        ),
    ]


def _targets(evidence: Evidence, look: dict[str, drawing.Style]) -> list[Plot]:
    """What a target took, against batch size; none where the study has no target."""
    if (aim := targets.target(evidence)) is None:
        return []
    frame, reason = targets.table(evidence), "No final run has reached the target."
    fitted = targets.fit(frame)
    fits = "The line is S_min (1 + B_crit/B)." if fitted.scaling else f"{fitted.reason}."
    to = f"to {100 * aim:g} % validation accuracy"
    asked = {
        "steps": (f"Steps {to}", "weight updates", f"Mean and 95 % interval. {fits}"),
        "epochs": (f"Epochs {to}", "epochs", "Mean and 95 % interval over final seeds."),
        "train_seconds": (
            f"Seconds {to}",
            "training time (s)",
            "Training alone, without validation.",
        ),
        "lr": ("Best learning rate", "learning rate", "Of each batch size's best trial."),
    }
    there = frame["steps"].notna().any()
    return [
        Plot(
            f"target_{value}",
            title,
            caption,
            f"{title}: " + words.named(frame, value, percent=False),
            drawing.against_batch_size(
                frame[frame["steps"].notna()],
                look,
                value,
                label,
                fitted.scaling if value == "steps" else None,
            )
            if there
            else None,
            reason,
        )
        for value, (title, label, caption) in asked.items()
    ]


def _internals(evidence: Evidence, look: dict[str, drawing.Style]) -> list[Plot]:
    """What was measured inside the networks; none where nothing was."""
    if evidence.internals.empty:
        return []
    inside, noise = internals.percentiles(evidence), internals.noise(evidence)
    ends = inside.groupby(["side", "arm"], sort=False).tail(1)
    drawn = [
        Plot(
            f"hidden_unit_{side}",
            f"{words.capital(label)}, while it trains",
            "Median and 15th to 85th percentile over the validation images; the unit of median "
            "spread at the start, first final seed. Each arm on its own scale.",
            f"{label}, median at the end: "
            + words.named(ends[ends["side"] == side], "p50", percent=False),
            drawing.hidden_unit(inside[inside["side"] == side], look, label),
        )
        for side, label in internals.SIDES.items()
    ]
    last = noise.groupby("arm", sort=False).tail(1)
    return [
        *drawn,
        Plot(
            "gradient_noise",
            "Noise of a minibatch's gradient",
            "Its variance about the full gradient as a multiple of the full gradient's squared "
            "length; mean over the final seeds, with its 95 % band.",
            "At the end: " + words.named(last, "mean", percent=False),
            drawing.gradient_noise(noise, look) if noise["mean"].notna().any() else None,
            "No gradient has been measured.",
        ),
    ]


def styles(evidence: Evidence) -> dict[str, drawing.Style]:
    """The look of each arm, the same in every figure."""
    return drawing.styles(list(evidence.arms["arm"]))
