"""Imports point one way: read from the source of every module, imports in functions included."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for package in ("pipeline", "studies")
    for path in (ROOT / package).rglob("*.py")
)
LEAVES = [
    file
    for file in FILES
    if file.startswith("pipeline/") and file not in ("pipeline/train.py", "pipeline/__init__.py")
]
# What a leaf of pipeline may import of the project.
SHARED = {"pipeline.config", "pipeline.errors", "pipeline.results"}
MAY_IMPORT = {
    "pipeline/errors.py": set[str](),
    "pipeline/environment.py": set[str](),
    "pipeline/config.py": {"pipeline.errors"},
    "pipeline/results.py": set[str](),
    "pipeline/internals.py": set[str](),
    "pipeline/model.py": set[str](),
    "pipeline/schedules.py": set[str](),
    "pipeline/trainer.py": {"pipeline.results"},
}


def imports(source: str, package: str = "") -> set[str]:
    """Every module a source imports, by its full name; `from a import b` counts as a and a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(parents if node.level else []), *filter(None, [node.module])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def imports_of(file: str) -> set[str]:
    package = file.rpartition("/")[0].replace("/", ".")
    return imports((ROOT / file).read_text(), package)


def within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def modules_of_the_project(names: set[str]) -> set[str]:
    """Of all imported names, the project's modules: a package where what is taken is no module."""
    known = {file.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for file in FILES}
    chosen = {name for name in names if within(name, {"pipeline", "studies"})} & known
    # `from pipeline import data` names the package pipeline too, which holds nothing.
    return chosen - {"pipeline", "studies"}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import a.b as c", {"a.b"}),
        ("def f():\n    from a import b, c", {"a", "a.b", "a.c"}),
        ("if TYPE_CHECKING:\n    import a", {"a"}),
        ("from . import b", {"p.q", "p.q.b"}),
        ("from ..r import b", {"p.r", "p.r.b"}),
    ],
)
def test_every_form_of_import_is_read(source: str, expected: set[str]) -> None:
    assert imports(source, "p.q") == expected


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith("pipeline/")])
def test_pipeline_never_imports_studies(file: str) -> None:
    assert not [name for name in imports_of(file) if within(name, {"studies"})]


@pytest.mark.parametrize("file", LEAVES)
def test_inside_pipeline_only_train_composes(file: str) -> None:
    allowed = MAY_IMPORT.get(file, SHARED)
    if file.startswith("pipeline/data/"):
        allowed = allowed | {"pipeline.data"}
    modules = modules_of_the_project(imports_of(file))
    assert not [name for name in modules if not within(name, allowed)]


@pytest.mark.parametrize(
    "file", ["pipeline/trainer.py", "pipeline/model.py", "pipeline/internals.py"]
)
def test_the_loop_and_the_models_know_no_framework_around_them(file: str) -> None:
    others = {"hydra", "omegaconf", "mlflow", "optuna"}
    assert not [name for name in imports_of(file) if within(name, others)]


@pytest.mark.parametrize("file", FILES)
def test_tracking_alone_imports_mlflow(file: str) -> None:
    imported = any(within(name, {"mlflow"}) for name in imports_of(file))
    assert imported == (file == "pipeline/tracking.py")


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith("pipeline/")])
def test_studies_alone_imports_optuna(file: str) -> None:
    assert not [name for name in imports_of(file) if within(name, {"optuna"})]


@pytest.mark.parametrize("file", ["pipeline/config.py", "pipeline/results.py", "studies/cli.py"])
def test_what_every_command_starts_with_is_light(file: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = imports(ast.unparse(ast.Module(body=list(top), type_ignores=[])))
    heavy = {"torch", "mlflow", "optuna", "pandas", "scipy", "sklearn", "matplotlib"}
    assert not [name for name in names if within(name, heavy)]
