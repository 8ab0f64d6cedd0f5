"""--noise-scale: planted gradients give what was planted, a run keeps its bits, and its numbers are those of the definition."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kill_server import Server
from safetensors.torch import load_file

from gpt3.cli.main import main
from gpt3.errors import InputError
from gpt3.report.run_folder import read_metrics
from gpt3.training.data import open_data
from gpt3.training.distributed import ALONE, Compute
from gpt3.training.model_building import build_model
from gpt3.training.noise_scale import DECAY, NoiseScale
from gpt3.training.options import TrainOptions
from gpt3.training.plan import shape_of
from gpt3.training.run import train


def planted(parts: list[list[int]], steps: int) -> tuple[np.ndarray, float, float]:
    """A linear loss whose gradient for one token is G plus noise of covariance Σ, in steps of these micro-batches.

    Args:
        parts: tokens of each micro-batch of each process.

    Returns:
        Each step's estimates of |G|² and tr Σ; the noise scale at the end; the planted one.
    """
    draw = np.random.default_rng(5)
    means = [draw.normal(size=(3, 4)), draw.normal(size=7)]
    spreads = [draw.uniform(0.5, 3, size=mean.shape) for mean in means]
    square = sum(float((mean**2).sum()) for mean in means)
    trace = sum(float((spread**2).sum()) for spread in spreads)
    batch = sum(map(sum, parts))
    ranks = [[torch.zeros(mean.shape, requires_grad=True) for mean in means] for _ in parts]
    noises = [NoiseScale(weights, len(parts)) for weights in ranks]
    found = []
    for _ in range(steps):
        drawn = [
            [
                [
                    torch.tensor(mean + spread * draw.normal(size=mean.shape) / math.sqrt(tokens), dtype=torch.float32)
                    for mean, spread in zip(means, spreads, strict=True)
                ]
                for tokens in part
            ]
            for part in parts
        ]
        totals = []
        for weights, noise, part, gradients in zip(ranks, noises, parts, drawn, strict=True):
            for index, (tokens, values) in enumerate(zip(part, gradients, strict=True)):
                share = tokens / batch * len(parts)
                sum((weight * value).sum() * share for weight, value in zip(weights, values, strict=True)).backward()
                noise.take(index, len(part), tokens)
            totals.append([weight.grad for weight in weights])
        mean_gradient = [sum(each) / len(parts) for each in zip(*totals, strict=True)]
        norm = math.sqrt(sum(float((gradient.double() ** 2).sum()) for gradient in mean_gradient))
        sums = sum(noise.sums(batch, torch.zeros(())) for noise in noises).tolist()
        record = noises[0].update(sums, batch, norm)
        found.append((record["noise_square"], record["noise_trace"]))
        for weights in ranks:
            for weight in weights:
                weight.grad = None
    estimates = np.array(found)
    np.testing.assert_allclose(estimates.mean(0), [square, trace], rtol=0.1)
    return estimates, noises[0].value, trace / square


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([[4, 4, 4, 4]], id="four micro-batches"),
        pytest.param([[1, 6]], id="of different sizes"),
        pytest.param([[2, 2, 2], [2, 2, 2]], id="two processes"),
        pytest.param([[3, 1], [2, 2]], id="two processes with different shares"),
    ],
)
def test_planted_noise_is_found(parts: list[list[int]]) -> None:
    estimates, value, planted_scale = planted(parts, 600)
    weights = DECAY ** np.arange(len(estimates))[::-1]
    square, trace = weights @ estimates / weights.sum()
    assert value == pytest.approx(trace / square, rel=1e-5)  # a quotient of averages, not an average of quotients
    assert value == pytest.approx(planted_scale, rel=0.3)  # of about the last hundred steps


def final_bits(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def steps_of(folder: Path) -> list[dict[str, Any]]:
    return [record for record in read_metrics(folder / "metrics.jsonl") if "loss" in record]


@pytest.mark.parametrize("changes", [{}, {"mask_documents": True, "optimizer": "muon"}], ids=["lean", "torch"])
def test_a_run_keeps_its_bits(tiny, tmp_path: Path, changes: dict[str, Any]) -> None:
    plain = train(tiny(out=str(tmp_path / "plain"), micro_batch=2, steps=5, **changes)).folder
    result = train(tiny(out=str(tmp_path / "measured"), micro_batch=2, steps=5, noise_scale=True, **changes))
    before, now = steps_of(plain), steps_of(result.folder)
    assert [(r["loss"], r["grad_norm"]) for r in before] == [(r["loss"], r["grad_norm"]) for r in now]
    weights = final_bits(plain)
    assert all(torch.equal(weights[name], value) for name, value in final_bits(result.folder).items())
    assert all(record["noise_trace"] > 0 for record in now)
    assert result.noise_scale == now[-1]["noise_scale"]


def test_the_first_step_is_that_of_the_definition(tiny, tmp_path: Path) -> None:
    """Gradients of the micro-batches and of all sequences from torch.autograd.grad, and the two equations of App. A.1."""
    options = tiny(steps=1, micro_batch=2, noise_scale=True)
    (record,) = steps_of(train(options).folder)
    data = open_data(options, shape_of(options))
    end, entries = data.shards[0].end_of_text, data.shards[0].vocab_size
    shape = dataclasses.replace(shape_of(options), vocab_size=entries)
    model, _ = build_model(options, shape, end, Compute(torch.device("cpu"), torch.float32, 1.0), ALONE)
    windows = torch.from_numpy(data.mixture(32, options.seed).batch(list(range(8))))

    def square(rows: torch.Tensor) -> float:
        loss = torch.nn.functional.cross_entropy(model(rows[:, :-1]).logits.flatten(0, 1), rows[:, 1:].flatten())
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        return sum(float((gradient.double() ** 2).sum()) for gradient in gradients)

    large, small = square(windows), np.mean([square(windows[first : first + 2]) for first in (0, 2, 4, 6)])
    b, B = 2 * 32, 8 * 32
    assert record["noise_square"] == pytest.approx((B * large - b * small) / (B - b), rel=1e-3)
    assert record["noise_trace"] == pytest.approx((small - large) / (1 / b - 1 / B), rel=1e-3)
    data.close()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="gloo's interfaces differ there")
def test_two_processes(server: Server, text_file: Path, tmp_path: Path, shared_cache: Path) -> None:
    common: dict[str, Any] = {
        "data": [str(text_file)], "tokenizer": "own:300", "steps": 6, "context": 32, "batch_tokens": 512, "micro_batch": 2,
        "layers": 2, "width": 32, "heads": 2, "window": 8, "lr": 3e-3, "validation_fraction": 0.1, "dtype": "fp32",
        "device": "cpu", "sample_prompt": ["The "], "workers": 1, "nproc": 2,
    }  # fmt: skip
    for name, measures in (("plain", False), ("measured", True)):
        chosen = common | {"out": str(tmp_path / name), "noise_scale": measures}
        assert server.sit(chosen, shared_cache) == 0, server.log.read_text()
    plain, measured = steps_of(tmp_path / "plain"), steps_of(tmp_path / "measured")
    assert [r["loss"] for r in plain] == [r["loss"] for r in measured]
    assert all(record["noise_trace"] > 0 for record in measured)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"micro_batch": 8}, "--micro-batch 8 is all of its 8 sequences. Use --micro-batch 4 or less."),
        ({"micro_batch": 1, "batch_tokens": 32}, "has one sequence per process. Use a larger --batch-tokens"),
    ],
)
def test_a_single_micro_batch_is_refused(tiny, changes: dict[str, Any], error: str) -> None:
    with pytest.raises(InputError, match=error):
        train(tiny(noise_scale=True, **changes))


def test_sharded_gradients_are_refused() -> None:
    with pytest.raises(InputError, match="--noise-scale does not work with --parallel fsdp"):
        TrainOptions(noise_scale=True, parallel="fsdp")


def test_the_command_in_the_docs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"## The gradient noise scale\n.*?```sh\n(.*?)\n```", page, re.DOTALL)
    assert not main([*shlex.split(command)[1:], "--print_config"])
    assert "noise_scale: true\n" in capsys.readouterr().out


def test_the_automatic_micro_batch_leaves_two(tiny, tmp_path: Path) -> None:
    train(tiny(noise_scale=True, micro_batch=None, steps=2))
    assert "micro_batch: 4\n" in (tmp_path / "run" / "config.yaml").read_text()
    assert all("noise_scale" in record for record in steps_of(tmp_path / "run"))
