"""The plan for many GPUs: what fits fits, one more sequence does not, batches are the paper's where they can be."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt3.cli.ladder import LadderOptions, run
from gpt3.errors import InputError
from gpt3.ladder.cluster import (
    GPUS,
    RESERVE,
    fitting_sequences,
    gpu_called,
    lay_out,
    make_cluster,
    memory_bytes,
    memory_of,
    plan_rows,
    plan_table,
)
from gpt3.ladder.memory import CHECKPOINTING_KINDS, Checkpointing
from gpt3.ladder.presets import PAPER_TOKENS, PRESETS, preset


def cluster(
    gpus: int, gpu: str = "H100", memory: str | None = None, parallel: str = "fsdp", dtype: str = "auto", shards=None
):
    return make_cluster(gpus, gpu, memory, None, 0.4, dtype, parallel, shards)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(list(PRESETS)), gpus=st.integers(1, 2000), memory=st.integers(1, 300),
    parallel=st.sampled_from(["fsdp", "ddp"]), checkpointing=st.sampled_from(CHECKPOINTING_KINDS),
)  # fmt: skip
def test_the_largest_micro_batch_is_the_largest(
    name: str, gpus: int, memory: int, parallel: str, checkpointing: Checkpointing
) -> None:
    entry, where = preset(name), cluster(gpus, memory=str(memory), parallel=parallel)
    wanted = entry.batch_tokens // entry.context
    used = min(gpus, wanted)
    most = fitting_sequences(entry, where, used, checkpointing)
    if most:
        assert memory_of(entry, where, used, most, checkpointing).total + RESERVE <= where.memory
    if most < max(1, round(wanted / used)):
        assert memory_of(entry, where, used, most + 1, checkpointing).total + RESERVE > where.memory


@given(name=st.sampled_from(list(PRESETS)), gpus=st.integers(1, 3000), fitting=st.integers(1, 2000))
def test_a_layout_makes_the_papers_batch_where_gpus_divide_it(name: str, gpus: int, fitting: int) -> None:
    entry = preset(name)
    wanted = entry.batch_tokens // entry.context
    batch = lay_out(entry, gpus, fitting)
    assert 1 <= batch.micro_batch <= fitting
    assert batch.gpus == min(gpus, wanted)
    if wanted % batch.gpus == 0:
        assert batch.sequences == wanted
    else:
        assert abs(batch.sequences - wanted) <= max(batch.gpus / 2, 0.05 * wanted)


def test_layouts_by_hand() -> None:
    small, largest = preset("125M"), preset("175B")  # 256 and 1,568 sequences
    assert (lay_out(small, 8, 100).micro_batch, lay_out(small, 8, 100).accumulation) == (32, 1)
    assert (lay_out(small, 8, 21).micro_batch, lay_out(small, 8, 21).accumulation) == (16, 2)
    assert lay_out(small, 1024, 9).sequences == 256  # 768 GPUs without work
    assert lay_out(largest, 784, 5).sequences == 1568
    assert lay_out(largest, 1024, 5).sequences == 2048


def test_days_are_operations_over_speed() -> None:
    """175B on 1,024 A100s at half their peak: 3.14e23 operations by 6ND, and a little more by ours, take some 23 days."""
    where = make_cluster(1024, "A100", None, None, 0.5, "auto", "fsdp")
    row = plan_rows(where)[-1]
    by_6nd = 6 * preset("175B").parameters * PAPER_TOKENS / (1024 * 312e12 * 0.5) / 86_400
    assert 22 < by_6nd < 24
    assert row["days_300b"] == pytest.approx(by_6nd * row["flops_of_6nd"])
    assert 1 < row["flops_of_6nd"] < 1.05


def test_parallel_ways_differ_as_they_should() -> None:
    ddp, fsdp = (plan_rows(cluster(8, parallel=kind)) for kind in ("ddp", "fsdp"))
    for one, other in zip(ddp, fsdp, strict=True):
        assert one["memory"]["weights"] == pytest.approx(4 * preset(one["name"]).parameters)
        assert other["memory"]["weights"] < one["memory"]["weights"] / 3.9 or one["name"] in ("demo", "17M")
        assert other["largest_micro_batch"] >= one["largest_micro_batch"] or preset(one["name"]).parameters < 1e9
    assert cluster(1).fsdp is False  # nothing to shard over


def test_copies_of_the_model_take_the_memory_of_their_shards() -> None:
    whole, copies, small = cluster(64), cluster(64, shards=8), cluster(8)
    for one, other, alone in zip(plan_rows(whole), plan_rows(copies), plan_rows(small), strict=True):
        assert one["gpus"] == other["gpus"]
        assert other["memory"]["weights"] == alone["memory"]["weights"] >= one["memory"]["weights"]
    assert plan_table(copies).startswith("64 x 80 GB, HSDP with 8 GPUs per copy, bf16")
    assert plan_table(cluster(64, shards=64)).startswith("64 x 80 GB, FSDP, bf16")
    split = make_cluster(64, "H100", None, None, 0.4, "auto", "fsdp", None, 8)
    rows = {row["name"]: row for row in plan_rows(split) if row["gradient_checkpointing"]}
    assert rows["175B"]["gpus"] == 64
    assert rows["175B"]["memory"]["weights"] == pytest.approx(4 * preset("175B").parameters / 64, rel=2e-3)
    assert rows["175B"]["memory"]["copies"] < plan_rows(whole)[-1]["memory"]["copies"] / 7
    assert rows["125M"]["remedy"] == "--tensor-parallel that divides its 12 heads"
    assert plan_table(split).startswith("64 x 80 GB, FSDP, matrices over 8 GPUs, bf16")
    with pytest.raises(InputError, match=r"^--shards 7 does not divide --gpus 64; give a divisor"):
        cluster(64, shards=7)
    with pytest.raises(InputError, match=r"^--shards is for --parallel fsdp"):
        cluster(64, parallel="ddp", shards=8)


def test_what_does_not_fit_says_what_would() -> None:
    rows = {row["name"]: row for row in plan_rows(cluster(8)) if row["gradient_checkpointing"]}
    assert not rows["175B"]["fits"]
    assert rows["175B"]["remedy"] == "FSDP over 64 GPUs with gradient checkpointing"
    assert next(r for r in plan_rows(cluster(64)) if r["name"] == "175B" and r["gradient_checkpointing"])["fits"]
    small = plan_table(cluster(1, "RTX-4090"))
    assert "1.3B does not fit. What would: FSDP over 2 GPUs." in small
    assert "175B does not fit. What would: no number of these GPUs, but 1,568 of 36 GB" in small
    none, selective, full = (row for row in plan_rows(cluster(1024)) if row["name"] == "175B")
    assert full["fits"]
    assert none["remedy"] == ("selective checkpointing" if selective["fits"] else "gradient checkpointing")


def test_names_and_amounts() -> None:
    assert gpu_called("rtx 4090") is GPUS["RTX-4090"]
    assert gpu_called("NVIDIA h100 pcie") is GPUS["H100-PCIe"]
    assert memory_bytes("80") == memory_bytes("80 GB") == 80e9
    assert memory_bytes("80GiB") == 80 * 2**30
    assert cluster(8, "V100").dtype == "float16"
    assert cluster(8, "A100", dtype="fp32").flops == 156e12


def test_the_command_prints_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    run(LadderOptions(gpus=7, gpu="A100"))
    table = capsys.readouterr().out
    assert table == plan_table(cluster(7, "A100")) + "\n"
    assert "7 GPUs do not make the paper's batch; 4 would." in table
    run(LadderOptions(gpus=8, gpu_memory="80", json=True))
    found = json.loads(capsys.readouterr().out)
    assert found["cluster"]["flops"] == pytest.approx(989e12, rel=1e-3)  # an H100's where none is named
    assert [row["name"] for row in found["plan"][::3]] == list(PRESETS)
    run(LadderOptions(gpu="H100"))
    assert capsys.readouterr().out.startswith("1 x 80 GB, one GPU, bf16")
