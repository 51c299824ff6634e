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
# What each room imports of the others: commands → report → analysis → search → pipeline.
ROOMS = {
    "pipeline": set[str](),
    "studies.search": {"pipeline"},
    "studies.analysis": {"pipeline", "studies.search"},
    "studies.report": {"pipeline", "studies.analysis"},
    "studies.commands": {"pipeline", "studies.search", "studies.analysis", "studies.report"},
}
# What each module of pipeline imports of the project; train, which composes them all, aside.
LEAVES = {
    "errors": set[str](),
    "results": set[str](),
    "environment": set[str](),
    "words": set[str](),
    "memory": set[str](),
    "internals": set[str](),
    "optimizers": set[str](),
    "products": {"environment"},
    "config": {"errors"},
    "model": {"errors"},
    "schedules": {"errors"},
    "options": set[str](),
    "mistakes": {"config", "errors", "options"},
    "compose": {"config", "errors", "mistakes", "options"},
    "trainer": {"config", "results"},
    "checkpoint": {"results"},
    "tracking": {"config", "errors", "memory", "results"},
    "data": {"config", "errors"},
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


def importing(*packages: str) -> set[str]:
    """The files that import any of these."""
    return {f for f in FILES if any(within(name, set(packages)) for name in imports_of(f))}


def test_rooms_import_only_those_that_data_came_through() -> None:
    found: dict[str, set[str]] = {room: set() for room in ROOMS}
    for file in FILES:
        here = file.removesuffix(".py").replace("/", ".")
        for room in (room for room in ROOMS if within(here, {room})):
            names = modules_of_the_project(imports_of(file))
            found[room] |= {r for r in ROOMS if any(within(n, {r}) for n in names)} - {room}
    assert found == ROOMS


def test_inside_pipeline_only_train_composes() -> None:
    found: dict[str, set[str]] = {leaf: set() for leaf in LEAVES}
    for file in FILES:
        leaf = file.removeprefix("pipeline/").partition("/")[0].removesuffix(".py")
        if file.startswith("pipeline/") and leaf not in ("train", "__init__"):
            names = modules_of_the_project(imports_of(file))
            found[leaf] |= {name.split(".")[1] for name in names} - {leaf}
    assert found == LEAVES


def test_the_loop_and_the_models_know_no_framework_around_them() -> None:
    frameworks = importing("hydra", "omegaconf", "mlflow", "optuna")
    assert not frameworks & {f"pipeline/{f}.py" for f in ("trainer", "model", "internals")}


def test_tracking_alone_imports_mlflow() -> None:
    files = ("__init__", "bulk", "copies", "mirror", "models", "pages", "reader")
    assert importing("mlflow") == {f"pipeline/tracking/{file}.py" for file in files}


def test_optuna_is_known_where_trials_are_asked_kept_and_judged() -> None:
    assert importing("optuna") == {
        "studies/search/asked.py",
        "studies/search/confirmed.py",
        "studies/search/journal.py",
        "studies/search/ledger.py",
        "studies/search/past.py",
        "studies/search/runner.py",
        "studies/search/stored.py",
        "studies/search/tpe.py",
        "studies/analysis/hyperparameters.py",
        "studies/analysis/tables.py",
    }


def test_nothing_that_is_read_from_a_disk_can_run_code() -> None:
    """Pickles can: torch reads weights alone, numpy no objects, and nobody else reads any."""
    for file in FILES:
        calls = [
            n for n in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(n, ast.Call)
        ]
        named = {ast.unparse(call.func): {ast.unparse(k) for k in call.keywords} for call in calls}
        assert "weights_only=True" in named.get("torch.load", {"weights_only=True"}), file
        assert "allow_pickle=True" not in named.get("np.load", set()), file
    assert not importing("pickle", "cloudpickle", "dill", "shelve", "marshal")


def test_every_module_function_and_class_can_be_read_at_a_sitting() -> None:
    for file in FILES:
        source = (ROOT / file).read_text()
        assert len(source.splitlines()) <= 300, file
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.end_lineno is not None:
                most = 120 if isinstance(node, ast.ClassDef) else 50
                assert node.end_lineno - node.lineno < most, f"{file}: {node.name}"


@pytest.mark.parametrize("file", ["pipeline/config.py", "pipeline/results.py", "studies/cli.py"])
def test_what_every_command_starts_with_is_light(file: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = imports(ast.unparse(ast.Module(body=list(top), type_ignores=[])))
    heavy = {"torch", "mlflow", "optuna", "pandas", "scipy", "sklearn", "matplotlib"}
    assert not [name for name in names if within(name, heavy)]
