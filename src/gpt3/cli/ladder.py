"""``gpt3 ladder``: the paper's models, and what fits on given GPUs. Listing the options loads no model."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Literal

from gpt3.ladder.cluster import make_cluster, plan_rows, plan_table
from gpt3.ladder.presets import ladder_rows, ladder_table
from gpt3.options import DType, Options, option


@dataclass(frozen=True)
class LadderOptions(Options):
    """The paper's models and two small ones: shapes, exact parameter counts, compute, memory. With --gpus: what fits there."""

    json: bool = option(False, group="Output", common=True)
    """Print JSON instead of tables."""
    gpus: int | None = option(None, least=1, most=1 << 20, group="Cluster", common=True)
    """Plan training on this many GPUs: which models fit, micro-batches, days to 300B tokens (docs/scaling-out.md)."""
    gpu: str | None = option(None, common=True)
    """B200, H200, H100, H100-PCIe, A100, A100-40GB, L40S, V100, RTX-4090 or RTX-3090."""
    gpu_memory: str | None = option(None, common=True)
    """Memory of each: 80 or 80GB for 80e9 bytes, or 74.5GiB. Default: that of --gpu."""
    gpu_flops: float | None = option(None, least=1e9, most=1e17)
    """Peak dense matrix operations per second of each in --dtype. Default: those of --gpu, or an H100's 989e12."""
    mfu: float = option(0.4, above=0, most=1)
    """Model FLOPs utilisation to expect: a share of that peak."""
    dtype: DType = option("auto")
    """Number format of matrix products; weights and moments stay fp32. auto: bf16, or fp16 if the GPU has no bf16."""
    parallel: Literal["fsdp", "ddp"] = option("fsdp")
    """fsdp: weights, gradients and moments sharded over the GPUs; ddp: each GPU holds all of them."""
    shards: int | None = option(None, least=2)
    """With fsdp: GPUs that share one copy of the model, such as a machine's (HSDP). Default: all."""
    tensor_parallel: int | None = option(None, least=2)
    """With fsdp: GPUs that split each matrix; --shards then counts groups of them. Default: none."""


def run(options: LadderOptions) -> None:
    """Print the ladder, or the plan for some GPUs."""
    if options == LadderOptions(json=options.json):
        print(json.dumps(ladder_rows(), indent=2) if options.json else ladder_table())
        return
    wanted = {name: value for name, value in vars(options).items() if name != "json"}
    cluster = make_cluster(**wanted | {"gpus": options.gpus or 1})
    if options.json:
        print(json.dumps({"cluster": dataclasses.asdict(cluster), "plan": plan_rows(cluster)}, indent=2))
    else:
        print(plan_table(cluster))
