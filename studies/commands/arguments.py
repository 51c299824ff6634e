"""How verbs that look at a study read their arguments."""

import re

from pipeline.compose import compose, typed
from pipeline.config import Config
from pipeline.errors import UserError


def of_study(arguments: list[str]) -> tuple[str | None, Config]:
    """The study named by `study=NAME`, if one is, and the configuration of everything else.

    NAME is what was run, under whatever name: there need be no YAML of it.
    """
    named = [argument for argument in arguments if argument.startswith("study=")]
    rest = [argument for argument in arguments if argument not in named]
    for name in (argument for argument in rest if re.fullmatch(r"\w[\w.+-]*", argument)):
        raise UserError(f"{name}: allowed is an override, KEY=VALUE (did you mean study={name}?)")
    for given in (argument for argument in rest if argument.startswith("study.")):
        key, _, value = given.partition("=")
        near = f" (did you mean study={value}?)" if key == "study.name" else ""
        raise UserError(f"{given}: allowed is study=NAME, the name it was run under{near}")
    return (named[-1].removeprefix("study=") if named else None), typed(compose(rest))


def needs_study(verb: str, arguments: list[str]) -> tuple[str, Config]:
    """The same for a verb that can't do without; raises UserError."""
    name, config = of_study(arguments)
    if not name:
        raise UserError(f"study: not given; optstudy {verb} study=NAME")
    return name, config
