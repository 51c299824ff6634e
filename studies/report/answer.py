"""A study's answer in one sentence, every figure of it from the tables.

How it is worded is the matter of the kind of study it is (studies.report.kinds).
"""

from studies.analysis.evidence import Evidence
from studies.report import kinds


def answer(evidence: Evidence) -> str:
    """The sentence of the first of its kinds that has one.

    So a study that aims at a target, or looks inside its networks, answers with what it measured;
    all others, and these before their final runs, with their test accuracies.
    """
    sentences = (kind.answer(evidence) for kind in kinds.of(evidence))
    return next(filter(None, sentences))
