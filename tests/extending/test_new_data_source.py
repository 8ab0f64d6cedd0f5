"""A new source of data is one file and one line of registration, as CONTRIBUTING.md shows."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from gpt3.cli import main as cli
from gpt3.corpus import sources
from gpt3.corpus.shards import documents, open_shards
from gpt3.corpus.sources import SOURCES, open_rows, open_sources
from gpt3.errors import InputError

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"


@pytest.fixture(autouse=True)
def sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's source, registered by the page's line."""
    page = PAGE.read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(\"\"\"Sums.*?)^```", page, flags=re.M | re.S)
    ((name, kind),) = re.findall(r'^    "(sums)": (Kind.*),$', page, flags=re.M)
    module = ModuleType("gpt3.corpus.sums")
    monkeypatch.setitem(sys.modules, "gpt3.corpus.sums", module)
    exec(code, vars(module))
    monkeypatch.setitem(SOURCES, name, eval(kind, {"Kind": sources.Kind}))
    monkeypatch.setenv("GPT3_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def test_it_is_prepared() -> None:
    assert cli.main(["prepare", "--data", "sums:300", "--validation-fraction", "0", "--out", "out"]) == 0
    folder = open_shards("out", verify=True)
    backend = folder.tokenizer().backend_tokenizer
    texts = [backend.decode(ids.tolist()) for ids in documents(folder.split("train"))]
    assert texts == [f"{n} plus {n} is {2 * n}." for n in range(300)]
    assert folder.manifest.sources[0]["licence"] == "CC0"


def test_it_trains_a_tokenizer_and_a_model() -> None:
    assert cli.main(["tokenizer", "train", "--data", "sums", "--vocab-size", "280", "--out", "own"]) == 0
    words = "train --data sums --tokenizer own --layers 1 --width 32 --heads 2 --context 16 --batch-tokens 64 --steps 2"
    words += " --device cpu --no-compile --out run"
    assert cli.main(words.split()) == 0
    assert Path("run/model/model.safetensors").is_file()


def test_its_rows_are_conversations() -> None:
    from gpt3.finetuning.conversations import to_conversation

    rows = list(open_rows("sums:3"))
    assert [place for place, _ in rows] == ["sums:3: row 0", "sums:3: row 1", "sums:3: row 2"]
    assert [to_conversation(row).messages[1].content for _, row in rows] == ["0.", "2.", "4."]


def test_help_and_errors_know_it(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("prepare", "train"):
        assert cli.main([command, "--help"]) == 0
        assert "hf:OWNER/NAME, sums, a shard folder, files" in " ".join(capsys.readouterr().out.split())
    for reader in (open_sources, lambda name: list(open_rows(name))):
        with pytest.raises(InputError, match=r"no source has this name; known sources are .*sums\[:COUNT\]"):
            reader("sms:300")
