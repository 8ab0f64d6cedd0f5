"""A compiled run: few sizes of batches during a ramp, and the run of the eager one; no compiler means eager, and a line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from checkpoint_case import make_model
from hypothesis import given
from hypothesis import strategies as st
from torch._dynamo.utils import counters
from torch.distributed.fsdp import fully_shard

from gpt3.device import compile_failure
from gpt3.errors import InputError
from gpt3.report.run_folder import read_metrics
from gpt3.training.compilation import SIZES, chooses_compile, compile_block, is_compiled, sizes
from gpt3.training.distributed import ALONE
from gpt3.training.options import TrainOptions
from gpt3.training.run import train


@given(st.integers(1, 300), st.integers(1, 64))
def test_every_share_fits_into_few_sizes(share: int, micro: int) -> None:
    eager, compiled = list(sizes(share, micro, False)), list(sizes(share, micro, True))
    assert sum(eager) == share
    assert len(compiled) == len(eager)
    assert all(rows <= padded <= micro for rows, padded in zip(eager, compiled, strict=True))
    assert set(compiled) <= {-(-micro // 2**n) for n in range(SIZES)}
    assert sum(compiled) - share < max(
        -(-micro // 2), 2
    )  # at most half of the last one is empty, or an eighth of a whole one


def test_a_ramp_is_compiled_for_few_sizes_and_is_the_run_of_eager(tiny, tmp_path: Path, monkeypatch) -> None:
    graphs: list[int] = []

    def keep(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        graphs.append(sum("scaled_dot_product" in str(node.target) for node in graph.graph.nodes))
        return graph.forward

    compile_with = torch.compile
    monkeypatch.setattr("gpt3.training.plan.PAPER_RAMP_START_TOKENS", 32)  # one sequence; then 2, ... to the batch's 8
    options = {"layers": 1, "steps": 12, "ramp_tokens": 800, "micro_batch": 2}
    train(tiny(out=str(tmp_path / "eager"), **options))
    compile_failure.cache_clear()
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", lambda function, **kw: compile_with(function, backend=keep, **kw))
    train(tiny(out=str(tmp_path / "compiled"), compile=True, **options))
    compile_failure.cache_clear()
    assert (
        len([count for count in graphs if count]) == 2
    )  # steps of 1, 2, ... sequences have micro-batches of 2 rows, or 1
    assert len({row["batch_tokens"] for row in read_metrics(tmp_path / "eager" / "metrics.jsonl") if "loss" in row}) > 4
    compiled, eager = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("compiled", "eager"))
    for one, other in zip(compiled, eager, strict=True):
        assert one.get("batch_tokens") == other.get("batch_tokens")
        for name in one.keys() & {"loss", "grad_norm", "val/loss"}:
            assert one[name] == pytest.approx(other[name], rel=1e-4)


@pytest.mark.skipif(sys.platform != "linux", reason="gloo with DTensor is tested on Linux")
def test_sharded_blocks_share_two_graphs_and_keep_their_hooks_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[int] = []

    def keep(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **kw: compile_with(function, backend=keep, **kw))
    torch._dynamo.reset()
    counters.clear()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
        model = make_model(num_hidden_layers=4).train()
        assert not is_compiled(model)
        for block in model.transformer.h:
            compile_block(block)
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        assert is_compiled(model)
        for _ in range(2):
            tokens = torch.randint(33, (2, 16))
            model(tokens, shift_labels=tokens, skip_logits=True, use_cache=False).loss.backward()
        assert len(graphs) == 2  # a dense and a banded block
        assert not counters["graph_break"]
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # as in evaluation
            model(tokens[:1, :5])
        assert len(graphs) == 2
    finally:
        dist.destroy_process_group()


CODE = """
import torch
from gpt3.device import compile_failure
print(compile_failure(torch.device("cpu")))
"""


@pytest.mark.slow
def test_a_machine_without_a_compiler_is_recognised(tmp_path: Path) -> None:
    environment = os.environ | {
        "PATH": str(tmp_path),
        "CXX": "/no/such/compiler",
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
    }
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() not in ("", "None"), done.stderr


def test_without_a_compiler_the_default_is_eager_and_says_so_and_the_option_is_refused(monkeypatch, capsys) -> None:
    cuda = torch.device("cuda")
    monkeypatch.setattr(
        "gpt3.training.compilation.compile_failure", lambda device: "Cannot find a working triton installation"
    )
    assert not chooses_compile(TrainOptions(), cuda, ALONE)
    assert "torch.compile does not work here (Cannot find a working triton" in capsys.readouterr().err
    with pytest.raises(
        InputError, match=r"^--compile: torch\.compile does not work here \(Cannot find a working triton"
    ):
        chooses_compile(TrainOptions(compile=True), cuda, ALONE)
    assert not chooses_compile(TrainOptions(compile=False), cuda, ALONE)
    assert not chooses_compile(TrainOptions(), torch.device("cpu"), ALONE)
    monkeypatch.setattr("gpt3.training.compilation.compile_failure", lambda device: None)
    assert chooses_compile(TrainOptions(), cuda, ALONE)
    assert capsys.readouterr().err == ""
