"""What a user probably meant: Hydra's and OmegaConf's errors as one line.

A line names key and value, what is allowed, and for a YAML of the user's own its file and line.
"""

import difflib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException
from yaml import MarkedYAMLError

from pipeline.config import Config, DataConfig, StudyConfig, TrackingConfig, TrainerConfig
from pipeline.errors import UserError, did_you_mean
from pipeline.options import conf_dir, options, own_dir, settings, yaml_of

SECTIONS = {
    "data": DataConfig,
    "trainer": TrainerConfig,
    "tracking": TrackingConfig,
    "study": StudyConfig,
}
BUILT = ("data", "model", "optimizer", "schedule", "sampler", "pruner")  # from their `build`
WANTED = {  # by what OmegaConf says of a value of the wrong type, in a user's words
    r"typing\.List\[str\]": "a list of text, [a, b]",
    r"not a ListConfig": "a list, [a, b]",
    r"<class 'int'>|to Integer": "a whole number",
    r"<class 'float'>|to Float": "a number",
    r"<class 'bool'>|valid bool": "true or false",
    r"DictConfig with ListConfig": "keys with values, {KEY: VALUE}",
}


@contextmanager
def config_errors(overrides: Sequence[str]) -> Iterator[None]:
    """Turn what Hydra, OmegaConf and YAML raise into one UserError line."""
    try:
        yield
    except UserError:
        raise
    except MissingConfigException as error:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        raise UserError(_no_option(group, name)) from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{_short(mark.name)}, line {mark.line + 1}: " if mark else ""
        raise UserError(f"{where}{error.problem or error.context}; not valid YAML") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{_short(_no_text())}: not UTF-8 text; allowed is a YAML that is"
        ) from error
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(_one_line(error, overrides)) from error


def no_such_key(override: str) -> str:
    """The line for a key that nothing reads, and where what was meant would be set."""
    key, _, value = override.lstrip("+~").partition("=")
    section, _, name = key.rpartition(".")
    group = section.partition(".")[0]
    if near := difflib.get_close_matches(name, _siblings(section), n=2):
        meant = " or ".join(f"{section}.{n}" if section else n for n in near)
        return f"{override}: no such key (did you mean {meant}?)"
    if having := [o for o in options(section) if name in settings(section, o)]:
        return f"{override}: no such key here; {section}={', '.join(having)} has it"
    if section in BUILT and not override.startswith("+"):
        return (
            f"{override}: no such key; what {section} builds takes +{section}.build.{name}={value}"
        )
    if section in SECTIONS:
        return f"{override}: no such key; {section} has {', '.join(sorted(_siblings(section)))}"
    elsewhere = {f"{s}.{name}" for s in (*SECTIONS, *BUILT) if name in _siblings(s)}
    if elsewhere:
        return f"{override}: no such key (did you mean {' or '.join(sorted(elsewhere))}?)"
    return f"{override}: no such key{did_you_mean(group or name, Config.__dataclass_fields__)}"


def check_recipes(composed: object, overrides: Sequence[str]) -> None:
    """Raise UserError for a chosen YAML that sets nothing to build, as without its header."""
    for group in BUILT:
        section = getattr(composed, group, None) or {}
        if not {"build", "design"} & set(section):
            chosen = dict(o.split("=", 1) for o in overrides if "=" in o).get(group, "?")
            header = group in section  # `optimizer.optimizer`: the YAML was put under its group
            first = "`# @package _global_` as its first line" if header else f"{group}.build"
            path = _short(yaml_of(group, chosen) or f"{group}={chosen}")
            raise UserError(f"{path}: sets no {group}.build; allowed is a YAML with {first}")


def _siblings(section: str) -> set[str]:
    if not section:
        return set(Config.__dataclass_fields__)
    typed = {f.name for f in fields(SECTIONS[section])} if section in SECTIONS else set()
    if section in BUILT:
        typed |= set.intersection(*filter(None, (settings(section, o) for o in options(section))))
    return typed - {"build"}


def _no_option(group: str, name: str) -> str:
    known = options(group)
    near = did_you_mean(name, known)
    return f"{group}={name}: no such option{near}; allowed: {', '.join(known)}"


def _one_line(error: Exception, overrides: Sequence[str]) -> str:
    cause = error.__cause__ if error.__cause__ is not None else error
    key = getattr(cause, "full_key", None) or getattr(cause, "key", None)
    lines = str(cause).splitlines()
    first = " ".join(lines[: 1 + lines[0].endswith(":")])  # "…while composing config:" says nothing
    if in_yaml := re.match(r"In '(\w+)/([^']+)': \w+ raised while composing config: (.*)", first):
        group, option, first = in_yaml.groups()
        said = [line.partition("full_key:")[2].strip() for line in lines if "full_key:" in line]
        key = next(iter(said), key)
        return _in_yaml(group, option, str(key or ""), first)
    given = next((o for o in overrides if re.match(rf"[+~]*{re.escape(str(key))}[.=]", o)), None)
    if isinstance(cause, ConfigKeyError | AttributeError) and given is not None and key is not None:
        return no_such_key(given)
    if isinstance(cause, MissingMandatoryValue):
        return f"{key}: not set; allowed is a YAML, or an override, that sets it"
    if given is not None and (wanted := _wanted(first)):
        return f"{given}: allowed is {wanted}"
    return f"{given or key}: {first}" if given or key else first


def _wanted(said: str) -> str:
    """What OmegaConf would have had instead, or nothing."""
    if one_of := re.search(r"expected one of \[(.*)\]", said):
        return one_of[1]
    return next((words for hint, words in WANTED.items() if re.search(hint, said)), "")


def _no_text() -> Path | str:
    """The YAML of the user's own that can't be read."""
    for path in sorted((own_dir() or conf_dir()).rglob("*.yaml")):
        try:
            path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            return path
    return "conf"


def _in_yaml(group: str, option: str, key: str, said: str) -> str:
    """`conf/study/mine.yaml, line 3: arm: no such key (did you mean arms?)`."""
    path = yaml_of(group, option)
    # of lists in a list OmegaConf names the place alone; contrasts are the only ones
    name = "contrasts" if key.isdigit() else key.removeprefix(f"{group}.")
    where = _short(path) if path else f"{group}={option}"
    text = path.read_text(encoding="utf-8").splitlines() if path else []
    last = re.escape(name.rpartition(".")[2].partition("[")[0])
    number = next((i for i, line in enumerate(text, 1) if re.match(rf"\s*{last}\s*:", line)), None)
    where += f", line {number}" if number and name else ""
    if re.match(r"Key '.*' not in", said):
        names = _siblings(group)
        near = did_you_mean(name, names) or f"; allowed: {', '.join(sorted(names))}"
        return f"{where}: {name}: no such key{near}"
    if wanted := _wanted(said):
        value = re.search(r"[Vv]alue '(.*?)'", said)
        shown = f"{name}={value[1]}" if value else name or "a list"
        return f"{where}: {shown}: allowed is {wanted}"
    return f"{where}: {name}: {said}" if name else f"{where}: {said}"


def _short(path: Path | str) -> str:
    """A path as the user would write it: from the working directory where it lies below that."""
    whole = Path(path)
    return str(whole.relative_to(Path.cwd()) if whole.is_relative_to(Path.cwd()) else whole)
