"""`gpt3 completion`: the shells themselves complete with what it prints."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpt3.cli.main import COMMANDS, main

CASES = [
    ("gpt3 trai", ["train"]),
    ("gpt3 bench con", ["contexts"]),
    ("gpt3 runs re", ["rename", "remove"]),
    ("gpt3 train --optimizer ", ["adamw", "muon", "lion"]),
    ("gpt3 train --spike-w", ["--spike-window"]),
    ("gpt3 bench contexts --cont", ["--contexts"]),
    ("gpt3 export --format gp", ["gpt2", "gpt-neo"]),
    ("gpt3 generate --prompt-file nov", ["novel one.txt"]),
]


def script(shell: str, capsys: pytest.CaptureFixture[str], folder: Path) -> Path:
    assert main(["completion", shell]) == 0
    path = folder / f"completion.{shell}"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    (folder / "novel one.txt").touch()
    return path


def shell(name: str, code: str, folder: Path, *words: str) -> list[str]:
    path = shutil.which(name) or pytest.skip(f"needs {name}")
    done = subprocess.run([path, "-c", code, *words], capture_output=True, encoding="utf-8", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


BASH = """
. "$0"
complete -p gpt3 | grep -q -- "-o default -F _gpt3" || exit 1
for line in "$@"; do
    COMP_WORDS=(${line//=/ = }); [[ $line == *" " ]] && COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _gpt3 gpt3 "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
    ((${#COMPREPLY[@]})) || mapfile -t COMPREPLY < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")  # -o default
    (IFS=,; echo "${COMPREPLY[*]}")
done
"""


def test_bash(tmp_path, capsys):
    """Also: ``--format=gp``, which bash cuts into three words; and every option of every command."""
    path = script("bash", capsys, tmp_path)
    cases = [*CASES, ("gpt3 export --format=gp", ["gpt2", "gpt-neo"])]
    lines = shell("bash", BASH, tmp_path, path.name, *(line for line, _ in cases))
    assert [line.split(",") for line in lines] == [expected for _, expected in cases]
    lines = shell("bash", BASH, tmp_path, path.name, *(f"gpt3 {name} --" for name in COMMANDS))
    for found, command in zip(lines, COMMANDS.values(), strict=True):
        options = command.load()[0]
        assert {f"--{field.replace('_', '-')}" for field in options.__dataclass_fields__} <= set(found.split(","))


def test_fish(tmp_path, capsys):
    path = script("fish", capsys, tmp_path)
    for line, expected in CASES:
        found = shell("fish", f"source {path.name}; complete -C '{line}'", tmp_path)
        assert sorted(each.partition("\t")[0] for each in found) == sorted(expected)


def test_zsh_reads_the_script(tmp_path, capsys):
    path = script("zsh", capsys, tmp_path)
    code = f"autoload -U compinit; compinit -u -d {tmp_path}/dump; source {path.name}; print ${{_comps[gpt3]}}"
    assert shell("zsh", code, tmp_path) == ["_bash_complete -o default -F _gpt3"]


def test_other_shells_are_refused(capsys):
    assert main(["completion", "tcsh"]) == 2
    assert capsys.readouterr().err == "gpt3 completion: --shell tcsh must be one of bash, zsh, fish\n"


def test_the_lines_of_the_page(tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "machine.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"^```bash\n(.*?)^```", page, flags=re.M | re.S)
    (tmp_path / ".config/fish/completions").mkdir(parents=True)
    shell("bash", f'HOME=$PWD; gpt3() {{ "{sys.executable}" -m gpt3 "$@"; }}\n{lines}', tmp_path)
    assert shell("bash", "HOME=$PWD; . ~/.bashrc; complete -p gpt3", tmp_path) == ["complete -o default -F _gpt3 gpt3"]
    assert "complete -c gpt3" in (tmp_path / ".config/fish/completions/gpt3.fish").read_text(encoding="utf-8")
