"""The model that comes with the package: found before any training, whole, small, and of use."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import safe_open

from gpt3.cli.main import main
from gpt3.errors import InputError
from gpt3.inference.language_model import load
from gpt3.model_folder import locate
from gpt3.model_folder.known import did_you_mean
from gpt3.serving.host import load_models
from gpt3.serving.options import ServeOptions

MEGABYTES = 12


@pytest.fixture(autouse=True)
def nothing_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_it_is_small_and_sixteen_bits_wide() -> None:
    assert sum(file.stat().st_size for file in locate.STARTER.iterdir()) <= MEGABYTES * 1e6
    with safe_open(locate.STARTER / "model.safetensors", "numpy") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"BF16"}  # noqa: SIM118


def test_what_stands_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert locate.locate(None, or_starter=True) == locate.STARTER
    assert capsys.readouterr().err.count("starter model") == 1
    assert locate.locate("starter") == locate.STARTER
    assert "starter" in did_you_mean("startr", ["starter"])
    with pytest.raises(InputError, match="train one first"):
        locate.locate(None)  # to score, export or publish, a model must be meant
    for part in (locate.CONFIG, "model.safetensors", "tokenizer.json"):
        target = tmp_path / "runs" / "mine" / "model" / part
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((locate.STARTER / part).read_bytes())
    assert locate.locate(None, or_starter=True) == Path("runs/mine/model")
    Path("runs/mine").rename("runs/starter")
    assert locate.locate("starter") == Path("runs/starter/model")  # a run of that name comes first
    assert "starter model" not in capsys.readouterr().err


def test_generate_before_any_training(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "The river", "--max-new-tokens", "12", "--seed", "1"]) == 0
    written = capsys.readouterr()
    assert len(written.out.split()) > 2
    assert "starter model" in written.err


def test_a_server_begins_with_it() -> None:
    assert list(load_models(ServeOptions())) == ["starter"]


def test_it_has_learned_english() -> None:
    """A sentence of 1813, which its books do not have, takes less than a third of what equally likely bytes would."""
    text = "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife."
    model = load("starter")
    assert len(model.tokenizer.encode(text)) < len(text) / 2.5
    assert 1 < model.score(text).bits_per_byte < 2.5


def test_training_from_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("texts.txt").write_text("The lighthouse stood upon the rock. " * 400, encoding="utf-8")
    words = (
        "train --init-from starter --data texts.txt --steps 2 --batch-tokens 64 --dtype fp32 --context 32 --threads 1"
    )
    assert main([*words.split(), "--validation-fraction", "0", "--out", "more"]) == 0
    assert locate.locate("more") == Path("more/model")
    assert "cc-by-sa-4.0" in (tmp_path / "more" / "model" / "README.md").read_text(encoding="utf-8")
