"""docs/from-gpt3-dev.md: every command has options of ours, and those for its checkpoints run on a small one of that kind."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import gpt3dev_reference
import pytest
from safetensors.numpy import save_file

from gpt3.cli.main import COMMANDS, main
from gpt3.cli.parsing import parse
from gpt3.tokenizer.train import train_tokenizer

PAGE = (Path(__file__).parents[2] / "docs" / "from-gpt3-dev.md").read_text(encoding="utf-8")
LINES = [line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.M | re.S) for line in block.splitlines()]


@pytest.mark.parametrize("line", LINES)
def test_each_command_has_these_options(line: str) -> None:
    words = shlex.split(line)[1:]
    command = COMMANDS[words[0]]
    options, _ = command.load()
    assert parse(options, words[1:], command=words[0], positional=command.positional) is not None


def test_options_in_the_tables_exist() -> None:
    known = {"--run-hellaswag", "--run-lambada", "--run-mmlu"}  # theirs, in the first column
    ours = {f"--{name.replace('_', '-')}" for each in COMMANDS.values() for name in each.load()[0].__dataclass_fields__}
    for row in re.findall(r"^\|[^|]*\|([^|]*)\|", PAGE, flags=re.M):
        assert set(re.findall(r"`(--[\w-]+)", row)) <= ours - known, row


def test_its_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder of the checkpoint's hub id, of version 1 and the size of a toy, takes its place."""
    pytest.importorskip("gguf")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "k050506koch" / "GPT3-dev-125m-0612"
    tokenizer = train_tokenizer(["He is a doctor. His main goal is to be a doctor. " * 20], 280)
    raw = {"model_type": "custom_gpt2", "vocab_size": len(tokenizer), "n_positions": 256, "n_embd": 32, "n_layer": 2,
           "n_head": 4, "bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}  # fmt: skip
    tokenizer.save_pretrained(folder)
    save_file(gpt3dev_reference.random_checkpoint(raw), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(raw))
    for line in LINES:
        words = shlex.split(line)[1:]
        if words[0] in ("info", "generate", "import", "export"):
            assert main(words) == 0, (line, capsys.readouterr().err)
    assert (tmp_path / "gpt3-125m.gguf").is_file()
