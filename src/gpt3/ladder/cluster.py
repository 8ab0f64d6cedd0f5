"""Which models of the ladder train on which GPUs: the micro-batch that fits, the memory's parts, the days to 300B tokens.

Arithmetic alone: gpt3.ladder.memory has the memory, gpt3.ladder.presets the operations. Nothing here imports torch.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
import re
import textwrap
from dataclasses import dataclass
from typing import Any, NamedTuple

from gpt3.errors import InputError
from gpt3.ladder.memory import CHECKPOINTING_KINDS, Checkpointing, TrainingMemory, training_memory
from gpt3.ladder.presets import PAPER_TOKENS, PRESETS, Preset, nearest, three_digits
from gpt3.tables import aligned

RESERVE = 2e9
"""Bytes of each GPU left to the CUDA context, NCCL's buffers and cuBLAS's workspace."""
BATCH_SLACK = 0.05
"""Where no micro-batch makes the paper's batch exactly, a larger one is taken if it comes this near to it."""
WITH: dict[Checkpointing, str] = {"none": "", "selective": "selective checkpointing", "full": "gradient checkpointing"}
"""Each kind of checkpointing as a remedy names it."""
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class Gpu(NamedTuple):
    """A GPU by its maker's public data sheet: dense matrix products, without sparsity."""

    name: str
    """Name on the command line."""
    memory_gb: float
    """As sold, taken as 1e9 bytes each."""
    half_tflops: float
    """1e12 operations a second in 16 bit, summed in float32."""
    single_tflops: float
    """The same for float32 tensors: in TF32, or plain where there is none."""
    bf16: bool = True
    """Whether 16 bit may be bfloat16."""


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("B200", 180, 2250, 1125),  # NVIDIA HGX B200: 36 and 18 PFLOPS per 8 with sparsity, halved
        Gpu("H200", 141, 989.5, 494.5),  # NVIDIA H200 SXM: 1,979 and 989 with sparsity, halved
        Gpu("H100", 80, 989.5, 494.5),  # NVIDIA H100 SXM: the same
        Gpu("H100-PCIe", 80, 756.5, 378),  # NVIDIA H100 PCIe: 1,513 and 756 with sparsity, halved
        Gpu("A100", 80, 312, 156),  # NVIDIA A100
        Gpu("A100-40GB", 40, 312, 156),
        Gpu("L40S", 48, 362, 183),  # NVIDIA L40S
        Gpu("V100", 32, 125, 15.7, bf16=False),  # NVIDIA V100 SXM2, the paper's GPU
        Gpu("RTX-4090", 24, 165.2, 82.6),  # NVIDIA Ada architecture white paper, appendix A
        Gpu("RTX-3090", 24, 71, 35.6),  # NVIDIA GA102 architecture white paper, appendix A
    )
}
DEFAULT_GPU = "H100"
"""Whose speed is taken when only memory is given."""


@dataclass(frozen=True)
class Cluster:
    """What a plan is made for."""

    gpus: int
    """How many."""
    memory: float
    """Bytes of each, all of them."""
    flops: float
    """Peak operations a second of each in `dtype`, dense."""
    mfu: float
    """Model FLOPs utilisation reached: useful operations over the peak; recomputed ones are not useful."""
    dtype: str
    """Of the matrix products: float32, bfloat16 or float16."""
    fsdp: bool
    """Shard weights, gradients and moments; False: DDP."""
    shards: int | None = None
    """Groups of `tensor` GPUs that share one copy of the model (HSDP); None: all that have work."""
    tensor: int = 1
    """GPUs that split each matrix and compute the same sequences (tensor parallelism)."""


@dataclass(frozen=True)
class Batch:
    """How an optimizer step's sequences are laid out: gpus x micro_batch x accumulation."""

    gpus: int
    """GPUs that have work: at most one per sequence of the paper's batch."""
    micro_batch: int
    """Sequences a GPU takes at a time."""
    accumulation: int
    """Micro-batches per step."""

    @property
    def sequences(self) -> int:
        """Sequences of a step."""
        return self.gpus * self.micro_batch * self.accumulation


def gpu_called(name: str) -> Gpu:
    """The GPU called `name`; case, spaces and dashes do not matter.

    Raises:
        InputError: it is not in the table.
    """
    plain = {re.sub(r"[^a-z0-9]", "", known.lower()): gpu for known, gpu in GPUS.items()}
    found = plain.get(re.sub(r"[^a-z0-9]", "", name.lower().removeprefix("nvidia")))
    if found is None:
        known = nearest(name.upper(), list(GPUS))
        raise InputError(f"--gpu {name!r} is unknown; {known}, or give --gpu-memory and --gpu-flops")
    return found


def memory_bytes(text: str) -> float:
    """Bytes of ``80``, ``80GB`` (both 80e9) or ``74.5GiB``.

    Raises:
        InputError: it is no amount above 0.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(gb|gib|tb|tib)?", text.strip(), re.IGNORECASE)
    if not match or not float(match[1]) > 0:
        raise InputError(f"--gpu-memory {text!r} is no amount of memory. Write 80 or 80GB (80e9 bytes), or 74.5GiB")
    scale = {"gb": 1e9, "gib": 2.0**30, "tb": 1e12, "tib": 2.0**40}[(match[2] or "gb").lower()]
    return float(match[1]) * scale


def make_cluster(
    gpus: int,
    gpu: str | None,
    gpu_memory: str | None,
    gpu_flops: float | None,
    mfu: float,
    dtype: str,
    parallel: str,
    shards: int | None = None,
    tensor_parallel: int | None = None,
) -> Cluster:
    """Settle what the options leave open.

    Args:
        gpu: a name of GPUS; memory and speed follow from it unless given.
        gpu_flops: peak of one GPU in `dtype`, operations per second.
        dtype: auto, bf16, fp16 or fp32.
        parallel: fsdp or ddp; of one GPU neither matters.
        shards, tensor_parallel: as gpt3.training's options of these names, under fsdp.

    Raises:
        InputError: an unknown GPU, a number format it does not have, shards that do not divide the GPUs, or nothing that tells
            the memory.
    """
    tensor = tensor_parallel or 1
    for option, value, each in (("--tensor-parallel", tensor_parallel, 1), ("--shards", shards, tensor)):
        if value is not None and parallel != "fsdp":
            raise InputError(f"{option} is for --parallel fsdp; add that, or leave it out")
        if value is not None and gpus % (value * each):
            raise InputError(
                f"{option} {value} does not divide --gpus {gpus}; give a divisor, such as the GPUs of a machine"
            )
    if gpu is None and gpu_memory is None:
        raise InputError("a plan needs the memory of each GPU. Add --gpu H100 or --gpu-memory 80")
    model = gpu_called(gpu or DEFAULT_GPU)
    if dtype == "auto":
        dtype = "bf16" if model.bf16 else "fp16"
    if dtype == "bf16" and not model.bf16:
        raise InputError(f"--dtype bf16: a {model.name} has none. Use --dtype fp16")
    peak = 1e12 * (model.single_tflops if dtype == "fp32" else model.half_tflops)
    memory = 1e9 * model.memory_gb if gpu_memory is None else memory_bytes(gpu_memory)
    return Cluster(
        gpus, memory, gpu_flops or peak, mfu, DTYPES[dtype], parallel == "fsdp" and gpus > tensor, shards, tensor
    )


def lay_out(preset: Preset, gpus: int, fitting: int) -> Batch:
    """The paper's batch on `gpus`, the largest micro-batch up to `fitting` sequences that makes it.

    GPUs beyond one per sequence stay idle. Where `gpus` do not divide the batch, it becomes the nearest multiple.
    """
    wanted = preset.sequences
    gpus = min(gpus, wanted)
    most = max(1, min(fitting, round(wanted / gpus)))
    layouts = [Batch(gpus, micro, max(1, round(wanted / (gpus * micro)))) for micro in range(most, 0, -1)]
    best = min(abs(layout.sequences - wanted) for layout in layouts)
    slack = max(best, BATCH_SLACK * wanted) if best else 0
    return next(layout for layout in layouts if abs(layout.sequences - wanted) <= slack)


def fitting_sequences(preset: Preset, cluster: Cluster, gpus: int, checkpointing: Checkpointing) -> int:
    """The largest micro-batch whose memory fits beside RESERVE, up to the GPU's share of the paper's batch; 0: none."""
    counts = range(1, max(1, round(preset.sequences / gpus)) + 1)  # memory grows with sequences

    def need(sequences: int) -> float:
        return memory_of(preset, cluster, gpus, sequences, checkpointing).total + RESERVE

    return bisect.bisect_right(counts, cluster.memory, key=need)


def memory_of(
    preset: Preset, cluster: Cluster, gpus: int, sequences: int, checkpointing: Checkpointing
) -> TrainingMemory:
    """gpt3.ladder.memory's estimate for one of `gpus` GPUs of `cluster` that have different sequences."""
    shards = min(gpus, cluster.shards or gpus) if cluster.fsdp else 1
    return training_memory(
        preset, cluster.dtype, sequences, checkpointing=checkpointing, shards=shards, tensor=cluster.tensor
    )


def remedy(preset: Preset, cluster: Cluster) -> str:
    """What would make one sequence fit: the fewest GPUs (by doubling), else how much memory, in a few words."""
    if preset.n_heads % cluster.tensor:
        return f"--tensor-parallel that divides its {preset.n_heads} heads"
    sharded = dataclasses.replace(cluster, fsdp=True, shards=None, tensor=1)
    gpus = cluster.gpus if cluster.fsdp else 1
    while gpus < preset.sequences:
        gpus = min(2 * gpus, preset.sequences)
        for kind in CHECKPOINTING_KINDS:
            if fitting_sequences(preset, sharded, gpus, kind):
                return f"FSDP over {gpus:,} GPUs" + (f" with {WITH[kind]}" if WITH[kind] else "")
    most = max(2, preset.sequences)
    need = memory_of(preset, sharded, most, 1, "full").total + RESERVE
    return f"no number of these GPUs, but {most:,} of {math.ceil(need / 1e9)} GB with FSDP and gradient checkpointing"


def plan_rows(cluster: Cluster) -> list[dict[str, Any]]:
    """Three dictionaries per preset, smallest first: without, with selective and with gradient checkpointing. Sizes in bytes.

    Where nothing fits, `memory` is that of one sequence and `remedy` says what would help.
    """
    rows = []
    for entry in PRESETS.values():
        tensor = cluster.tensor
        used = min(cluster.gpus // tensor, entry.sequences)
        days = PAPER_TOKENS * entry.flops_per_token / (used * tensor * cluster.flops * cluster.mfu) / 86_400
        fits = [fitting_sequences(entry, cluster, used, kind) for kind in CHECKPOINTING_KINDS]
        if entry.n_heads % tensor:
            fits = [0, 0, 0]
        helps = next((WITH[kind] for kind, fit in zip(CHECKPOINTING_KINDS, fits, strict=True) if fit), None)
        for kind, fitting in zip(CHECKPOINTING_KINDS, fits, strict=True):
            batch = lay_out(entry, used, max(1, fitting))
            memory = memory_of(entry, cluster, used, batch.micro_batch, kind)
            rows.append(
                {
                    "name": entry.name,
                    "gradient_checkpointing": kind == "full",
                    "selective_checkpointing": kind == "selective",
                    "fits": fitting > 0,
                    "largest_micro_batch": fitting,
                    **dataclasses.asdict(batch) | {"gpus": used * tensor},
                    "batch_tokens": batch.sequences * entry.context,
                    "paper_batch_tokens": entry.batch_tokens,
                    "gpus_that_divide_the_batch": tensor
                    * next(n for n in range(used, 0, -1) if entry.sequences % n == 0),
                    "memory": dataclasses.asdict(memory) | {"reserve": RESERVE, "total": memory.total + RESERVE},
                    "remedy": None if fitting else helps or remedy(entry, cluster),
                    "flops_per_token": entry.flops_per_token,
                    "flops_of_6nd": entry.flops_per_token / (6 * entry.parameters),
                    "days_300b": days if fitting else None,
                }
            )
    return rows


def plan_table(cluster: Cluster) -> str:
    """The plan as two plain tables, layout and memory, with notes on what they assume."""
    layouts = [["model", "checkpointing", "largest", "GPUs x micro x acc", "batch", "total GB", "days", "of 6ND"]]
    parts = ("weights", "gradients", "optimizer", "copies", "activations", "loss", "total")
    memory = [["model", "checkpointing", *parts]]
    rows = plan_rows(cluster)
    for row in rows:
        kind = "full" if row["gradient_checkpointing"] else "selective" if row["selective_checkpointing"] else "none"
        first = [row["name"], kind]
        sizes = [f"{row['memory'][part] / 1e9:.1f}" for part in parts]
        layout, batch, time = "-", "-", "-"
        if row["fits"]:
            gpus = f"{row['gpus'] // cluster.tensor:,}" + (f"·{cluster.tensor}" if cluster.tensor > 1 else "")
            layout = f"{gpus} x {row['micro_batch']} x {row['accumulation']}"
            batch = f"{row['batch_tokens']:,}" + ("*" if row["batch_tokens"] != row["paper_batch_tokens"] else "")
            time = three_digits(row["days_300b"])
        largest = str(row["largest_micro_batch"] or "none")
        layouts.append([*first, largest, layout, batch, sizes[-1], time, f"{row['flops_of_6nd']:.2f}"])
        memory.append([*first, *sizes])
    split = f"matrices over {cluster.tensor} GPUs, " if cluster.tensor > 1 else ""
    kind = "FSDP" if cluster.fsdp else "DDP" if cluster.gpus > cluster.tensor else "one GPU"
    if cluster.fsdp and cluster.shards and cluster.shards * cluster.tensor < cluster.gpus:
        kind = f"HSDP with {cluster.shards * cluster.tensor:,} GPUs per copy"
    short = {name: short for short, name in DTYPES.items()}[cluster.dtype]
    return "\n".join(
        [
            f"{cluster.gpus:,} x {cluster.memory / 1e9:.4g} GB, {kind}, {split}{short}, {cluster.flops / 1e12:.4g} TFLOP/s each "
            f"at {cluster.mfu:.0%} MFU",
            "",
            *aligned(layouts, left=()),
            "",
            *(line for note in notes(cluster, rows) for line in textwrap.wrap(note, 100)),
            "largest: sequences of the full context in the largest micro-batch that fits, up to the GPU's share",
            "of the batch. GPUs x micro x acc: sequences of a step; *: not the paper's batch.",
            "days: to 300B tokens, by the matrix products of this model; of 6ND: those over 6 x parameters.",
            "They count attention over the keys that its masks leave, and no positions and biases. MFU counts",
            "no recomputation: with full checkpointing a GPU reaches up to a quarter less of it.",
            "",
            "Memory of each GPU in GB (1e9 bytes):",
            *aligned(memory, left=()),
            "",
            f"The total includes {RESERVE / 1e9:.0f} GB for CUDA and NCCL. If nothing fits, it is one sequence's.",
            "copies: under FSDP the blocks gathered for a while, else 16-bit copies of the weights.",
        ]
    )


def notes(cluster: Cluster, rows: list[dict[str, Any]]) -> list[str]:
    """Notes on what does not fit, on idle GPUs and on batches that are not the paper's."""
    lines = [
        f"{row['name']} does not fit. What would: {row['remedy']}."
        for row in rows
        if not row["fits"] and row["gradient_checkpointing"]
    ]
    if idle := {row["name"]: row["gpus"] for row in rows if row["gpus"] < cluster.gpus}:
        some = ", ".join(f"{name} {used:,}" for name, used in idle.items())
        lines.append(f"More GPUs than sequences in the batch; GPUs in use: {some}.")
    changed: dict[tuple[int, int], dict[str, None]] = {}
    for row in rows:
        if row["fits"] and row["batch_tokens"] != row["paper_batch_tokens"]:
            changed.setdefault((row["gpus"], row["gpus_that_divide_the_batch"]), {})[row["name"]] = None
    for (used, dividing), names in changed.items():
        other = f"{dividing:,}" if dividing < used else "a smaller micro-batch"
        lines.append(f"* {', '.join(names)}: {used:,} GPUs do not make the paper's batch; {other} would.")
    return list(dict.fromkeys(lines))
