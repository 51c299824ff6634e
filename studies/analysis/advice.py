"""What to do about a diagnosis: one warning per cause, and one command that mends them all.

`diagnosis` finds arm by arm, and each finding has an override of its own; run one after another
they would all be the same new study, which is refused from the second on.
"""

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.compose import merge
from studies.analysis.diagnosis import Finding
from studies.analysis.evidence import Evidence

NUMBER = re.compile(r"(?<![\w.-])\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w-])")
NAME = "study.name="


@dataclass(frozen=True)
class Warned:
    """A cause and the arms it concerns, none where it is the whole study's.

    `override` is what would mend it, without a name for the study; "" where nothing would.
    """

    kind: str
    arms: tuple[str, ...]
    text: str
    override: str


def causes(findings: Sequence[Finding]) -> list[Warned]:
    """Findings that say the same but for their numbers as one, with the numbers' range."""
    alike: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        alike.setdefault((finding.kind, NUMBER.sub("#", finding.text)), []).append(finding)
    warned = []
    for (kind, _), same in alike.items():
        arms = tuple(finding.arm for finding in same if finding.arm is not None)
        asked = [each for each in _furthest(same) if not each.startswith(NAME)]
        warned.append(Warned(kind, arms, _spanning([f.text for f in same]), " ".join(asked)))
    return warned


def _spanning(texts: Sequence[str]) -> str:
    """The first text, each number that differs from text to text as `0.5–2.1`."""
    numbers = zip(*(NUMBER.findall(text) for text in texts), strict=True)
    spans = [sorted(set(each), key=float) for each in numbers]
    said = (span[0] if len(span) == 1 else f"{span[0]}–{span[-1]}" for span in spans)
    return NUMBER.sub(lambda _: next(said), texts[0])


def _furthest(findings: Iterable[Finding]) -> list[str]:
    """All their overrides; of two for one key the larger budget, the wider range."""
    asked: dict[str, str] = {}
    for override in (each for finding in findings for each in finding.override.split()):
        key, _, value = override.partition("=")
        further = min if key.endswith(".low") else max
        same = asked.get(key, value) == value or key + "=" == NAME
        asked[key] = value if same else further(asked[key], value, key=float)
    listed = [f"{key}={value}" for key, value in asked.items()]
    return sorted(listed, key=lambda override: override.startswith(NAME))  # which ends a command


def command(evidence: Evidence, findings: Iterable[Finding]) -> str:
    """The study's command with all that its findings ask for; "" where they ask for nothing."""
    if not (asked := _furthest(findings)):
        return ""
    if any(override.startswith(NAME) for override in asked):  # the looks so far count there too
        asked.insert(-1, f"study.follows={evidence.study}")
    optstudy, run, *given = shlex.split(evidence.resume())
    return shlex.join([optstudy, run, *merge(given, asked)])
