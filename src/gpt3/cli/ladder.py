"""``gpt3 ladder``. Apart from gpt3.ladder.presets, so that listing the options loads no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LadderOptions:
    """The paper's models and two small ones: shapes, exact parameter counts, compute, memory. With --gpus: what fits there."""

    json: bool = False
    """Print JSON in place of the table."""
    gpus: int | None = None
    """Plan training on so many GPUs: which models fit, with which micro-batch, the days to 300B tokens (docs/scaling-out.md)."""
    gpu: str | None = None
    """Their kind: B200, H200, H100, H100-PCIe, A100, A100-40GB, L40S, V100, RTX-4090 or RTX-3090; memory and peak as sold."""
    gpu_memory: str | None = None
    """Memory of each: 80 or 80GB for 80e9 bytes, or 74.5GiB. Default: that of --gpu."""
    gpu_flops: float | None = None
    """Peak dense matrix operations per second of each in --dtype. Default: those of --gpu, or an H100's 989e12."""
    mfu: float = 0.4
    """Model FLOPs utilisation to count on, a share of that peak (0.4 is a usual value)."""
    dtype: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """What matrix products are computed in; weights and moments stay fp32. auto: bf16, or fp16 where a GPU has none."""
    parallel: Literal["fsdp", "ddp"] = "fsdp"
    """fsdp: weights, gradients and moments sharded over the GPUs; ddp: each GPU holds all of them."""


def run(options: LadderOptions) -> None:
    """Print the ladder, or the plan for some GPUs."""
    import dataclasses
    import json

    from gpt3.ladder.presets import ladder_rows, ladder_table

    plain = LadderOptions(json=options.json)
    if options == plain:
        print(json.dumps(ladder_rows(), indent=2) if options.json else ladder_table())
        return

    from gpt3.ladder.cluster import make_cluster, plan_rows, plan_table

    cluster = make_cluster(
        gpus=1 if options.gpus is None else options.gpus,
        gpu=options.gpu,
        gpu_memory=options.gpu_memory,
        gpu_flops=options.gpu_flops,
        mfu=options.mfu,
        dtype=options.dtype,
        parallel=options.parallel,
    )
    if options.json:
        print(json.dumps({"cluster": dataclasses.asdict(cluster), "plan": plan_rows(cluster)}, indent=2))
    else:
        print(plan_table(cluster))
