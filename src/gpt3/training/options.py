"""What a pretraining run can be told. The same names in YAML, on the command line and in Python."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Literal

from gpt3.errors import InputError

OPTIMIZERS = ("adamw", "muon", "lion")
TRACKERS = ("none", "wandb", "tensorboard")
SUFFIXES = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


@dataclass(frozen=True)
class TrainOptions:
    """Pretrain a GPT-3. With no options: the demo, a small model of embedded Wikipedia text in a few minutes."""

    model: str = "demo"
    """The shape: a preset of `gpt3 ladder` (17M, 125M, ... 175B) or demo."""
    data: list[str] = field(default_factory=lambda: ["wiki"])
    """What to read: a shard folder of `gpt3 prepare`, or sources (wiki, fineweb, hf:owner/name, files, folders, globs)."""
    mixture: str | None = None
    """A YAML file of several sources with weights in tokens (paper Table 2.2), in place of --data; see docs/mixtures.md."""
    val: list[str] = field(default_factory=list)
    """Further validation sets, as NAME=SOURCE; several are allowed. All their documents are scored."""
    tokenizer: str | None = None
    """gpt2, a tokenizer folder, or own:N (a byte-level BPE of N entries trained on the data). Default: the preset's."""
    out: str | None = None
    """The run folder. Default: runs/MODEL, with a number behind it when that is taken."""
    tokens: str | None = None
    """Tokens to train on, such as 300B or 2.5M. Default: 4 epochs of the data, at most the paper's 300B."""
    steps: int | None = None
    """Optimizer steps; in place of --tokens."""
    minutes: float | None = None
    """Wall-clock minutes to train for, in place of --tokens: a few steps are timed first, then the schedule is laid out."""
    batch_tokens: int | None = None
    """Tokens an optimizer step sees. Default: the preset's (paper Table 2.1), at most a thousandth of the run's tokens."""
    micro_batch: int | None = None
    """Sequences a forward pass sees; gradients are accumulated over batch-tokens. Default: about 8,192 tokens."""
    context: int | None = None
    """Tokens in a sequence, and positions of the model: none is left untrained. Default: the preset's."""
    lr: float | None = None
    """Peak learning rate. Default: the preset's (paper Table 2.1)."""
    min_lr_ratio: float = 0.1
    """The learning rate at the end of the cosine, as a share of the peak (paper App. B: 10%)."""
    warmup_tokens: int | None = None
    """Tokens of linear warm-up. Default: the paper's 375M (App. B), at most a tenth of the run (see docs/training.md)."""
    decay_tokens: int | None = None
    """Tokens after which the cosine has reached its end. Default: the paper's 260B of 300B scaled to the run."""
    ramp_tokens: int | None = None
    """Tokens over which the batch grows from 32k to --batch-tokens; 0: whole from the start. Default: the paper's 4B to 12B by
    size, of 300B (App. B), scaled to the run."""
    optimizer: Literal["adamw", "muon", "lion"] = "adamw"
    """adamw (paper App. B); muon for the matrices of the layers, with AdamW for the rest; or lion."""
    weight_decay: float = 0.1
    """Decoupled weight decay of matrices, embeddings among them; biases and gains have none (paper App. B: 0.1)."""
    beta1: float = 0.9
    """Adam's first-moment decay (paper App. B)."""
    beta2: float | None = None
    """Adam's second-moment decay. Default: the paper's 0.95 (App. B); 0.99 for batches below 32k tokens (docs/training.md)."""
    eps: float = 1e-8
    """Adam's epsilon (paper App. B)."""
    muon_lr: float | None = None
    """Peak learning rate of muon's matrices. Default: --lr, which serves (Liu et al. 2025, arXiv 2502.16982)."""
    muon_momentum: float = 0.95
    """Muon's momentum, Nesterov's (Jordan et al. 2024)."""
    lion_lr: float | None = None
    """Peak learning rate of lion. Default: a fifth of --lr (Chen et al. 2023, arXiv 2302.06675: 3 to 10 times smaller)."""
    lion_beta1: float = 0.95
    """Lion's share of the momentum in an update (Chen et al. 2023, for language models)."""
    lion_beta2: float = 0.98
    """Lion's momentum decay (Chen et al. 2023, for language models)."""
    clip: float = 1.0
    """Largest global gradient norm; 0 turns clipping off (paper App. B: 1.0)."""
    ema: float | None = None
    """Decay of an exponential moving average of the weights, such as 0.999; it is what is validated and becomes the final model.
    Default: none, as in the paper."""
    spike_sigmas: float = 6.0
    """A step whose loss or gradient norm lies this many standard deviations above the last --spike-window steps' is skipped;
    0: only steps that are not finite are."""
    spike_window: int = 128
    """Steps that a spike is measured against."""
    spike_patience: int = 10
    """So many skipped steps in a row stop the run."""
    dropout: float = 0.0
    """Dropout of embeddings, attention and residuals (the paper names none)."""
    mask_documents: bool = False
    """Keep packed documents from seeing one another (the paper does not)."""
    layers: int | None = None
    """Layers, in place of the preset's."""
    width: int | None = None
    """d_model, in place of the preset's."""
    heads: int | None = None
    """Attention heads, in place of the preset's."""
    window: int | None = None
    """Keys that a banded layer's query sees, itself included, in place of the preset's."""
    seed: int = 1337
    """Seed of the initial weights and of the order of the data."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """What matrix products are computed in; weights stay fp32. auto: bf16 on CUDA that has it (fp16 with a loss scaler on older
    cards), and on a CPU where it measures faster."""
    compile: bool | None = None
    """torch.compile the model. Default: on CUDA."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """With several ranks (torchrun, --nproc): each holds the whole model (ddp) or a part of every tensor (fsdp)."""
    nproc: int | None = None
    """Start so many ranks on this machine; several machines are started by torchrun (docs/scaling-out.md)."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: about a third more time for much less memory."""
    validation_fraction: float = 0.005
    """The share of documents held out when the data is prepared here."""
    validate_every: int | None = None
    """Steps between validations. Default: ten a run."""
    validation_tokens: int = 100_000
    """Tokens of a validation while training; the last one reads the whole held-out split."""
    early_stop: int | None = None
    """Stop after so many validations in a row without a better loss. Default: never."""
    early_stop_on: str | None = None
    """The --val set that --early-stop and the best checkpoint go by. Default: the run's own held-out documents."""
    folds: int | None = None
    """K-fold cross-validation: K runs under --out, each holding out another K-th of the documents, and a table of them."""
    fold: str | None = None
    """K/N: hold out the K-th of N equal shares of the documents, in place of --validation-fraction; one run of --folds N."""
    sample_every: int | None = None
    """Steps between samples. Default: at every validation."""
    sample_prompt: list[str] = field(default_factory=list)
    """What samples start from. Default: the beginnings of three held-out documents' first lines."""
    probe: list[str] = field(default_factory=list)
    """Generated tasks to ask at every validation, such as arithmetic and wiki-topic (docs/evaluation.md); may be repeated."""
    checkpoint_every: int | None = None
    """Steps between checkpoints. Default: ten a run, and at the end."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints stay; the best one by validation loss stays too."""
    keep_every: int | None = None
    """Checkpoints at multiples of so many steps stay for ever."""
    resume: str = "auto"
    """auto: go on with an unfinished run of these options in --out; never; or a checkpoint folder."""
    track: list[str] = field(default_factory=lambda: ["none"])
    """wandb and/or tensorboard beside metrics.jsonl."""
    log_every: int | None = None
    """Steps between records of metrics.jsonl. Default: at most 10,000 records a run."""
    profile: int | None = None
    """Write a torch profiler trace of so many steps into the run folder's profile/."""
    plan: bool = False
    """Print and draw the whole plan, with the time of a measured step, and train nothing."""
    workers: int | None = None
    """Processes that prepare the data. Default: one a core."""

    @property
    def probe_names(self) -> list[str]:
        """--probe, split at its commas."""
        return [name.strip() for text in self.probe for name in text.split(",") if name.strip()]

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise InputError("; ".join(problems))

    def _problems(self):  # type: ignore[no-untyped-def]
        """Each thing wrong, with its value and the remedy."""
        budgets = [f"--{n}" for n in ("tokens", "steps", "minutes") if getattr(self, n) is not None]
        if len(budgets) > 1:
            yield f"{' and '.join(budgets)} both say how long to train; give one"
        if self.tokens is not None:
            try:
                count(self.tokens)
            except ValueError:
                yield f"--tokens {self.tokens!r} is not a number of tokens; write 2500000, 2.5M or 300B"
        for name in ("steps", "minutes", "batch_tokens", "micro_batch", "context", "layers", "width", "heads", "window",
                     "validate_every", "sample_every", "checkpoint_every", "keep_every", "log_every", "early_stop", "nproc",
                     "profile", "spike_patience", "workers"):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                yield f"--{name.replace('_', '-')} {value} must be above 0"
        for name in ("beta1", "beta2", "muon_momentum", "lion_beta1", "lion_beta2"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                yield f"--{name.replace('_', '-')} {value} must be at least 0 and below 1"
        for name in ("lr", "muon_lr", "lion_lr", "eps"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                yield f"--{name.replace('_', '-')} {value} must be a number above 0"
        if self.optimizer not in OPTIMIZERS:
            yield f"--optimizer {self.optimizer!r} is unknown; choose from {', '.join(OPTIMIZERS)}"
        if self.parallel not in ("ddp", "fsdp"):
            yield f"--parallel {self.parallel!r} is unknown; choose ddp or fsdp"
        for prefix in ("muon", "lion"):
            if self.optimizer != prefix and getattr(self, f"{prefix}_lr") is not None:
                yield f"--{prefix}-lr is for --optimizer {prefix}, not {self.optimizer}; use --lr"
        for name in ("min_lr_ratio", "dropout"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                yield f"--{name.replace('_', '-')} {value} must lie between 0 and 1"
        for name in (
            "warmup_tokens",
            "decay_tokens",
            "ramp_tokens",
            "weight_decay",
            "clip",
            "validation_tokens",
            "spike_sigmas",
        ):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                yield f"--{name.replace('_', '-')} {value} must be a number from 0 up"
        if not 0 < self.validation_fraction < 1:
            yield f"--validation-fraction {self.validation_fraction} must lie between 0 and 1"
        if self.ema is not None and not 0 < self.ema < 1:
            yield f"--ema {self.ema} must lie between 0 and 1"
        if self.spike_window < 2:
            yield f"--spike-window {self.spike_window} must be at least 2"
        if self.keep_checkpoints < 1:
            yield f"--keep-checkpoints {self.keep_checkpoints} must be at least 1"
        if self.mixture is not None and self.data != ["wiki"]:
            yield f"--mixture {self.mixture} and --data {' '.join(self.data)} both name the data; give one"
        if not self.data:
            yield "--data is empty; name a source, such as wiki"
        for name in self.track:
            if name not in TRACKERS:
                yield f"--track {name!r} is unknown; choose from {', '.join(TRACKERS)}"


def count(text: str | int) -> int:
    """A number such as ``2500000``, ``2.5M``, ``300B`` or ``1e9`` as an int.

    Raises:
        ValueError: it is none, or not above 0.
    """
    match = re.fullmatch(r"([0-9][0-9_,]*\.?[0-9]*(?:e[0-9]+)?)([KMBT]?)", str(text).strip(), re.IGNORECASE)
    if not match:
        raise ValueError(text)
    number = round(float(match[1].replace(",", "").replace("_", "")) * SUFFIXES[match[2].upper()])
    if number < 1:
        raise ValueError(text)
    return number
