"""The options of a pretraining run: the same names in YAML, on the command line and in Python."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from gpt3.adaptive_threads import threads_error
from gpt3.corpus.options import FEWEST_FOLDS, MOST_FOLDS
from gpt3.curation.options import FILTERS
from gpt3.ladder.memory import Checkpointing
from gpt3.options import DType, Options, flag, option
from gpt3.training.continuing import conflicts
from gpt3.training.optimizers import OPTIMIZERS
from gpt3.training.recipes import RECIPES, SCHEDULES

DEMO, AUTO = "demo", "auto"
"""Values of --model besides the presets of the ladder: the default, and the size that gpt3.training.automatic chooses."""
SUFFIXES = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


@dataclass(frozen=True)
class TrainOptions(Options):
    """Pretrain a GPT-3. With no options: the demo, a small model of embedded Wikipedia text in a few minutes."""

    model: str | None = option(None, group="Model", common=True)
    """demo, a preset of `gpt3 ladder` (17M, … 175B), or auto, the best for the time. Default: auto with --minutes, else demo."""
    init_from: str | None = option(None, common=True)
    """Start from these weights and their tokenizer: a folder, run, hub id, adapter, or a name such as gpt2."""
    layers: int | None = option(None, least=1)
    """Number of layers. Default: the preset's."""
    width: int | None = option(None, least=1)
    """Width of the residual stream (d_model). Default: the preset's."""
    heads: int | None = option(None, least=1)
    """Attention heads per layer. Default: the preset's."""
    window: int | None = option(None, least=1)
    """Keys that a query of a sliding-window layer sees, itself included. Default: the preset's."""
    context: int | None = option(None, least=1, common=True)
    """Tokens in a training sequence. Default: the preset's, or all positions of --init-from."""
    positions: int | None = option(None, least=1)
    """Positions of the model, at least --context; those beyond it stay untrained. Default: --context."""
    pre_layernorm: bool = option(True)
    """Layer norms before each sub-block, as in GPT-3; --no-pre-layernorm: after each residual sum (post-LN)."""
    dropout: float = option(0.0, least=0, most=1)
    """Dropout of embeddings, attention and residuals (the paper names none)."""
    seed: int = option(1337, least=0)
    """Seed of the initial weights and of the order of the data."""

    data: list[str] = option(["wiki"], known="gpt3.corpus.sources:known_sources", group="Data", common=True)
    """Training data: {known}."""
    mixture: str | None = option(None)
    """A YAML file of sources with weights, instead of --data (docs/mixtures.md)."""
    replay: list[str] = option([])
    """Old text to mix in, as a share of all tokens: wiki=5% (docs/init-from.md). Default: none."""
    tokenizer: str | None = option(None)
    """gpt2, a tokenizer folder, or own:N to train a BPE of N entries. Default: the preset's."""
    filter: str = option("none", choices=FILTERS)
    """Leave out documents that break the rules of these filters for web pages (docs/corpus.md)."""
    near_duplicates: bool = option(False)
    """Leave out near-duplicates of earlier documents, in all of the data (docs/corpus.md)."""
    mask_documents: bool = option(False)
    """Prevent attention between documents packed into one sequence (the paper does not)."""
    workers: int | None = option(None, least=1)
    """Processes that prepare the data. Default: one per core."""
    stream: Literal["auto", "on", "off"] = option("auto")
    """Begin before all data is prepared. auto: where it is over 256 MB and the run's length is given."""

    tokens: str | None = option(None, group="Length and batch", common=True)
    """Tokens to train on, such as 300B or 2.5M. Default: 4 epochs of the data, at most 300B."""
    steps: int | None = option(None, least=1, common=True)
    """Optimizer steps, instead of --tokens."""
    minutes: float | None = option(None, above=0, common=True)
    """Minutes to train for, instead of --tokens; the first steps are timed to plan the rest."""
    batch_tokens: int | str | None = option(None, least=1, common=True)
    """Tokens per optimizer step, such as 32768 or 0.5M. Default: the preset's, at most 1/1000 of the run's tokens."""
    micro_batch: int | None = option(None, least=1)
    """Sequences per forward pass; gradients accumulate over a step. Default: what fits in memory, about 8,192 tokens."""
    ramp_tokens: int | None = option(None, least=0)
    """Tokens over which the batch grows from 32k; 0: no ramp. Default: the paper's, scaled to the run."""

    recipe: str = option("auto", choices=("auto", *RECIPES), group="Optimizer", common=True)
    """Where optimizer and schedule come from: auto is paper from batches of 32k tokens up, short below."""
    optimizer: str | None = option(None, choices=OPTIMIZERS)
    """The optimizer; docs/training.md compares them. Default: the recipe's (paper: adamw, short: muon)."""
    lr: float | None = option(None, above=0, common=True)
    """Peak learning rate. Default: the preset's (paper Table 2.1), 5 times that with Muon in the short recipe."""
    schedule: str | None = option(None, choices=SCHEDULES)
    """How the rate falls after its warm-up. Default: the recipe's (paper: cosine, short: linear)."""
    min_lr_ratio: float | None = option(None, least=0, most=1)
    """Learning rate at the end, as a share of the peak. Default: the recipe's (paper: 0.1, short: 0)."""
    warmup_tokens: int | None = option(None, least=0)
    """Tokens of linear warm-up. Default: the paper's 375M, at most a tenth of the run (short: a twentieth)."""
    decay_tokens: int | None = option(None, least=0)
    """Tokens after which the rate has fallen. Default: 260/300 of the run, as in the paper (short: all)."""
    weight_decay: float = option(0.1, least=0)
    """Decoupled weight decay of matrices and embeddings; biases and gains have none (App. B)."""
    beta1: float = option(0.9, least=0, below=1)
    """Adam's first-moment decay (paper App. B)."""
    beta2: float | None = option(None, least=0, below=1)
    """Adam's second-moment decay. Default: 0.95 (App. B); 0.99 for batches below 32k tokens."""
    eps: float = option(1e-8, above=0)
    """Adam's epsilon (paper App. B)."""
    muon_lr: float | None = option(None, above=0)
    """Peak learning rate of Muon's matrices. Default: --lr (Liu et al. 2025); short: two thirds."""
    muon_momentum: float = option(0.95, least=0, below=1)
    """Muon's Nesterov momentum (Jordan et al. 2024)."""
    lion_lr: float | None = option(None, above=0)
    """Peak learning rate of Lion. Default: a fifth of --lr (Chen et al. 2023)."""
    lion_beta1: float = option(0.95, least=0, below=1)
    """Share of Lion's momentum in an update (Chen et al. 2023)."""
    lion_beta2: float = option(0.98, least=0, below=1)
    """Decay of Lion's momentum (Chen et al. 2023)."""
    opt_state_on_cpu: bool = option(False)
    """Keep the optimizer's state on the CPU, and take its steps there: slower, for GPUs of little memory."""
    ema: float | None = option(None, above=0, below=1)
    """Decay of a moving average of the weights, which becomes the final model. Default: no average."""

    clip: float = option(1.0, least=0, group="Stability")
    """Largest global gradient norm; 0 turns clipping off (paper App. B)."""
    spike_sigmas: float = option(6.0, least=0)
    """Skip a step whose loss or gradient norm is this many deviations too high; 0: only if not finite."""
    spike_window: int = option(128, least=2)
    """Number of recent steps against which a spike is judged."""
    spike_patience: int = option(10, least=1)
    """Stop the run after this many skipped steps in a row."""

    validation_fraction: float = option(0.005, least=0, below=1, group="Validation")
    """Share of the documents held out for validation; 0: none."""
    val: list[str] = option([])
    """Further validation sets, each NAME=SOURCE; all their documents are scored."""
    validate_every: int | None = option(None, least=1)
    """Steps between validations. Default: ten per run."""
    validation_tokens: int = option(100_000, least=0)
    """Tokens per set of a validation during training; the last validation reads everything."""
    validation_share: float | None = option(0.1, above=0)
    """Largest share of the training time for those validations: they read fewer tokens, at least 8,192."""
    early_stop: int | None = option(None, least=1)
    """Stop after this many validations in a row without a better loss. Default: never."""
    early_stop_on: str | None = option(None)
    """The --val set that decides the best checkpoint and --early-stop. Default: the held-out documents."""
    fold: str | None = option(None)
    """K/N: hold out the K-th of N equal parts of the documents, instead of --validation-fraction."""
    folds: int | None = option(None, least=FEWEST_FOLDS, most=MOST_FOLDS)
    """K-fold cross-validation: K runs in --out, each with another part held out, and their table."""
    probe: list[str] = option([])
    """Generated tasks to evaluate at every validation, such as arithmetic (docs/evaluation.md)."""

    sample_every: int | None = option(None, least=1, group="Samples")
    """Steps between samples. Default: at every validation."""
    sample_prompt: list[str] = option([])
    """Prompts of the samples. Default: the first lines of three held-out documents, or of training ones."""

    out: str | None = option(None, group="Run folder and checkpoints", common=True)
    """The run folder. Default: runs/DATA (of wiki: runs/MODEL), with a numeric suffix if that is taken."""
    resume: str = option("auto", common=True)
    """auto: resume an unfinished run of these options; never; or a run or checkpoint folder to continue."""
    checkpoint_every: int | None = option(None, least=1)
    """Steps between checkpoints. Default: ten per run, and one at the end."""
    keep_checkpoints: int = option(2, least=1)
    """Newest checkpoints to keep; the best one by validation loss is kept too."""
    keep_every: int | None = option(None, least=1)
    """Keep checkpoints at multiples of this many steps forever. Default: none."""

    track: list[str] = option(["none"], choices=("none", "wandb", "tensorboard"), group="Tracking")
    """Where to log besides metrics.jsonl: none, wandb, tensorboard."""
    log_every: int | None = option(None, least=1)
    """Steps between records of metrics.jsonl. Default: at most 10,000 records per run."""
    noise_scale: bool = option(False)
    """Measure the gradient noise scale: in tokens; a batch far above it saves few steps (docs/training.md)."""
    profile: int | None = option(None, least=1)
    """Record a torch profiler trace of this many steps in the run folder's profile/."""
    plan: bool = option(False, common=True)
    """Print the whole plan, with a time estimate from a few measured steps, and train nothing."""

    device: str = option("auto", group="Hardware", common=True)
    """auto, cpu, cuda, cuda:N or mps."""
    trust_device: bool = option(False)
    """Train on a GPU also where it does not compute what the CPU does (checked once for each torch and driver)."""
    dtype: DType = option("auto")
    """Format of matrix products; weights stay fp32. auto: bf16 where the device supports it well."""
    threads: str = option("auto", common=True)
    """CPU threads: auto adapts to what else the machine does; a number is fixed, for bit-equal results."""
    compile: bool | None = option(None)
    """Compile the model with torch.compile. Default: on CUDA, where it works."""
    gradient_checkpointing: bool = option(False)
    """Recompute activations in the backward pass: a third more time for much less memory."""
    selective_checkpointing: bool = option(False)
    """Recompute all but matrix products and attention: little more time for less memory."""
    nproc: int | None = option(None, least=1)
    """Processes to start on this machine, one per GPU (several machines: docs/scaling-out.md)."""
    parallel: Literal["ddp", "fsdp"] = option("ddp")
    """With several processes: each holds the whole model (ddp) or a part of every tensor (fsdp)."""
    shards: int | None = option(None, least=2)
    """With fsdp: processes that share one copy of the model, such as a machine's GPUs (HSDP). Default: all."""
    tensor_parallel: int | None = option(None, least=2)
    """With fsdp: neighbouring processes that split each matrix, for models too large for a GPU's sequence. Default: none."""
    regather: bool | None = option(None)
    """With fsdp: free a layer's weights after its forward pass, and gather them again. Default: where memory is short."""
    reduce_once: bool | None = option(None)
    """With fsdp: keep whole gradients, and exchange them once per step. Default: where memory allows."""

    def __post_init__(self) -> None:
        if isinstance(self.tokens, int):  # gpt3.train(tokens=2_500_000)
            object.__setattr__(self, "tokens", str(self.tokens))
        if isinstance(self.batch_tokens, str) and self.batch_tokens.isdigit():
            object.__setattr__(self, "batch_tokens", int(self.batch_tokens))
        if isinstance(self.threads, int):  # threads: 2 in YAML
            object.__setattr__(self, "threads", str(self.threads))
        super().__post_init__()

    @property
    def probe_names(self) -> list[str]:
        """--probe, split at its commas."""
        return [name.strip() for text in self.probe for name in text.split(",") if name.strip()]

    @property
    def size(self) -> str:
        """``--model``, and where it is not given what it defaults to."""
        if self.model is not None:
            return self.model
        given = (self.init_from, self.layers, self.width, self.heads, self.window, self.fold, self.folds)
        return AUTO if self.minutes is not None and set(given) == {None} else DEMO

    @property
    def checkpointing(self) -> Checkpointing:
        """What each block keeps for its backward pass."""
        return "full" if self.gradient_checkpointing else "selective" if self.selective_checkpointing else "none"

    @property
    def is_demo(self) -> bool:
        """Whether this is the demo, and no length is given."""
        length = (self.tokens, self.steps, self.minutes)
        return self.size == DEMO and self.init_from is None and length == (None, None, None)

    def errors(self) -> Iterable[str]:
        """What single ranges cannot express."""
        budgets = [f"--{name}" for name in ("tokens", "steps", "minutes") if getattr(self, name) is not None]
        if len(budgets) > 1:
            yield f"{' and '.join(budgets)} both say how long to train; give one"
        for name in ("tokens", "batch_tokens"):
            if isinstance(text := getattr(self, name), str):
                try:
                    count(text)
                except ValueError:
                    yield f"{flag(name)} {text!r} is not a number of tokens; write 2500000, 2.5M or 300B"
        if self.size == AUTO and None in (shape := (self.layers, self.width, self.heads)):
            if {*shape} != {None}:
                yield "--model auto chooses --layers, --width and --heads; leave them out, or name another --model"
            if self.tokens is None and self.minutes is None:
                yield "--model auto needs the run's length; give --minutes or --tokens"
            if self.fold is not None or self.folds is not None:
                yield "--model auto would choose for each fold anew; with --fold or --folds name another --model"
        recipes = RECIPES.values() if self.recipe == "auto" else [RECIPES[self.recipe]]
        takes = {self.optimizer} if self.optimizer else {recipe.optimizer for recipe in recipes}
        for name in OPTIMIZERS.keys() - takes:
            if getattr(self, f"{name}_lr", None) is not None:
                yield f"{flag(f'{name}_lr')} is for --optimizer {name}, not {' or '.join(sorted(map(str, takes)))}; use --lr"
        if self.mixture is not None and self.data != ["wiki"]:
            yield f"--mixture {self.mixture} and --data {' '.join(self.data)} both name the data; give one"
        for name in ("shards", "tensor_parallel", "regather", "reduce_once"):
            if self.parallel != "fsdp" and getattr(self, name) is not None:
                yield f"{flag(name)} is for --parallel fsdp; add that, or leave it out"
        if self.gradient_checkpointing and self.selective_checkpointing:
            yield "--gradient-checkpointing and --selective-checkpointing both say what is computed again; give one"
        if self.noise_scale and self.parallel == "fsdp":
            yield "--noise-scale does not work with --parallel fsdp; leave one of them out"
        if self.tensor_parallel and (self.dropout or self.compile or self.opt_state_on_cpu):
            other = "--compile" if self.compile else "--opt-state-on-cpu"
            other = f"--dropout {self.dropout:g}" if self.dropout else other
            yield f"--tensor-parallel {self.tensor_parallel} does not work with {other}; leave one of them out"
        if error := threads_error(self.threads):
            yield error
        if not self.data:
            yield "--data is empty; name a source, such as wiki"
        yield from conflicts(self)


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
