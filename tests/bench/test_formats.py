"""`gpt3 bench formats`: fp32 changes nothing, coarser weights change more, prompts are pieces of the texts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from gpt3.bench.generate import make_models
from gpt3.bench.harness import load_model
from gpt3.bench.tradeoffs import BenchFormatsOptions, bench_formats, cut_prompts, formats_table
from gpt3.errors import InputError

TEXTS = ("A text of some length, so that prompts can be cut out of it here and there.", "Another one; shorter.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(make_models(str(tmp_path_factory.mktemp("bench")), "demo", seed=1)["model"])


@pytest.mark.slow  # every format compiles its kernels
def test_formats_are_compared_with_fp32(folder: Path, tmp_path: Path, undocumented) -> None:
    names = []
    for number, text in enumerate(TEXTS):
        names.append(str(tmp_path / f"{number}.txt"))
        Path(names[-1]).write_text(text, encoding="utf-8")
    options = BenchFormatsOptions(names, model=str(folder), prompts=6, prompt_tokens=4, new_tokens=5)
    found = bench_formats(options)
    assert [one["weights"] for one in found] == ["fp32", "fp16", "bf16", "int8", "int4"]
    fp32, fp16, bf16, int8, int4 = found
    assert (fp32["worse"], fp32["unchanged"], fp32["widest_gap"]) == (0.0, 6, 0.0)
    assert fp32["bytes"] > 1.9 * fp16["bytes"]
    assert fp16["bytes"] == bf16["bytes"] > 1.5 * int8["bytes"]
    assert int8["bytes"] > 1.2 * int4["bytes"]
    assert abs(fp16["worse"]) < 1e-4 > 0
    assert all(abs(one["worse"]) < (0.02 if one is int4 else 0.005) and one["unchanged"] <= 6 for one in found)
    assert all(
        one["widest_gap"] < (1.0 if one is int4 else 0.1) for one in found
    )  # random weights differ at near-ties only
    assert "6 of 6" in formats_table(found)
    assert undocumented(fp32) == []
    model = load_model(str(folder), "fp32")
    bits = sum(model.score(text).nats for text in TEXTS) / math.log(2)
    assert fp32["bits_per_byte"] == pytest.approx(bits / sum(len(text.encode()) for text in TEXTS))


def test_prompts_are_pieces_of_the_texts(folder: Path) -> None:
    model = load_model(str(folder), "fp32")
    options = BenchFormatsOptions(["-"], prompts=40, prompt_tokens=5)
    whole = [model.encode_prompt(text) for text in TEXTS]
    pieces = [ids[start : start + 5] for ids in whole for start in range(len(ids) - 4)]
    prompts = cut_prompts(model, TEXTS, options)
    assert len(prompts) == 40
    assert all(prompt in pieces for prompt in prompts)
    with pytest.raises(InputError, match="none of the texts has 90 tokens"):
        cut_prompts(model, TEXTS, BenchFormatsOptions(["-"], prompt_tokens=90, new_tokens=9))
    with pytest.raises(InputError, match="context of 128"):
        cut_prompts(model, TEXTS, BenchFormatsOptions(["-"], prompt_tokens=100))


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        ({}, "held-out"),
        ({"text": ["a"], "formats": ["fp32"]}, "fp16, bf16, int8, int4"),
        ({"text": ["a"], "prompts": 0, "new_tokens": 0}, "--prompts 0.*--new-tokens 0"),
    ],
)
def test_impossible_options_are_refused_by_name(options: dict[str, Any], needle: str) -> None:
    with pytest.raises(InputError, match=needle):
        BenchFormatsOptions(**options)
