"""Fill docs/lecture.md with what its studies found: `python docs/lecture.py [MLRUNS [NAME …]]`.

Between `<!-- study NAME FIGURE … -->` and `<!-- end -->` goes what NAME's report says of it: its
answer, its command, its first table, why it isn't settled, its warnings and these figures, which
come to docs/figures. Between `<!-- again NAME -->` and `<!-- end -->` goes what the same study
answers from another seed, as NAME-again. All of it is generated; what stands around it is an
author's. With names, theirs alone are filled. `--commands` says what to run first.
"""

import re
import shutil
import sys
from pathlib import Path

from studies.api import report

DOCS = Path(__file__).parent
PAGE = DOCS / "lecture.md"
BLOCK = re.compile(r"(<!-- (study|again) (\S+)(.*?) -->\n).*?(<!-- end -->)", re.DOTALL)
TABLES = ("What the target took", "Inside the networks", "Arms")  # the first that there is


def command(kind: str, name: str) -> str:
    """What runs a study of the page, or the same again from another seed."""
    seed = f" study.name={name}-again seed=100000" if kind == "again" else ""
    return f"optstudy run study={name}{seed}"


def reported(name: str, mlruns: str) -> tuple[Path, str, str, dict[str, str]]:
    """Where a study's report lies, its answer as a quotation, its budget, its sections by title."""
    folder = report(name, f"mlruns_dir={mlruns}").parent
    head, *parts = re.split(r"^## ", (folder / "report.md").read_text(), flags=re.MULTILINE)
    _, answer, budget = head.strip().split("\n\n")
    sections = dict(part.split("\n", 1) for part in parts)
    return folder, "> " + answer.replace("\n", "\n> "), budget, sections


def again(name: str, mlruns: str) -> str:
    """What a study answers from another seed: other searches, splits and final runs throughout."""
    _, answer, budget, _ = reported(f"{name}-again", mlruns)
    spent = budget.split(" · ")[-1]
    return f"From another seed (`{command('again', name)}`, {spent}):\n\n{answer}\n"


def block(name: str, figures: list[str], mlruns: str) -> str:
    """A study's part of the document; its figures are copied."""
    folder, answer, budget, sections = reported(name, mlruns)
    table = next(sections[title] for title in TABLES if title in sections)
    rows = "\n".join(line for line in table.splitlines() if line.startswith("|"))
    warned = re.findall(r"^- \*\*.*$", sections.get("Warnings", ""), flags=re.MULTILINE)
    said = [answer, f"`{command('study', name)}`: {budget}", rows]
    fixed = "" if "Rounds" in sections else "Not settled: its budget was fixed beforehand. "
    said.append(f"{fixed}The report warns of{':' if warned else ' nothing.'}")
    said += ["\n".join(warned)] if warned else []
    pictures = re.findall(r"!\[(.*?)\]\((.*?)\.png\)", sections["Figures"])
    for alt, figure in pictures:
        if figure in figures:
            shutil.copy(folder / f"{figure}.png", DOCS / "figures" / f"{name}_{figure}.png")
            said.append(f"![{alt}](figures/{name}_{figure}.png)")
    assert {figure for _, figure in pictures} >= {*figures}, f"{name} has no {figures}"
    return "\n\n".join(said) + "\n"


def main(mlruns: str = "mlruns", *names: str) -> None:
    """Fill every block of the document, or those of some studies."""

    def filled(at: re.Match[str]) -> str:
        opening, kind, name, figures, end = at.groups()
        if names and (name if kind == "study" else f"{name}-again") not in names:
            return at[0]
        said = block(name, figures.split(), mlruns) if kind == "study" else again(name, mlruns)
        return f"{opening}\n{said}\n{end}"

    PAGE.write_text(BLOCK.sub(filled, PAGE.read_text()))


if __name__ == "__main__":
    if sys.argv[1:] == ["--commands"]:
        print(*(command(at[2], at[3]) for at in BLOCK.finditer(PAGE.read_text())), sep="\n")
    else:
        main(*sys.argv[1:])
