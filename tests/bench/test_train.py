"""`gpt3 bench train`: systems of one shape have one size, steps are real steps, ratios are what they say."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gpt3.bench import harness, train_worker
from gpt3.bench.harness import Case
from gpt3.bench.train import WORKER, BenchTrainOptions, draw_tokens, make_request, summary, table
from gpt3.errors import InputError
from gpt3.ladder.presets import flops_per_token, preset

CASE = Case("demo", 2, 16)


def request_for(name: str, **options: object) -> dict:
    request = make_request(BenchTrainOptions(steps=2, **options), CASE, "fp32", name)
    return request | {"device": "cpu", "compile": False}


def test_systems_have_one_shape_and_learn() -> None:
    answers = {name: train_worker.timed_steps(request_for(name)) for name in ("gpt3", "transformers")}
    positions = preset("demo").context - CASE.context  # ours has all of its preset's, the peer those of the case
    assert answers["gpt3"]["parameters"] == answers["transformers"]["parameters"] + positions * preset("demo").d_model
    for answer in answers.values():
        assert len(answer["seconds"]) == 2
        assert len(answer["losses"]) == 4
        assert abs(answer["losses"][0] - math.log(4096)) < 0.3  # random ids, fresh weights
    request = request_for("gpt3") | {"dtype": "bf16"}
    losses = train_worker.timed_steps(request | {"tokens": request["tokens"][:1] * 40})["losses"]
    assert losses[-1] < losses[0] - 0.1


def test_a_nanogpt_checkout_is_used_as_it_is(tmp_path: Path) -> None:
    """Its interface, as far as the benchmark needs it, in a file of a dozen lines, in a process of its own."""
    (tmp_path / "model.py").write_text(
        "import torch\n"
        "class GPTConfig:\n    def __init__(self, **shape): self.__dict__.update(shape)\n"
        "class GPT(torch.nn.Module):\n"
        "    def __init__(self, c):\n        super().__init__()\n"
        "        self.wte = torch.nn.Embedding(c.vocab_size, c.n_embd)\n"
        "    def forward(self, x, y):\n        logits = self.wte(x) @ self.wte.weight.t()\n"
        "        return logits, torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten())\n"
        "    def configure_optimizers(self, decay, lr, betas, device):\n"
        "        return torch.optim.AdamW(self.parameters(), lr=lr, betas=betas, weight_decay=decay)\n"
    )
    answer = harness.call(WORKER, request_for("nanogpt", nanogpt=str(tmp_path)), "nanoGPT")
    assert answer["parameters"] == 4096 * preset("demo").d_model
    assert len(answer["seconds"]) == 2


def test_a_peer_s_python_needs_no_gpt3() -> None:
    code = f"import runpy, sys; sys.modules['gpt3'] = None; runpy.run_path({WORKER!r})"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_all_systems_get_the_same_ids() -> None:
    options = BenchTrainOptions(steps=3, seed=7)
    first, second = (draw_tokens(options, CASE) for _ in range(2))
    assert first == second
    ids = torch.tensor(first)
    assert ids.shape == (5, 2, 17)
    assert 0 <= ids.min() < ids.max() < 4096


def test_a_result_is_the_median_of_all_steps_compared_with_the_measured_peak(undocumented) -> None:
    answers = [
        {"seconds": seconds, "cpu_seconds": seconds, "losses": [1.0], "peak_bytes": peak, "parameters": 1}
        for seconds, peak in (([1.0, 1.0, 9.0], 5), ([2.0, 2.0, 2.0], 7), ([1.0, 1.0, 1.0], 6))
    ]
    mine = summary(CASE, "fp32", "gpt3", False, answers, 1e9)
    assert (mine["tokens_per_s"], mine["slowest"], mine["fastest"], mine["peak_bytes"]) == (32, 16, 32, 7)
    assert mine["mfu"] == 32 * flops_per_token(preset("demo").config(), 16) / 1e9
    assert undocumented(mine) == []
    half = summary(CASE, "fp32", "transformers", False, answers[1:2], 1e9)
    assert "| 2.00 |" in table([mine, half]).splitlines()[-1]


def test_dense_peers_are_credited_with_dense_attention() -> None:
    case = Case("demo", 1, 128)  # longer than the demo's band of 32
    answers = [{"seconds": [1.0], "cpu_seconds": [1.0], "losses": [1.0], "peak_bytes": None, "parameters": 1}]
    ours, peer = (summary(case, "fp32", name, False, answers, 1e9) for name in ("gpt3", "nanogpt"))
    assert peer["mfu"] > ours["mfu"]


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        ({"cases": ["17M"]}, "MODEL:BATCHxCONTEXT"),
        ({"cases": ["17M:12x0"]}, "MODEL:BATCHxCONTEXT"),
        ({"cases": ["17M:1x4096"]}, "1,024 positions"),
        ({"cases": ["18M:1x12"]}, "18M"),
        ({"dtype": ["fp64"]}, "fp64"),
        ({"dtype": []}, "empty"),
        ({"compile": ["nanoGPT"]}, "nanogpt"),
        ({"rounds": 0}, "--rounds 0"),
        ({"nanogpt": "no/such"}, "no/such"),
        ({"litgpt_python": "no/such"}, "no/such"),
    ],
)
def test_impossible_options_are_refused_by_name(options: dict, needle: str) -> None:
    with pytest.raises(InputError, match=needle):
        BenchTrainOptions(**options)


def test_which_systems_run_and_which_are_compiled() -> None:
    assert BenchTrainOptions().systems() == ["gpt3", "transformers"]
    assert BenchTrainOptions(litgpt_python=sys.executable, transformers=False).systems() == ["gpt3", "litgpt"]
    assert BenchTrainOptions().compiled("cpu") == {"litgpt"}
    assert BenchTrainOptions().compiled("cuda") == {"gpt3", "nanogpt", "transformers", "litgpt"}
    assert BenchTrainOptions(compile=["none"]).compiled("cuda") == set()


@pytest.mark.slow
def test_the_whole_command(capsys: pytest.CaptureFixture[str]) -> None:
    from gpt3.cli.main import main

    words = ["bench", "train", "--cases", "demo:2x32", "--dtype", "fp32", "--rounds", "2", "--steps", "2", "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert [result["who"] for result in found["results"]] == ["gpt3", "transformers"]
    assert all(len(result["seconds"]) == 2 for result in found["results"])
    assert len(found["machine"]["gemm_flops"]["fp32"]) == 3  # before the rounds and after each
    assert found["machine"]["torch"] == torch.__version__
