"""One warning per cause, and one command for all that the warnings ask for."""

from building import evidence, trial

from studies.analysis.advice import Warned, causes, command
from studies.analysis.diagnosis import Finding
from studies.analysis.evidence import Evidence

NEW = "study.name=s-2"


def rising(arm: str, points: str) -> Finding:
    text = f"Best at the last of 3 epochs, {points} points above 1 epoch earlier."
    return Finding(arm, "length", text, f"trainer.epochs=6 {NEW}")


def given(command: str = "optstudy run study=s study.trials=4") -> Evidence:
    return evidence([trial("a", 0, 0.5)], command=command)


def test_findings_that_differ_in_their_numbers_are_one_warning_of_all_their_arms() -> None:
    found = [rising("b16", "2.45"), rising("b128", "0.5"), rising("full", "10")]
    text = "Best at the last of 3 epochs, 0.5–10 points above 1 epoch earlier."
    assert causes(found) == [Warned("length", ("b16", "b128", "full"), text, "trainer.epochs=6")]


def test_another_cause_or_another_hyperparameter_is_another_warning() -> None:
    found = [
        rising("a", "1"),
        Finding("a", "boundary", "The best trial's x=1e-05 lies low.", "x.low=1e-06"),
        Finding("b", "boundary", "The best trial's y=1 lies low.", "y.low=0.1"),
        Finding(None, "unequal", "The arms differ.", ""),
    ]
    assert [warned.arms for warned in causes(found)] == [("a",), ("a",), ("b",), ()]
    assert causes(found)[1].text == "The best trial's x=1e-05 lies low."


def test_a_number_inside_a_name_is_no_number() -> None:
    names = ("b16", "b128", "mlp-2", "x_1")
    found = [Finding("a", "inclusion", f"adam is below {name}.", "") for name in names]
    assert len(causes(found)) == 4


def test_one_command_has_all_that_is_asked_for_and_one_new_name() -> None:
    found = [
        rising("a", "1"),
        Finding("a", "budget", "Late.", "study.trials=8"),
        Finding("b", "boundary", "Low.", f"search_space.optimizer.lr.low=1e-06 {NEW}"),
    ]
    assert command(given(), found) == (
        "optstudy run study=s study.trials=8 trainer.epochs=6 "
        "search_space.optimizer.lr.low=1e-06 study.follows=s study.name=s-2"
    )


def test_of_two_values_for_a_key_the_command_takes_what_goes_further() -> None:
    asked = ("x.low=0.1", "x.low=0.01", "x.high=9", "x.high=10", "study.trials=8", "study.trials=6")
    found = [Finding("a", "k", override, override) for override in asked]
    assert command(given(), found) == "optstudy run study=s study.trials=8 x.low=0.01 x.high=10"


def test_a_switch_that_several_warnings_ask_for_comes_once() -> None:
    found = [Finding(arm, "chance", "Nothing.", "settle=true") for arm in "ab"]
    assert command(given(), found) == "optstudy run study=s study.trials=4 settle=true"


def test_a_command_keeps_what_has_to_be_quoted() -> None:
    line = "optstudy run study=s 'model.hidden=[4]'"
    found = [Finding("a", "budget", "Late.", "study.trials=8")]
    assert command(given(line), found) == f"{line} study.trials=8"


def test_without_a_logged_command_the_study_is_named() -> None:
    found = [Finding("a", "budget", "Late.", "study.trials=8")]
    assert command(given(""), found) == "optstudy run study=s study.trials=8"


def test_where_nothing_is_asked_for_there_is_no_command() -> None:
    assert command(given(), [Finding(None, "unequal", "The arms differ.", "")]) == ""
