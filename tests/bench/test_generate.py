"""The generation benchmark: everybody writes the same texts from the same weights, and shares and ratios are what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpt3.bench import generators
from gpt3.bench.generate import Result, _result, common_share, make_prompts, matrix_values, step_bytes, table
from gpt3.bench.generate_options import BenchGenerateOptions, Contender
from gpt3.bench.options import Case
from gpt3.errors import InputError
from gpt3.ladder.presets import preset

CASE = Case("demo", 2, 6)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("bench")
    places = {"model": str(folder / "model"), "ggufs": str(folder)}
    made = generators.make_models(places | {"preset": "demo", "seed": 1, "gguf_formats": ["fp32"]})
    assert made["parameters"] == preset("demo").parameters
    return places


def written(folders: dict[str, str], who: str, **changes: Any) -> dict[str, Any]:
    request = folders | {
        "name": who, "weights": "fp32", "prompts": make_prompts(1, CASE), "new_tokens": 9, "sampled": False, "seed": 1,
        "threads": 1,
    }  # fmt: skip
    return generators.timed_writing(request | changes)


def test_everybody_writes_the_same_texts(folders: dict[str, str]) -> None:
    """Greedy texts within the band, where the dense, tanh-GELU twin of llama.cpp is close enough for these weights."""
    answers = {who: written(folders, who) for who in ("gpt3", "transformers", "transformers-static")}
    for answer in answers.values():
        assert [len(text) for text in answer["tokens"]] == [9, 9]
        assert answer["tokens"] == answers["gpt3"]["tokens"]
        assert 0 < answer["first"] < answer["total"]


def test_llama_cpp_writes_them_too(folders: dict[str, str]) -> None:
    pytest.importorskip("xllamacpp")
    assert written(folders, "llama.cpp")["tokens"] == written(folders, "gpt3")["tokens"]


def test_a_nanogpt_checkout_is_given_the_weights(folders: dict[str, str], tmp_path: Path) -> None:
    """Its interface, as far as the benchmark needs it, in a process of its own; the tied table alone already ranks ids."""
    (tmp_path / "model.py").write_text(
        "import torch\n"
        "class GPTConfig:\n    def __init__(self, **shape): self.__dict__.update(shape)\n"
        "class GPT(torch.nn.Module):\n"
        "    def __init__(self, c):\n        super().__init__()\n"
        "        self.transformer = torch.nn.ModuleDict({'wte': torch.nn.Embedding(c.vocab_size, c.n_embd)})\n"
        "    def forward(self, x):\n        return self.transformer.wte(x) @ self.transformer.wte.weight.t()\n"
        "    @torch.no_grad()\n    def generate(self, x, count, temperature=1.0, top_k=None):\n"
        "        for _ in range(count):\n"
        "            x = torch.cat([x, self(x)[:, -1].argmax(-1, keepdim=True)], 1)\n"
        "        return x\n"
    )
    request = folders | {
        "name": "nanogpt", "weights": "fp32", "prompts": [[5, 7]], "new_tokens": 3, "sampled": False, "seed": 1,
        "threads": 1, "nanogpt": str(tmp_path),
    }  # fmt: skip
    (tmp_path / "request.json").write_text(json.dumps(request))
    command = [sys.executable, generators.__file__, str(tmp_path / "request.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1])["tokens"] == [[7, 7, 7]]  # an embedding is most like itself


def test_sampled_texts_go_on_past_the_end_of_text(folders: dict[str, str]) -> None:
    first, again = (written(folders, "gpt3", sampled=True, seed=3)["tokens"] for _ in range(2))
    other = written(folders, "gpt3", sampled=True, seed=4)["tokens"]
    assert first == again != other


def test_the_bytes_of_a_step_are_the_engine_s() -> None:
    """All the engine holds but the positions, of which one row is read, and the scales of int8."""
    import torch

    from gpt3.inference.engines import make_engine
    from gpt3.model import GPT3ForCausalLM

    shape = preset("demo")
    with torch.device("cpu"):
        model = GPT3ForCausalLM(shape.config())
    positions = 4 * shape.context * shape.d_model
    for weights in ("fp32", "fp16", "bf16", "int8"):
        held = make_engine(model, weights).nbytes - positions
        assert step_bytes(shape, Contender("gpt3", weights)) == pytest.approx(held, rel=0.03)
    plain = matrix_values(shape)
    assert (
        step_bytes(shape, Contender("llama.cpp", "int8")) - step_bytes(shape, Contender("gpt3", "int8")) == plain / 16
    )


def answers_of(*seconds: float) -> list[dict[str, Any]]:
    return [
        {"tokens": [[1, 2, 3], [4, 5, 6]], "first": 1.0, "total": 1.0 + s, "cpu_seconds": s, "peak_bytes": 5}
        for s in seconds
    ]


def test_a_result_is_the_median_round_against_the_measured_roofs() -> None:
    mine = _result(
        CASE, "greedy", Contender("gpt3", "fp32"), answers_of(2.0, 1.0, 4.0), [[1, 2, 3], [4, 0, 6]], 1e9, 1e9
    )
    assert (mine.tokens_per_s, mine.slowest, mine.fastest) == (2.0, 1.0, 4.0)  # 2 texts of 2 tokens after the first
    assert mine.memory_share == step_bytes(preset("demo"), Contender("gpt3", "fp32")) / 1e9  # a step a second
    assert mine.flops_share == 2 * matrix_values(preset("demo")) * 2.0 / 1e9
    assert mine.same_tokens == 4 / 6


def test_ratios_are_to_the_faster_transformers_and_to_llama_cpp_in_the_same_format() -> None:
    who = {
        Contender("gpt3", "int8"): 1.0,
        Contender("llama.cpp", "int8"): 1.25,
        Contender("llama.cpp", "fp32"): 3.0,
        Contender("transformers", "fp32"): 8.0,
        Contender("transformers-static", "fp32"): 4.0,
    }
    results: list[Result] = [
        _result(CASE, "greedy", one, answers_of(seconds), None, 1e9, 1e9) for one, seconds in who.items()
    ]
    row = table(results).splitlines()[2].split(" | ")
    assert row[5:7] == ["4.00", "1.25"]
    assert "| q8_0 |" in table(results)


def test_texts_are_alike_up_to_their_first_difference() -> None:
    assert common_share([[1, 2, 3, 4]], [[1, 2, 9, 4]]) == 0.5


def test_prompts_are_the_same_for_all_and_differ_between_texts() -> None:
    first, second = make_prompts(7, Case("demo", 3, 20)), make_prompts(7, Case("demo", 3, 20))
    assert first == second
    assert len({tuple(prompt) for prompt in first}) == 3
    assert max(map(max, first)) < preset("demo").vocab_size - 1  # end-of-text is not in them


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        ({"cases": ["17M"]}, "MODEL:BATCHxCONTEXT"),
        ({"cases": ["17M:1x1000"]}, "1,024 positions"),
        ({"formats": ["fp8"]}, "fp8"),
        ({"formats": []}, "fp32, fp16"),
        ({"decode": ["beam"]}, "greedy, sampled"),
        ({"rounds": 0, "new_tokens": 1}, "--rounds 0.*--new-tokens 1"),
        ({"nanogpt": "no/such"}, "no/such"),
    ],
)
def test_what_makes_no_benchmark_is_named(options: dict[str, Any], needle: str) -> None:
    with pytest.raises(InputError, match=needle):
        BenchGenerateOptions(**options)


def test_who_runs() -> None:
    options = BenchGenerateOptions(formats=["fp32", "int8"], llama_cpp=True)
    assert [f"{one.who} {one.weights}" for one in options.contenders()] == [
        "gpt3 fp32", "llama.cpp fp32", "gpt3 int8", "llama.cpp int8", "transformers fp32", "transformers-static fp32",
    ]  # fmt: skip
    assert BenchGenerateOptions(formats=["fp16"], transformers=False).contenders() == [("gpt3", "fp16")]


@pytest.mark.slow
def test_the_whole_command(capsys: pytest.CaptureFixture[str]) -> None:
    from gpt3.cli.main import main

    words = ["bench", "generate", "--cases", "demo:2x8", "--decode", "greedy", "--formats", "fp32", "--new-tokens", "4"]
    assert main([*words, "--rounds", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [result["who"] for result in found["results"]] == ["gpt3", "transformers", "transformers-static"]
    assert all(len(result["decoding"]) == 2 and result["same_tokens"] == 1 for result in found["results"])
    assert len(found["machine"]["gemm_flops"]) == 2  # before the case and after it
