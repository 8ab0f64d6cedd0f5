"""One rank of many, none of which is there: shards, collectives and memory of real steps of large models with few layers."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpt3.ladder.memory import shard_numbers
from gpt3.ladder.presets import preset

LAYERS = 4


@pytest.fixture
def examined(script: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., list[dict[str, Any]]]:
    """A function of cases."""

    def work(*cases: dict[str, Any]) -> list[dict[str, Any]]:
        done = script(Path(__file__).with_name("fake_ranks.py"), json.dumps(cases))
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout)

    return work


def check(case: dict[str, Any], found: dict[str, Any]) -> None:
    """What follows from the case alone."""
    options, ranks, accumulation = case.get("options", {}), case["ranks"], case.get("accumulation", 1)
    tensor = options.get("tensor_parallel", 1)
    ranks //= tensor
    shards, layers = options.get("shards", ranks), case.get("layers", LAYERS)
    entry = dataclasses.replace(preset(case["model"]), n_layers=layers)
    assert found["numbers"] == shard_numbers(entry, shards, tensor)  # rank 0 has the most
    units, regathered = layers + 1, layers if options.get("regather", True) else 0  # blocks and the embeddings
    reductions = 1 if options.get("reduce_once") else accumulation
    expected = {"allgather_base": accumulation * (units + regathered), "reduce_scatter_base": reductions * units}
    expected |= {"allreduce": units} if shards < ranks else {}  # between copies, once per step
    assert {name: found["collectives"].get(name) for name in expected} == expected
    # the gradient's norm; activations and parts of the loss with tensor parallelism
    more = {"all_reduce", "reduce_scatter_tensor", "all_gather_into_tensor"} if tensor > 1 else {"all_reduce"}
    assert found["collectives"].keys() - expected.keys() <= more
    if tensor > 1:  # in each block twice forward and twice backward, and a little for embedding, loss and norm
        assert 4 * layers * accumulation <= found["collectives"]["all_reduce"] <= 4 * layers * accumulation + 12
    if tensor == 1:  # torch's tracker counts what functional collectives return twice
        assert found["estimate"]["total"] == pytest.approx(found["peak"]["Total"], rel=0.15)


QUICK = [
    {
        "model": "175B", "ranks": 1024, "accumulation": 2,
        "options": {"shards": 128, "reduce_once": True, "gradient_checkpointing": True},
    }
]  # fmt: skip
MORE = [
    {"model": "6.7B", "ranks": 64, "micro_batch": 2, "accumulation": 2, "options": {"shards": 8, "reduce_once": True}},
    {"model": "175B", "ranks": 1024, "options": {"gradient_checkpointing": True}},
    {"model": "6.7B", "ranks": 64, "micro_batch": 4},
    {"model": "6.7B", "ranks": 64, "options": {"regather": False}},
    {"model": "6.7B", "ranks": 64, "micro_batch": 2, "accumulation": 3, "options": {"shards": 8}},
    {"model": "175B", "ranks": 128},
    {"model": "175B", "ranks": 128, "options": {"gradient_checkpointing": True}},
    {"model": "175B", "ranks": 1024, "accumulation": 2, "options": {"shards": 128, "gradient_checkpointing": True}},
    {"model": "6.7B", "ranks": 64, "micro_batch": 4, "options": {"gradient_checkpointing": True}},
    {"model": "6.7B", "ranks": 64, "micro_batch": 4, "options": {"selective_checkpointing": True}},
    {"model": "6.7B", "ranks": 64, "options": {"selective_checkpointing": True}},
    {"model": "175B", "ranks": 1024, "layers": 5, "options": {"selective_checkpointing": True}},
    {"model": "175B", "ranks": 1024, "options": {"tensor_parallel": 8, "shards": 32, "selective_checkpointing": True}},
    {"model": "1.3B", "ranks": 8, "micro_batch": 8, "layers": 24},
    {"model": "13B", "ranks": 64, "micro_batch": 4, "accumulation": 2, "options": {"tensor_parallel": 8}},
    {"model": "175B", "ranks": 1024, "options": {"tensor_parallel": 8, "shards": 32}},
    {"model": "13B", "ranks": 64, "micro_batch": 2, "layers": 8},
]


@pytest.mark.parametrize("cases", [QUICK, pytest.param(MORE, marks=pytest.mark.slow)], ids=["quick", "more"])
def test_shards_collectives_and_memory(examined, cases: list[dict[str, Any]]) -> None:
    for case, found in zip(cases, examined(*cases), strict=True):
        check(case, found)


@pytest.mark.slow
def test_all_layers_of_175b_on_1024_ranks(examined) -> None:
    cases = [{"model": "175B", "ranks": 1024, "layers": 96, "options": options} for options in (
        {"gradient_checkpointing": True}, {"gradient_checkpointing": True, "shards": 128}
    )]  # fmt: skip
    for case, found in zip(cases, examined(*cases), strict=True):
        check(case, found)
