"""optstudy completion SHELL

Print what makes Tab complete verbs, config groups, their options and the names of studies, for
bash, zsh or fish.

  eval "$(optstudy completion bash)"      in ~/.bashrc
  eval "$(optstudy completion zsh)"       in ~/.zshrc, after compinit
  optstudy completion fish | source       in ~/.config/fish/config.fish
"""

from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import UserError
from pipeline.options import conf_dir, options

# Every shell hands over the words so far, the last the one under the cursor, and shows the lines.
SCRIPTS = {
    "bash": """\
_optstudy() {
    local IFS=$'\\n' line="${COMP_LINE:0:COMP_POINT}"
    local word="${line##* }" words=(${line// /$'\\n'})
    [[ -z $word ]] && words+=("")
    COMPREPLY=($(optstudy completion words -- "${words[@]}" 2>/dev/null))
    [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
    [[ $word == *=* ]] && COMPREPLY=("${COMPREPLY[@]#*=}")  # bash breaks words at =
    return 0
}
complete -F _optstudy optstudy""",
    "zsh": """\
_optstudy() {
    local -a found
    found=(${(f)"$(optstudy completion words -- ${words[1,CURRENT]} 2>/dev/null)"})
    compadd -S '' -- $found
}
compdef _optstudy optstudy""",
    "fish": """\
complete -c optstudy -f -a '(optstudy completion words -- (commandline -opc) (commandline -ct))'""",
}


def main(arguments: list[str]) -> None:
    """Print a shell's script, or for the script the words that may stand at the cursor."""
    if arguments[:1] == ["words"]:
        print("\n".join(words(arguments[arguments.index("--") + 1 :])))
        return
    if len(arguments) != 1 or arguments[0] not in SCRIPTS:
        given = " ".join(arguments) or "not given"
        raise UserError(f"SHELL: {given}; allowed is {', '.join(SCRIPTS)}")
    print(SCRIPTS[arguments[0]])


def words(line: Sequence[str], folder: Path = Path("mlruns")) -> list[str]:
    """What may stand where the last word of a command line is being written."""
    from studies.cli import VERBS

    if len(line) < 2:
        return []
    verb, word = line[1], line[-1]
    if len(line) == 2:
        candidates = list(VERBS)
    elif word.startswith("study=") and verb not in ("run",):
        run = folder.glob("optuna/*.journal")  # studies that were run, under whatever name
        candidates = [f"study={journal.stem}" for journal in run]
    elif "=" in word:
        group = word.partition("=")[0]
        candidates = [f"{group}={option}" for option in options(group)]
    else:
        candidates = [f"{group.name}=" for group in conf_dir().iterdir() if group.is_dir()]
    return sorted(c for c in candidates if c.startswith(word))
