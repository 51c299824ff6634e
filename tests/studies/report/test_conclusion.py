"""Whole studies, run to their end, and what is concluded: of a target, and of internals."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import pytest
from harness import at, finish, own_yaml

from pipeline.data import DataSet
from pipeline.tracking import Store
from studies.analysis.evidence import INTERNALS, Evidence
from studies.commands.replay import replay
from studies.report.conclusion import Conclusion, conclude
from studies.search.arms import plan

AIMED = """
defaults:
  - override /sampler@_global_.sampler: qmc
  - override /pruner@_global_.pruner: none
name: aimed
question: What does 80 % take at each batch size?
arms:
  b16: [trainer.batch_size=16, trainer.epochs=3]
  b128: [trainer.batch_size=128, trainer.epochs=8]
  full: [trainer.batch_size=full, trainer.epochs=15]
fixed:
  - data=digits
  - search_space.optimizer.lr.low=1e-1
  - search_space.optimizer.lr.high=1
  - trainer.target=0.8
  - trainer.checks=5
search:
  optimizer: given
trials: 2
finals: 2
"""
LIMITS = {"b16": 3, "b128": 8, "full": 15}

LOOKED = """
name: looked
question: What does BatchNorm do inside?
arms:
  plain: [model=mlp]
  batchnorm: [model=mlp_batchnorm]
fixed: [data=digits, optimizer=momentum, trainer.epochs=2, trainer.internals=true]
search:
  optimizer: given
contrasts: [[batchnorm, plain]]
trials: 1
finals: 2
"""


@dataclass(frozen=True)
class Ended:
    """A study, run to its end; `again` are the runs that running it once more added."""

    mlruns: Path
    conclusion: Conclusion
    again: list[str]

    @property
    def evidence(self) -> Evidence:
        return self.conclusion.evidence

    @property
    def store(self) -> Store:
        return Store(None, self.mlruns)

    @cached_property
    def files(self) -> Mapping[str, Path]:
        return {path.name: path for path in self.conclusion.files}


def ended(mlruns: Path, digits: DataSet, name: str, text: str) -> Ended:
    folder = mlruns.parent
    own_yaml(folder, "study", name, text)
    with contextlib.chdir(folder):
        study = plan([f"study={name}"])
        finish(study, digits, mlruns)
        again = finish(study, digits, mlruns)
        config = at(study, mlruns).config
        conclusion = conclude(config, Store(None, mlruns), name, folder / "out")
    return Ended(mlruns, conclusion, again)


@pytest.fixture(scope="module")
def aimed(fresh: Callable[[str], Path], digits: DataSet) -> Ended:
    return ended(fresh("aimed"), digits, "aimed", AIMED)


@pytest.fixture(scope="module")
def looked(fresh: Callable[[str], Path], digits: DataSet) -> Ended:
    return ended(fresh("looked"), digits, "looked", LOOKED)


@pytest.mark.slow
class TestAStudyOfATarget:
    def test_exports_its_table_and_figures(self, aimed: Ended) -> None:
        pngs = {f"target_{cost}.png" for cost in ("steps", "epochs", "train_seconds", "lr")}
        assert pngs | {"targets.csv", "targets.md"} <= aimed.files.keys()
        assert aimed.files["target_steps.png"].read_bytes().startswith(b"\x89PNG")

    def test_links_every_run_of_its_report_to_the_mlflow_ui(self, aimed: Ended) -> None:
        page = aimed.files["report.html"].read_text()
        experiment = aimed.store.find_experiment("aimed")
        runs = f"http://127.0.0.1:5000/#/experiments/{experiment}/runs"
        ids = list(aimed.evidence.trials["run_id"])
        assert len(ids) > 6 and all(f'href="{runs}/{run}"' in page for run in ids)
        assert all(f"<pre>optstudy replay {run}</pre>" in page for run in ids)

    def test_has_in_its_table_what_the_final_runs_logged(self, aimed: Ended) -> None:
        table = pd.read_csv(aimed.files["targets.csv"]).set_index("arm")
        finals = aimed.evidence.finals
        means = finals.groupby("arm")["target_steps"].mean()
        assert table["steps"].to_dict() == means.to_dict()
        assert table["finals"].tolist() == [2] * 3 and table["reached"].sum() > 3
        assert table["batch_size"][["b16", "b128"]].tolist() == [16, 128]
        images = finals[finals["arm"] == "full"]["target_images"].div(finals["target_steps"])
        assert table["batch_size"]["full"] == images.max()

    def test_ends_a_run_where_it_reaches_the_target(self, aimed: Ended) -> None:
        runs = aimed.evidence.trials
        there = runs[runs["target_steps"].notna()]
        assert 6 < len(there) < len(runs)
        assert there["target_steps"].tolist() == there["steps"].tolist()
        assert (there["val_accuracy"] >= 0.8).all()
        missed = runs[runs["target_steps"].isna()]
        assert (missed["val_accuracy"] < 0.8).all()
        assert missed["epochs"].tolist() == [LIMITS[arm] for arm in missed["arm"]]

    def test_picks_the_same_trial_in_its_search_and_its_tables(self, aimed: Ended) -> None:
        for arm, stored in aimed.evidence.journal.items():
            assert stored.best is not None
            assert stored.best.number == aimed.evidence.best[arm]["trial"]
        assert aimed.again == []  # or the finals would be those of a former best

    def test_answers_with_what_the_target_takes(self, aimed: Ended) -> None:
        said = aimed.conclusion.answer
        assert said.startswith("To reach 80 % validation accuracy, full takes ")
        assert " steps, " in said and "learning rate" in said

    def test_is_replayed_bit_for_bit(
        self, aimed: Ended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        finals = aimed.evidence.finals
        run = finals[finals["target_steps"].notna()].iloc[0]
        assert aimed.store.history([run["run_id"]], ["target/steps"])
        assert replay(aimed.store, run["run_id"]).verdict == "identical"


@pytest.mark.slow
class TestAStudyOfInternals:
    def test_exports_its_table_and_figures(self, looked: Ended) -> None:
        pngs = {"hidden_unit_input.png", "hidden_unit_output.png", "gradient_noise.png"}
        assert pngs | {"internals.csv", "internals.md"} <= looked.files.keys()
        assert all(looked.files[name].read_bytes().startswith(b"\x89PNG") for name in pngs)

    def test_has_a_row_before_the_first_epoch_and_after_each_of_every_final_run(
        self, looked: Ended
    ) -> None:
        table = pd.read_csv(looked.files["internals.csv"])
        assert table.groupby(["arm", "seed"]).size().to_dict() == {
            (arm, seed): 3 for arm in ("plain", "batchnorm") for seed in (1, 2)
        }
        assert set(table.groupby("run_id")["step"].min()) == {0}
        measured = [name for name in INTERNALS if not name.startswith("rate")]  # no adaptive one
        assert table[measured].notna().all(axis=None)

    def test_measures_final_runs_alone(self, looked: Ended) -> None:
        for run in looked.evidence.trials.itertuples():
            there = bool(looked.store.history([str(run.run_id)], ["gradient/variance"]))
            assert there == (run.phase == "final")

    def test_answers_with_what_it_measured(self, looked: Ended) -> None:
        said = looked.conclusion.answer
        assert said.startswith("In an epoch the median of a typical hidden unit's input moves")
        assert "; the variance of a minibatch's gradient goes" in said

    def test_keeps_its_contrasts(self, looked: Ended) -> None:
        assert list(looked.evidence.contrasts) == [("batchnorm", "plain")]

    @pytest.mark.parametrize("arm", ["plain", "batchnorm"])
    def test_is_replayed_bit_for_bit(
        self, looked: Ended, arm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        finals = looked.evidence.finals
        run_id = str(finals[finals["arm"] == arm]["run_id"].iloc[0])
        assert replay(looked.store, run_id).verdict == "identical"
