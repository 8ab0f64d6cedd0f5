"""What docs/import.md says to type works as written."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import torch
from foreign_models import gpt_neo, opt, saved
from safetensors.torch import load_file

from gpt3.cli import main as cli
from gpt3.cli.formats import ImportOptions
from gpt3.cli.info import InfoOptions
from gpt3.model_folder.families import FAMILIES
from gpt3.tokenizer.train import train_tokenizer

PAGE = Path(__file__).parents[2] / "docs" / "import.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the two checkpoints that the page speaks of."""
    tokenizer = train_tokenizer(["The sea was calm and the ships on the sea were small. " * 20], 290)
    end = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    saved(gpt_neo(vocab_size=len(tokenizer), **end), tmp_path / "path" / "to" / "gpt-neo")
    tokenizer.save_pretrained(tmp_path / "path" / "to" / "gpt-neo")
    folder = saved(opt(), tmp_path / "path" / "to" / "opt")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow  # generating compiles the engine's kernels, once a machine
def test_the_commands(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (commands,) = blocks("sh")
    for line in commands.strip().splitlines():
        words = shlex.split(line, comments=True)
        target = words[words.index(">") + 1] if ">" in words else None
        words = words[1 : words.index(">")] if target else words[1:]
        assert cli.main(words) == 0, line
        said = capsys.readouterr().out
        assert said
        if target:
            Path(target).write_text(said, encoding="utf-8")
    assert json.loads(Path("opt.json").read_text(encoding="utf-8"))["family"] == "gpt3"


def test_the_python_example(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python")
    exec(compile(code, str(PAGE), "exec"), {})
    assert capsys.readouterr().out.startswith("['full_attention', 'sliding_attention'] 8 ")


def test_the_table_is_of_the_families_that_are_known() -> None:
    """Each row is the first paragraph of the family's module."""
    types: dict[str, list[str]] = {}
    for model_type, module in FAMILIES.items():
        types.setdefault(module, []).append(f"`{model_type}`")
    said = {module: (import_module(module).__doc__ or "").partition("\n\n")[0] for module in types}
    rows = [f"| {', '.join(names)} | {' '.join(said[module].split())} |" for module, names in types.items()]
    assert "\n".join(rows) in PAGE.read_text(encoding="utf-8")


def test_every_option_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    names = {field.name for options in (ImportOptions, InfoOptions) for field in dataclasses.fields(options)}
    positional = {"source", "path"}
    assert {name for name in names - positional if f"--{name.replace('_', '-')}" not in page} == set()
