"""What is said before a run begins: numbers counted here, and choices that silence the warning."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gpt3.corpus.options import PrepareOptions
from gpt3.corpus.prepare import prepare
from gpt3.ladder.presets import PRESETS
from gpt3.training.advice import warnings
from gpt3.training.data import open_data
from gpt3.training.options import TrainOptions
from gpt3.training.plan import make_plan, shape_of

pytestmark = pytest.mark.usefixtures("one_gpt2")


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function of the documents' words and the run's options that gives the warnings."""
    monkeypatch.setenv("GPT3_CACHE", str(tmp_path / "cache"))

    def warn(words: list[int], **changes: object) -> list[str]:
        path = tmp_path / f"{len(words)}-{words[0]}.jsonl"
        rows = [json.dumps({"text": f"{n}" + " word" * (count - 2)}) for n, count in enumerate(words)]
        path.write_text("\n".join(rows), encoding="utf-8")
        values = {"data": [str(path)], "tokenizer": "gpt2", "workers": 1, "validation_fraction": 0.1}
        options = TrainOptions(**(values | changes))  # type: ignore[arg-type]
        shape, data = shape_of(options), open_data(options, shape_of(options))
        return warnings(make_plan(options, data.tokens), options, shape, data)

    return warn


def test_a_model_too_large_for_its_data_is_told_with_a_better_one(said) -> None:
    [text] = said([1100] * 200, model="17M")
    number = re.match(r"warning: ([\d.]+) tokens per parameter \(([\d,]+) tokens, 17,867,008 parameters\)", text)
    assert number
    tokens = int(number[2].replace(",", ""))
    assert float(number[1]) == pytest.approx(tokens / 17_867_008, rel=0.05)
    assert "try --model demo" in text
    assert said([1100] * 200, model="17M", tokens="20M")[0].startswith("warning: the run reads its")  # 20M is enough
    [text] = said([2100] * 200, model="125M", tokens="30M", data=["wiki"], context=256)[:1]
    assert "try --model 17M" in text  # the largest that has a token per parameter
    assert PRESETS["17M"].parameters < 30e6 < PRESETS["125M"].parameters
    assert not said([1100] * 200, steps=10)  # the demo is the smallest there is


def test_text_read_too_often_is_told(said) -> None:
    assert not said([200] * 200, tokens="500K")
    [text] = said([200] * 200, tokens="2M")
    assert re.search(r"its 3[5-7],\d+ tokens 5\d times", text)


def test_a_context_longer_than_the_documents_is_told(said) -> None:
    assert not said([100] * 200, context=128)
    [text] = said([50] * 200, context=128)
    assert "--context 128 is longer than the documents (99% have at most 50 tokens)" in text
    assert "--context 64 is enough" in text
    assert not said([50] * 200, context=64)
    assert not said([50] * 150 + [120] * 50, context=128)  # some are long


def test_too_little_held_out_is_told_with_what_would_do(said) -> None:
    [text] = said([100] * 400, validation_fraction=1e-9)
    assert text.startswith("warning: 1 of 400 documents held out (100 tokens): the validation loss has no 95% interval")
    assert "--validation-fraction 0.08 holds out about 32" in text
    assert not said([100] * 400, validation_fraction=0.08)
    assert not said([100] * 400, validation_fraction=0)
    few = said([100] * 20, validation_fraction=1e-9)
    assert "--val NAME=SOURCE" in few[0]


def test_a_share_held_out_of_shards_that_were_split_before_is_told(said, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    said([100] * 400)
    prepare(
        PrepareOptions(
            [str(tmp_path / "400-100.jsonl")], str(shards), tokenizer="gpt2", validation_fraction=0.1, workers=1
        )
    )
    [text] = said([100] * 400, data=[str(shards)], validation_fraction=0)
    assert text.startswith(
        f"warning: --validation-fraction 0 is ignored: {shards} was split at 0.1 when it was prepared; "
    )
    assert not said([100] * 400, data=[str(shards)], validation_fraction=0.1)
    assert not said([100] * 400, data=[str(shards)], validation_fraction=TrainOptions.validation_fraction)


def test_the_demo_of_wiki_hears_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GPT3_CACHE", str(tmp_path / "cache"))
    options = TrainOptions(tokens="3M", workers=1)
    data, shape = open_data(options, shape_of(options)), shape_of(options)
    assert warnings(make_plan(options, data.tokens), options, shape, data) == []
