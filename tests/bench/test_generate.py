"""`gpt3 bench generate`: all systems generate the same from the same weights; shares and ratios are what they say."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt3.bench import generate_worker, harness
from gpt3.bench.generate import (
    WORKER,
    BenchGenerateOptions,
    make_models,
    make_prompts,
    matrix_values,
    same_share,
    step_bytes,
    summary,
    table,
)
from gpt3.bench.harness import Case, System
from gpt3.errors import InputError
from gpt3.ladder.presets import preset

CASE = Case("demo", 2, 6)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return make_models(str(tmp_path_factory.mktemp("bench")), "demo", seed=1, gguf_formats=["fp32"])


def answer_of(models: dict[str, Any], name: str, **changes: Any) -> dict[str, Any]:
    request = models | {
        "task": "generate", "name": name, "weights": "fp32", "prompts": make_prompts(1, CASE), "new_tokens": 9,
        "sampled": False, "seed": 1, "threads": 1,
    }  # fmt: skip
    return generate_worker.timed_generation(request | changes)


def test_all_systems_generate_the_same(models: dict[str, Any]) -> None:
    """Greedily, within the window, where the GGUF's dense layers and tanh GELU are close enough for these weights."""
    answers = {name: answer_of(models, name) for name in ("gpt3", "transformers", "transformers-static")}
    for answer in answers.values():
        assert [len(tokens) for tokens in answer["tokens"]] == [9, 9]
        assert answer["tokens"] == answers["gpt3"]["tokens"]
        assert 0 < max(answer["firsts"]) < answer["total"]


def test_llama_cpp_generates_the_same(models: dict[str, Any]) -> None:
    pytest.importorskip("xllamacpp")
    assert answer_of(models, "llama.cpp")["tokens"] == answer_of(models, "gpt3")["tokens"]


def test_a_nanogpt_checkout_is_given_the_weights(models: dict[str, Any], tmp_path: Path) -> None:
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
    request = models | {
        "task": "generate", "name": "nanogpt", "prompts": [[5, 7]], "new_tokens": 3, "sampled": False, "threads": 1,
        "nanogpt": str(tmp_path), "shape": {"vocab_size": 4096, "n_embd": 192},
    }  # fmt: skip
    assert harness.call(WORKER, request, "nanoGPT")["tokens"] == [[7, 7, 7]]  # an embedding is most like itself


def test_sampled_completions_depend_on_the_seed(models: dict[str, Any]) -> None:
    first, again = (answer_of(models, "gpt3", sampled=True, seed=3)["tokens"] for _ in range(2))
    other = answer_of(models, "gpt3", sampled=True, seed=4)["tokens"]
    assert first == again != other


def test_a_sequence_of_the_wrong_length_is_an_error(models: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        generate_worker.SYSTEMS, "gpt3", lambda request: lambda prompts, count: {"tokens": [[1] * 8, [1] * 9]}
    )
    with pytest.raises(SystemExit, match=r"gpt3 generated \[8, 9\] tokens instead of 9"):
        answer_of(models, "gpt3")


def test_the_bytes_of_a_step_are_the_engine_s() -> None:
    """All the engine holds but the positions, of which one row is read, and the scales of int8."""
    from gpt3.inference.language_model import make_engine
    from gpt3.model import GPT3ForCausalLM

    shape = dataclasses.replace(preset("demo"), n_layers=2, vocab_size=1024)
    model = GPT3ForCausalLM(shape.config())
    positions = 4 * shape.context * shape.d_model
    for weights in ("fp32", "fp16", "bf16", "int8", "int4"):
        held = make_engine(model, weights).nbytes - positions
        assert step_bytes(shape, System("gpt3", weights)) == pytest.approx(
            held, rel=0.06 if weights == "int4" else 0.03
        )
    plain = matrix_values(shape)
    assert step_bytes(shape, System("llama.cpp", "int8")) - step_bytes(shape, System("gpt3", "int8")) == plain / 16


def answers_of(*seconds: float) -> list[dict[str, Any]]:
    return [
        {
            "tokens": [[1, 2, 3], [4, 5, 6]],
            "first": 1.0,
            "decoding": s,
            "cpu_seconds": s,
            "peak_bytes": 5,
            "anonymous_bytes": 3,
        }
        for s in seconds
    ]


def test_a_result_is_the_median_round_compared_with_the_measured_peaks(undocumented) -> None:
    ours = [{"tokens": [[1, 2, 3], [4, 0, 6]]}]
    mine = summary(CASE, "greedy", System("gpt3"), answers_of(2.0, 1.0, 4.0), ours, (1e9, 1e9))
    # 2 sequences of 2 tokens after the first
    assert (mine["tokens_per_s"], mine["slowest"], mine["fastest"]) == (2.0, 1.0, 4.0)
    assert mine["memory_share"] == step_bytes(preset("demo"), System("gpt3")) / 1e9  # one step per second
    assert mine["flops_share"] == 2 * matrix_values(preset("demo")) * 2.0 / 1e9
    assert mine["same_tokens"] == 4 / 6
    assert undocumented(mine) == []


def test_ratios_are_to_the_faster_transformers_and_to_llama_cpp_in_the_same_format() -> None:
    seconds = {
        System("gpt3", "int8"): 1.0,
        System("llama.cpp", "int8"): 1.25,
        System("llama.cpp"): 3.0,
        System("transformers"): 8.0,
        System("transformers-static"): 4.0,
    }
    results = [
        summary(CASE, "greedy", system, answers_of(spent), None, (1e9, 1e9)) for system, spent in seconds.items()
    ]
    row = table(results).splitlines()[2].split(" | ")
    assert row[5:8] == ["4.00", "1.25", "1,000 ms (1.00)"]
    assert "| 0.00 GB (0.00 GB) |" in table(results)
    assert "| q8_0 |" in table(results)


def test_sequences_are_alike_up_to_their_first_difference() -> None:
    assert same_share([[1, 2, 3, 4]], [[1, 2, 9, 4]]) == 0.5


def test_prompts_are_the_same_for_all_and_differ_between_sequences() -> None:
    first, second = make_prompts(7, Case("demo", 3, 20)), make_prompts(7, Case("demo", 3, 20))
    assert first == second
    assert len({tuple(prompt) for prompt in first}) == 3
    assert max(map(max, first)) < preset("demo").vocab_size - 1  # EOS is not among them


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        ({"cases": ["17M"]}, "MODEL:BATCHxCONTEXT"),
        ({"cases": ["17M:1x1000"]}, "1,024 positions"),
        ({"formats": ["fp8"]}, "fp8"),
        ({"formats": []}, "--formats is empty"),
        ({"decode": ["beam"]}, "greedy, sampled"),
        ({"rounds": 0, "new_tokens": 1}, "--new-tokens 1.*--rounds 0"),
        ({"nanogpt": "no/such"}, "no/such"),
    ],
)
def test_impossible_options_are_refused_by_name(options: dict[str, Any], needle: str) -> None:
    with pytest.raises(InputError, match=needle):
        BenchGenerateOptions(**options)


def test_which_systems_run() -> None:
    options = BenchGenerateOptions(formats=["fp32", "int8"], llama_cpp=True)
    assert [tuple(system) for system in options.systems()] == [
        ("gpt3", "fp32"), ("llama.cpp", "fp32"), ("gpt3", "int8"), ("llama.cpp", "int8"), ("transformers", "fp32"),
        ("transformers-static", "fp32"),
    ]  # fmt: skip
    assert BenchGenerateOptions(formats=["fp16"], transformers=False).systems() == [("gpt3", "fp16")]


@pytest.mark.slow
def test_the_whole_command(capsys: pytest.CaptureFixture[str]) -> None:
    from gpt3.cli.main import main

    words = ["bench", "generate", "--cases", "demo:2x8", "--decode", "greedy", "--formats", "fp32", "--new-tokens", "4"]
    assert main([*words, "--rounds", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [result["who"] for result in found["results"]] == ["gpt3", "transformers", "transformers-static"]
    assert all(len(result["decoding"]) == 2 and result["same_tokens"] == 1 for result in found["results"])
    assert len(found["machine"]["gemm_flops"]) == 3  # before the rounds and after each


def test_on_a_gpu_peers_have_16_bit_weights_and_there_is_no_int4() -> None:
    cpu, gpu = BenchGenerateOptions(nanogpt=None), BenchGenerateOptions(device="cuda:1")
    assert System("gpt3", "int4") in cpu.systems()
    assert System("transformers") in cpu.systems()
    found = {
        name: {system.weights for system in gpu.systems() if system.name == name} for name in ("gpt3", "transformers")
    }
    assert found == {"gpt3": {"fp32", "fp16", "bf16", "int8"}, "transformers": {"bf16"}}
    with pytest.raises(InputError, match=r"--llama-cpp is for --device cpu, not cuda. Leave one of them out"):
        BenchGenerateOptions(device="cuda", llama_cpp=True)


def test_peers_get_the_device_and_the_format(models: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = generate_worker.load_transformers(models | {"weights": "bf16", "device": "cpu"})
    assert next(model.parameters()).dtype == torch.bfloat16
    assert generate_worker.load_transformers(models).dtype == torch.float32
    asked: list[str] = []

    def load(folder: str, weights: str, device: str) -> None:
        asked.append(device)
        raise NotImplementedError

    monkeypatch.setattr(generate_worker, "load_model", load)
    with pytest.raises(NotImplementedError):
        answer_of(models, "gpt3", device="cuda:1")
    assert asked == ["cuda:1"]


def test_ratios_on_a_gpu_are_to_the_peers_in_their_format() -> None:
    seconds = {System("gpt3", "bf16"): 1.0, System("transformers", "bf16"): 8.0}
    results = [summary(CASE, "greedy", one, answers_of(spent), None, (1e9, 1e9)) for one, spent in seconds.items()]
    assert table(results).splitlines()[2].split(" | ")[5] == "8.00"
