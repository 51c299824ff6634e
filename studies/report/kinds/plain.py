"""What every study is at least: arms compared by the test accuracies of their final runs."""

import pandas as pd

from pipeline.results import Outcome
from studies.analysis.diagnosis import unequal
from studies.analysis.evidence import Evidence
from studies.report import drawing, live, sentences, words
from studies.report.canvas import Look
from studies.report.parts import Cell, Plot, Table

ORDER = 9  # after whatever else a study is
FOUND = (
    "Test accuracy on shared final seeds of the configuration that one search found. In brackets "
    "95 % intervals; p by exact sign flips, corrected for all pairs after Holm; P(A > B) is the "
    "chance that one run of A beats one run of B. Another search may find another configuration: "
    "study.searches=5 has that in the interval too."
)
TUNED = (
    "Means over independent searches, each winner retrained on seeds and splits of its own: the "
    "search's luck is in the interval (Welch's t, at the level at which the verdict is taken). p "
    "by exact permutation of the searches' means, with three searches and fewer by a t-test of "
    "pooled variance; corrected for the pairs after Holm and for the looks taken. P(A > B) is the "
    "chance that one search of A beats one of B."
)


def applies(evidence: Evidence) -> bool:
    """Always."""
    return True


def answer(evidence: Evidence) -> str:
    """Which arm reaches more, and by how much; a Markdown list where contrasts show several things.

    Says so where nothing is shown, where seeds are too few, where budgets differ, and what to run
    where final runs are missing.
    """
    measured = evidence.arms.dropna(subset="test_accuracy_mean")
    ranked = measured.sort_values("test_accuracy_mean", ascending=False, kind="stable")
    names = list(ranked["arm"])
    if not names:
        return _unanswered(evidence)
    asked = [contrast for contrast in evidence.contrasts if set(contrast) <= set(names)]
    if len(names) == 1:
        said = [f"{names[0]} reaches {words.reached(ranked.iloc[0])}"]
    elif len(names) == 2:
        said = [sentences.two(evidence, *names)]
    elif asked:
        said = sentences.contrasts(evidence, asked)
    else:
        said = [sentences.several(evidence, ranked)]
    told = len(said)
    if len(names) > 2 and not evidence.replicated:  # another search may find others
        one = "compared are the configurations that one search per arm found"
        said.append(one.capitalize() if told > 1 else one)
    if len(names) > 1 and any(unequal(evidence)):
        differ = "the arms' budgets differ (see the warnings)"
        said.append(differ.capitalize() if told > 1 else differ)
    if evidence.unsettled:
        said.append(words.capital(evidence.unsettled) if told > 1 else evidence.unsettled)
    if missing := [arm for arm in evidence.arms["arm"] if arm not in names]:
        have = "has" if len(missing) == 1 else "have"
        said.append(f"{words.joined(missing)} {have} no final run yet")
    # What several contrasts show is a list, a line each; everything else is one sentence.
    return "\n".join(f"- {each}." for each in said) if told > 1 else "; ".join(said) + "."


def _unanswered(evidence: Evidence) -> str:
    arms, budgets, resume = evidence.arms, evidence.budgets, evidence.resume()
    ended = int(arms[[outcome.value for outcome in Outcome]].to_numpy().sum())
    budget = sum(evidence.asked(arm, "trials") for arm in budgets)
    trials = words.have(ended, budget, "trial") if budget else words.count(ended, "trial")
    said = f"No answer yet: no final run has a test accuracy, {trials} ended"
    if without := list(arms.loc[arms["complete"] == 0, "arm"]):
        said += f", none of {words.joined(without)} is complete"
    if budgets and not any(asked["finals"] for asked in budgets.values()):
        return f"{said}, and none was asked for: {resume} study.finals=10."
    return f"{said}; to go on: {resume}."


def frames(evidence: Evidence) -> dict[str, pd.DataFrame]:
    """None but those of every study."""
    return {}


def plots(evidence: Evidence, look: Look) -> list[Plot]:
    """Test accuracies, seed by seed."""
    measured = evidence.finals.dropna(subset="test_accuracy")
    accuracies = Plot(
        "test_accuracy",
        "Test accuracy of every final seed",
        "A dot per seed; below it the mean and its 95 % interval.",
        f"Test accuracy per arm: {words.named(evidence.arms, 'test_accuracy_mean')}",
        drawing.test_accuracy(measured, evidence.arms, look) if len(measured) else None,
        "No final run has a test accuracy.",
        live.test_accuracy(evidence, look) if len(measured) else None,
    )
    return [accuracies]


def tables(evidence: Evidence) -> list[Table]:
    """The comparisons as they are stored, differences in points."""
    rows, none = [], "no shared seed"
    for _, row in evidence.comparisons.iterrows():
        verdict = f"{row['verdict']} than" if row["verdict"] in sentences.TURNED else row["verdict"]
        points = row[["difference", "low", "high"]]
        difference = words.between(points, words.percent, least=-1)
        better = row[["p_better", "p_better_low", "p_better_high"]]
        cells = {
            "Arm A": Cell(row["arm_a"], arm=True),
            "Verdict": Cell(verdict),
            "Arm B": Cell(row["arm_b"], arm=True),
            "A − B, points": Cell(difference, none),
            "p": Cell(words.figure(row["p_value"], ".3g"), none),
            "p (Holm)": Cell(words.figure(row["p_holm"], ".3g"), none),
            "P(A > B)": Cell(words.between(better, "{:.2f}".format), none),
        }
        several = row["searches"] > 1
        cells |= {
            "Searches" if several else "Seeds": Cell(str(row["searches" if several else "seeds"]))
        }
        rows.append(cells)
    note = TUNED if evidence.replicated else FOUND
    arms, measured = len(evidence.arms), int(evidence.arms["test_accuracy_mean"].notna().sum())
    reason = "The arms haven't been compared."
    if arms < 2:
        reason = "The study has one arm: there is nothing to compare it with."
    elif measured < 2:
        reason = f"{measured} of {arms} arms have final runs with a test accuracy; "
        reason += "a comparison needs two."
    return [Table("Comparison", rows, note, reason, lead=3), *rounds(evidence)]


def rounds(evidence: Evidence) -> list[Table]:
    """What a study that settles by itself did, round by round; no table of another."""
    rows = [
        {
            "Round": Cell(str(each.number)),
            "Found": Cell("; ".join(each.fired), "nothing"),
            "Done": Cell(each.end or each.did or "as planned"),
            "Trials a search": Cell(str(each.trials)),
            "Cost before it, plans": Cell(f"{each.spent / each.plan:.1f}"),
        }
        for each in evidence.rounds
    ]
    note = "On validation images alone; the test set is opened once, after the last."
    return [Table("Rounds", rows, note, lead=1)] if rows else []
