"""What MLflow's pages show of runs beside their figures: who made them, of what, in which columns.

Knows MLflow's reserved tags and the addresses of its UI, and writes nothing itself.
"""

import getpass
import json
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from mlflow.entities import Dataset, DatasetInput, Experiment, InputTag
from mlflow.utils.mlflow_tags import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_GIT_COMMIT,
    MLFLOW_RUN_NOTE,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
    MLFLOW_USER,
)

NOTE = MLFLOW_RUN_NOTE
VIEW = "optstudy"
OF_RUN = "optstudy.run_id"  # of a copy: its original's
SERVED = "optstudy.served"  # of an experiment: where a tracking server shows its copy
# MLflow opens an experiment on its pages for GenAI unless the address says otherwise; older ones
# went by the experiment's tag.
TRAINING = "workflowType=machine_learning"
KIND = {"mlflow.experimentKind": "custom_model_development"}
ALL = f"#/experiments?{TRAINING}"
COLUMNS = ("metrics.`test/accuracy`", "metrics.`best/val_accuracy`", "tags.`outcome`")
VIEWED_ARMS = 12  # columns of more would neither be read nor fit into a tag


def of_runs(experiment: Experiment) -> str:
    """The address, after the server's, of an experiment's runs, with its columns if it has any."""
    view = f"&viewStateShareKey={VIEW}" if _view_key() in experiment.tags else ""
    return f"#/experiments/{experiment.experiment_id}/runs?{TRAINING}{view}"


class Pages(NamedTuple):
    """Where a study's `runs` are shown, and a single `run`, whose id takes the place of {run}."""

    runs: str
    run: str


def of_study(experiment: Experiment | None, served: str, server: str | None) -> Pages:
    """Those of a UI that serves the store at an address, or of a tracking `server` that has copies;
    of None all studies.

    A server that hasn't answered yet shows what studies it has, while runs are in the UI here.
    """
    own = None if server is None else masked(server).rstrip("/")
    if experiment is None:
        return Pages(f"{own or served}/{ALL}", "")
    here = f"{served}/#/experiments/{experiment.experiment_id}/runs/{{run}}"
    if own is None:
        return Pages(f"{served}/{of_runs(experiment)}", here)
    there = experiment.tags.get(SERVED, "")
    if not there.startswith(f"{own}/"):
        return Pages(f"{own}/{ALL}", here)
    return Pages(there, f"{there}&searchFilter={quote(copy_of('{run}'), safe='{}')}")


def tags(arms: Iterable[str]) -> dict[str, str]:
    """Those of an experiment: its kind and, for a study, the columns of its runs."""
    named = [f"metrics.`{name}`" for arm in list(arms)[:VIEWED_ARMS] for name in of_arm(arm)[:1]]
    columns = {"selectedColumns": [*COLUMNS, *named, "attributes.`Source`", "attributes.`Dataset`"]}
    return KIND | ({_view_key(): json.dumps(columns)} if named else {})


def of_arm(arm: str) -> tuple[str, str, str]:
    """The names of an arm's figures in its study's run: test, best validation, final runs.

    MLflow takes no + in a name, which an arm's may have; an arm's has no blank.
    """
    plain = arm.replace("+", " plus ").strip()
    return f"test/accuracy/{plain}", f"best/val_accuracy/{plain}", f"finals/{plain}"


def source(tags: Mapping[str, Any]) -> dict[str, str]:
    """Who ran what: the columns User, Source and Version of MLflow's table."""
    program = sys.argv[0] if sys.argv[0] == "optstudy train" else "optstudy"  # Hydra's name of it
    typed = [a for a in sys.argv[1:] if not a.startswith("hydra.searchpath=")]
    found = {MLFLOW_SOURCE_NAME: masked(shlex.join([*program.split(), *typed]))}
    found |= {MLFLOW_SOURCE_TYPE: "LOCAL", MLFLOW_USER: _user()}
    commit = tags.get("git.commit")
    return found | ({MLFLOW_GIT_COMMIT: str(commit)} if commit else {})


def masked(text: str) -> str:
    """A text without the user and password of any address in it."""
    return re.sub(r"://[^/@\s]+@", "://***@", text)


def said(tags: Mapping[str, str], note: str | None) -> dict[str, str]:
    """What a user says of every run: own tags, and its description in Markdown."""
    return {**tags, **({} if note is None else {NOTE: note})}


def datasets(tags: Mapping[str, str], params: Mapping[str, Any]) -> list[DatasetInput]:
    """What a run was trained on, and a final run tested on, by its fingerprint; none of others."""
    digest = tags.get("data.fingerprint")
    name = params.get("data.name", tags.get("data.name"))
    if digest is None or name is None:
        return []
    where = json.dumps({"uri": str(params.get("data.root") or name)})
    contexts = {"train": name} | ({"test": f"{name} test"} if tags.get("phase") == "final" else {})
    return [
        DatasetInput(Dataset(called, digest, "local", where), [InputTag(MLFLOW_DATASET_CONTEXT, c)])
        for c, called in contexts.items()
    ]


def copy_of(run_id: str) -> str:
    """The filter that finds a run's copy on a tracking server."""
    return f"tags.`{OF_RUN}` = '{run_id}'"


def _view_key() -> str:
    return f"mlflow.sharedViewState.{VIEW}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return "unknown"
