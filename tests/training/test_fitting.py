"""The micro-batch is chosen by the memory estimate, and halved where memory runs out with no trace of the failed try."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from gpt3.errors import InputError, RunError
from gpt3.ladder.presets import PRESETS
from gpt3.report.run_folder import read_metrics
from gpt3.training.checkpoint import checkpoints
from gpt3.training.distributed import ALONE, Compute, World, full_machine
from gpt3.training.fitting import (
    MOST_TOKENS,
    Exchange,
    choose_exchange,
    fitted,
    memory_of,
    parallel_text,
    room,
    shortage,
)
from gpt3.training.options import TrainOptions
from gpt3.training.plan import DEFAULT_MICRO_BATCH_TOKENS, make_plan, shape_of
from gpt3.training.run import train
from gpt3.training.trainer import Trainer

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    RuntimeError(
        "MPS backend out of memory (MPS allocated: 7.01 GB, other allocations: 1.20 GB, max allowed: 9.07 GB)."
    ),
    RuntimeError("Invalid buffer size: 19.38 GiB"),
]


@dataclasses.dataclass(frozen=True)
class Machine(Compute):
    """A device with this many bytes of memory."""

    bytes: int = 0

    def memory(self) -> int:
        return self.bytes


def raises(error: Exception) -> Any:
    def function(*_: Any, **__: Any) -> None:
        raise error

    return function


def machine(gigabytes: float, device: str = "cpu") -> Machine:
    return Machine(torch.device(device), torch.float32, 1.0, bytes=round(gigabytes * 1e9))


@given(
    name=st.sampled_from(["demo", "17M", "125M", "1.3B"]),
    gigabytes=st.floats(0.1, 200),
    device=st.sampled_from(["cpu", "cuda"]),
    tokens=st.integers(10**6, 10**11),
)
def test_the_micro_batch_is_the_largest_divisor_that_fits(
    name: str, gigabytes: float, device: str, tokens: int
) -> None:
    options, where = TrainOptions(model=name, tokens=str(tokens)), machine(gigabytes, device)
    shape, given_plan = shape_of(options), make_plan(options, 10**9)
    plan = fitted(given_plan, options, shape, where, ALONE)
    assert (
        dataclasses.replace(plan, micro_batch=given_plan.micro_batch) == given_plan
    )  # nothing else depends on the device
    sequences, most = plan.batch_tokens // plan.context, MOST_TOKENS.get(device, DEFAULT_MICRO_BATCH_TOKENS)
    limit = room(where)
    assert limit is not None
    fit = [
        micro for micro in range(1, sequences + 1)
        if sequences % micro == 0 and micro * plan.context <= most
        and memory_of(options, shape, dataclasses.replace(plan, micro_batch=micro), where, ALONE).total <= limit
    ]  # fmt: skip
    assert plan.micro_batch == max(fit, default=1)


def test_a_given_micro_batch_stays() -> None:
    options = TrainOptions(model="17M", tokens="100M", micro_batch=8)
    plan = make_plan(options, 10**9)
    assert fitted(plan, options, shape_of(options), machine(0.3), ALONE) == plan


def test_memory_that_is_left_saves_communication() -> None:
    """Gradients once per step before weights once per micro-batch; neither where memory is short, or a CPU's."""
    options = TrainOptions(model="1.3B", parallel="fsdp", steps=9, batch_tokens=64 * 2048, micro_batch=2)
    world, shape = World(0, 8), shape_of(options)
    plan = make_plan(options, 10**9)

    def chosen(gigabytes: float, device: str = "cuda", **changes: Any) -> tuple[bool, bool]:
        given = dataclasses.replace(options, **changes)
        return dataclasses.astuple(choose_exchange(plan, given, shape, machine(gigabytes, device), world))

    needs = [
        memory_of(options, shape, plan, machine(99, "cuda"), world, exchange).total / 0.9e9
        for exchange in (Exchange(True, False), Exchange(False, False), Exchange(True, True), Exchange(False, True))
    ]
    assert needs == sorted(needs)
    found = [chosen(need + 0.01) for need in (needs[0] - 1, *needs)]
    assert found == [(True, False), (True, False), (False, False), (True, True), (False, True)]
    assert chosen(999, "cpu") == (True, False)
    assert chosen(1, regather=False, reduce_once=True) == (False, True)  # as the options say
    assert chosen(999, regather=True) == (True, True)
    assert dataclasses.astuple(choose_exchange(plan, options, shape, machine(999, "cuda"), World(0, 32))) == (
        False,
        False,
    )
    assert parallel_text(options, world, Exchange()) == "fsdp"
    text = parallel_text(dataclasses.replace(options, shards=4), world, Exchange(reduce_once=True))
    assert text == "fsdp, 4 processes per copy, gradients exchanged once per step"


@pytest.mark.parametrize("name", ["demo", "17M", "125M"])
def test_small_presets_fit_a_laptop(name: str) -> None:
    options = TrainOptions(model=name, tokens="3B")
    shape = shape_of(options)
    plan = fitted(make_plan(options, 10**9), options, shape, machine(8), ALONE)
    assert shortage(plan, options, shape, machine(8), ALONE) is None


@pytest.mark.parametrize(("name", "gigabytes"), [("350M", 8), ("350M", 12), ("1.3B", 16), ("125M", 3)])
def test_what_does_not_fit_is_refused_with_what_would(name: str, gigabytes: float) -> None:
    options, where = TrainOptions(model=name, tokens="3B"), machine(gigabytes)
    shape = shape_of(options)
    plan = fitted(make_plan(options, 10**9), options, shape, where, ALONE)
    text = shortage(plan, options, shape, where, ALONE)
    assert text
    listed = text.partition("fits with")[2]
    ways = re.findall(r"--(?:gradient|selective)-checkpointing|--context \d+|--model \w+(?= |,|;)", listed)
    assert ways
    for way in ways:
        flag, _, value = way.removeprefix("--").partition(" ")
        changed = dataclasses.replace(
            options, **{flag.replace("-", "_"): int(value) if value.isdigit() else value or True}
        )
        other = shape_of(changed)
        smaller = fitted(make_plan(changed, 10**9), changed, other, where, ALONE)
        assert shortage(smaller, changed, other, where, ALONE) is None, way
    larger = [preset for preset in PRESETS.values() if f"--model {preset.name}" in ways]
    assert all(preset.parameters < shape.parameters for preset in larger)


def test_a_model_too_large_is_refused_before_it_is_built(tiny, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Compute, "memory", lambda self: 10_000)
    with pytest.raises(InputError, match=r"--model demo needs about .* of this device's"):
        train(tiny(micro_batch=None))
    with pytest.raises(InputError, match=r"for weights, gradients and optimizer"):
        train(tiny())
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------------------------------------------- out of memory


def fail_above(monkeypatch: pytest.MonkeyPatch, sequences: int, error: RuntimeError, first_step: int = 0) -> list[int]:
    """From a step on, a larger micro-batch raises at the worst moment: all gradients summed, all dropout drawn.

    Returns the micro-batches that failed, as they come."""
    original, failed = Trainer.accumulate, []

    def accumulate(self: Trainer, step: int) -> torch.Tensor:
        loss = original(self, step)
        if step >= first_step and self.plan.micro_batch > sequences:
            failed.append(self.plan.micro_batch)
            raise error
        return loss

    monkeypatch.setattr(Trainer, "accumulate", accumulate)
    return failed


def assert_same_run(one: Path, other: Path) -> None:
    first, second = (load_file(run / "model" / "model.safetensors") for run in (one, other))
    assert all(torch.equal(first[name], second[name]) for name in first)
    names = ("step", "loss", "grad_norm", "val/loss", "val/loss_low")
    rows = [[[row.get(name) for name in names] for row in read_metrics(run / "metrics.jsonl")] for run in (one, other)]
    assert rows[0] == rows[1]


def micro_batch(run: Path) -> Any:
    return yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["micro_batch"]


@pytest.mark.parametrize("error", [ERRORS[0], *(pytest.param(error, marks=pytest.mark.slow) for error in ERRORS[1:])])
def test_a_step_that_runs_out_of_memory_is_repeated_as_if_its_micro_batch_had_been_smaller(
    error: RuntimeError, tiny, tmp_path: Path, monkeypatch, capsys
) -> None:
    options = tiny(micro_batch=None, dropout=0.1, ema=0.9, checkpoint_every=6, keep_checkpoints=9, validate_every=6)
    reference = tmp_path / "reference"
    begun = dataclasses.replace(options, out=str(reference))
    train(begun)
    assert micro_batch(reference) == 8
    shutil.rmtree(reference / "model")
    train(dataclasses.replace(begun, resume=str(reference / "checkpoints" / "step-6"), micro_batch=2))

    failed = fail_above(monkeypatch, 3, error, first_step=6)
    capsys.readouterr()
    run = train(options).folder
    assert failed == [8, 4]
    assert "continuing with 2. The batch stays the same" in capsys.readouterr().err
    assert micro_batch(run) == 2
    assert_same_run(run, reference)

    shutil.rmtree(run / "model")  # a resume begins with what was found
    for late in checkpoints(run / "checkpoints")[1:]:
        shutil.rmtree(late)
    train(options)
    assert failed == [8, 4]
    assert_same_run(run, reference)


def test_what_the_timing_of_steps_finds_is_what_the_run_begins_with(tiny, tmp_path: Path, monkeypatch) -> None:
    failed = fail_above(monkeypatch, 4, ERRORS[0])
    train(tiny(micro_batch=None, steps=None, minutes=0.005))
    assert failed == [8]
    assert micro_batch(tmp_path / "run") == 4


def test_one_sequence_too_much_is_one_line_and_another_error_stays_itself(tiny, tmp_path: Path, monkeypatch) -> None:
    fail_above(monkeypatch, 0, ERRORS[1], first_step=6)
    options = tiny(checkpoint_every=3, validate_every=12)
    with pytest.raises(RunError, match=r"^one sequence of 32 tokens does not fit .* --gradient-checkpointing"):
        train(options)
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == ["step-3", "step-6"]
    monkeypatch.undo()
    fail_above(monkeypatch, 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        train(dataclasses.replace(options, out=str(tmp_path / "other"), device="cpu"))


def test_an_optimizer_that_does_not_fit_is_one_line_with_a_remedy_that_helps(tiny, monkeypatch) -> None:
    monkeypatch.setattr(torch.optim.AdamW, "step", raises(ERRORS[0]))
    with pytest.raises(
        RunError, match=r"^out of memory in the optimizer's step: the state of --optimizer muon does not fit"
    ):
        train(tiny())


@pytest.mark.parametrize("error", ERRORS)
def test_elsewhere_full_memory_is_one_line(error: RuntimeError) -> None:
    with pytest.raises(RunError, match=r"out of memory.*; use a smaller --micro-batch"), full_machine():
        raise error
