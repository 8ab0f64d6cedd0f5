"""What docs/tutorial.md says to type works in its order, on tiny models; so does the notebook of it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpt3.cli.main import main
from gpt3.corpus.wiki import articles, document

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
SERVER = "http://127.0.0.1:8000"
SHORT = "--steps 2 --batch-tokens 64 --validation-tokens 64 --device cpu --workers 1 --context 64"
SMALL = "--layers 1 --width 32 --heads 2 --tokenizer own:300"
TUNED = "--steps 2 --batch 2 --device cpu"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two folders of .txt, and a folder gpt2 with a model of transformers' own random weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from gpt3.tokenizer.train import train_tokenizer

    monkeypatch.chdir(tmp_path)
    texts = [document(article) for article in itertools.islice(articles(), 90)]
    for number, text in enumerate(texts):
        file = tmp_path / ("my-texts" if number < 60 else "more-texts") / f"{number}.txt"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    (tmp_path / "new.txt").write_text("The sea was calm, and the ship was small.", encoding="utf-8")
    tokenizer = train_tokenizer(texts, 300)
    end = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    shape = GPT2Config(vocab_size=len(tokenizer), n_positions=64, n_embd=32, n_layer=1, n_head=2, **end)
    GPT2LMHeadModel(shape).save_pretrained("gpt2")
    tokenizer.save_pretrained("gpt2")
    return tmp_path


def shortened(words: list[str]) -> list[str]:
    """The command with options that make it take a second."""
    if words[0] == "train":
        command = re.sub(r" --minutes \d+", "", shlex.join(words))
        return shlex.split(f"{command} {SHORT} {'' if '--init-from' in words else SMALL}")
    if words[0] == "finetune":
        return [*(word.replace("wiki-qa@2000", "wiki-qa@20") for word in words), *shlex.split(TUNED)]
    return words


@contextlib.contextmanager
def served(folder: str) -> Iterator[Any]:
    """The model on a port of its own."""
    sys.path.append(str(ROOT / "tests" / "serving"))
    from live_server import serving

    import gpt3

    with serving(gpt3.load(folder)) as live:
        yield live


def test_the_page(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("trl")
    url, ran = SERVER, []
    with contextlib.ExitStack() as running:
        for language, code in re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.M | re.S):
            if language == "json":
                Path("talks.jsonl").write_text(code, encoding="utf-8")
            elif language == "python":
                exec(code.replace(SERVER, url), {})
                assert capsys.readouterr().out.strip()
            for line in code.replace("\\\n", " ").splitlines() if language == "sh" else ():
                before, _, command = line.rpartition("| ")
                words = shlex.split(command)
                ran.append(words[:2])
                if words[0] == "curl" and shutil.which("curl"):
                    asked = shlex.split(line.replace(SERVER, url))
                    answer = subprocess.run(
                        [*asked, "-s", "--noproxy", "*"], capture_output=True, text=True, check=True
                    )
                    assert '"role":"assistant"' in answer.stdout
                elif words[:2] == ["gpt3", "serve"]:
                    url = running.enter_context(served(words[2])).url
                elif words[0] == "gpt3":
                    if before:
                        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(shlex.split(before)[1].encode())))
                    assert main(shortened(words[1:])) == 0, (line, capsys.readouterr().err)
                    assert capsys.readouterr().out.strip(), line
    assert [words[1] for words in ran].count("train") == 4
    names = re.findall(r"`runs/([\w-]+)`", PAGE)
    assert sorted({*names, "assistant"}) == sorted(path.name for path in Path("runs").iterdir())


def test_the_python_page(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import gpt3
    from gpt3.finetuning.tuning import FinetuneResult
    from gpt3.inference.generation import Generation
    from gpt3.training.run_folder import RunResult

    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    small = "steps=2, batch_tokens=64, context=64, layers=1, width=32, heads=2, tokenizer='own:300'"
    assert "minutes=5" in code
    exec(code.replace("minutes=5", small), {})
    assert float(capsys.readouterr().out.splitlines()[-1]) > 0
    results = {"train": RunResult, "finetune": FinetuneResult, "generate": Generation, "load": gpt3.LanguageModel}
    for name, kind in results.items():
        (row,) = re.findall(rf"^\| `gpt3\.{name}` .*`{kind.__name__}`: (.*) \|$", page, re.M)
        fields = {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else dir(kind)
        assert set(re.findall(r"`(\w+)`", row)) <= set(fields), name


def test_the_notebook(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="needs .[notebook]")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    pytest.importorskip("trl")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    notebook = nbformat.read(ROOT / "examples" / "tutorial.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # none is committed
    changes = {"MINUTES = 10": "MINUTES = 0.02", "QUESTIONS = 2000": "QUESTIONS = 20", "PORT = 8000": f"PORT = {port}"}
    for cell, (written, changed) in itertools.product(notebook.cells, changes.items()):
        cell.source = cell.source.replace(written, changed)
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": home}}
    ).execute()
    shown = {cell.id: "".join(str(output) for output in cell.outputs) for cell in notebook.cells if "outputs" in cell}
    assert shown["code-3"].count("<svg") == 1  # the live curve, in its place
    assert any("RunResult(" in text for text in shown.values())
    assert not any("IProgress" in text for text in shown.values())  # a warning of tqdm that nobody needs
    assert any(str(port) in text for text in shown.values())
