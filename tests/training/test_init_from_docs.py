"""The commands of docs/init-from.md work as written, on tiny models and for a few steps."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from gpt3.cli import main as cli
from gpt3.tokenizer.train import train_tokenizer
from gpt3.training.continuing import RULES
from gpt3.training.run import train

PAGE = Path(__file__).parents[2] / "docs" / "init-from.md"
FEW = {
    "--steps": "2",
    "--context": "32",
    "--batch-tokens": "64",
    "--validation-tokens": "64",
    "--device": "cpu",
    "--workers": "1",
}


@pytest.fixture
def home(tiny, tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with runs/demo, which has a checkpoint at step 500, a folder gpt2 and some texts."""
    monkeypatch.chdir(tmp_path)
    lines = text_file.read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "my-texts").mkdir()
    (tmp_path / "my-texts" / "texts.jsonl").write_text("".join(lines[:40]), encoding="utf-8")
    (tmp_path / "old.jsonl").write_text("".join(lines[40:]), encoding="utf-8")
    train(tiny(out="runs/demo", steps=4, keep_checkpoints=9))
    shutil.copytree("runs/demo/checkpoints/step-2", "runs/demo/checkpoints/step-500")
    tokenizer = train_tokenizer(["The ships on the sea were small and the captain looked at the sea. " * 20], 300)
    end = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tokenizer), n_positions=64, n_embd=32, n_layer=2, n_head=2, **end)
    ).save_pretrained("gpt2")
    tokenizer.save_pretrained("gpt2")
    return tmp_path


def test_the_commands(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (commands,) = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    lines = [shlex.split(line, comments=True)[1:] for line in commands.splitlines()]
    assert len(lines) == 5
    for words in lines:
        words = ["old.jsonl=5%" if word == "wiki=5%" else word for word in words]  # the embedded text takes a while
        few = [word for pair in FEW.items() for word in pair] if words[0] == "train" else []
        capsys.readouterr()
        assert cli.main([*words, *few]) == 0, words
        assert capsys.readouterr().out
    names = ["demo", "my-texts-from-demo", "my-texts-from-demo-2", "my-texts-from-gpt2"]
    assert sorted(path.name for path in Path("runs").iterdir()) == names
    code, _ = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert "init_from=" in code
    compile(code, str(PAGE), "exec")


def test_the_transcript(home: Path, text_file: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    _, code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for number, line in enumerate(text_file.read_text(encoding="utf-8").splitlines()):
        Path("my-texts", f"{number}.txt").write_text(json.loads(line)["text"], encoding="utf-8")
    exec(code.replace("1000", "300"), {})
    (command,) = re.findall(r"\$ gpt3 (train .*) --steps 1500 --batch-tokens 512", page)
    assert cli.main([*shlex.split(command), *(word for pair in FEW.items() for word in pair)]) == 0
    assert Path("runs/my-texts-from-my-gpt2/model").is_dir()


def test_the_table_of_what_to_do(home: Path, tiny) -> None:
    commands = re.findall(r"\| `gpt3 (train [^`]*)`", PAGE.read_text(encoding="utf-8"))
    assert len(commands) == 3
    shutil.rmtree("runs/demo/checkpoints/step-500")
    train(tiny(out="runs/17M", steps=4, recipe="paper"))  # as 17M's batches have it
    for command, steps in zip(commands, ("8", "9", "2"), strict=True):
        words = shlex.split(re.sub(r" --steps \d+", "", command).replace("step-500", "step-7"))
        assert cli.main([*words, "--steps", steps]) == 0, command


def test_the_rule_on_the_page_is_the_one_of_the_plan() -> None:
    page = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert "half of Table 2.1's at the model's size" in page
    assert RULES["learning rate"].startswith("half of Table 2.1's")
    assert "5% where old and new text are alike, and 25% where they are not" in page
    assert "5% of the old text where the new is like it, 25% where it is not" in RULES["replay"]
