"""The options of `gpt3 finetune`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from gpt3.adaptive_threads import threads_error
from gpt3.corpus.sources import split_names
from gpt3.finetuning.conversations import FILTERS
from gpt3.options import Options, option

RATES = ((10**7, 5e-4), (10**8, 2e-4), (10**9, 1e-4))
"""Peak learning rates below this many parameters; docs/LOG.md has what 17M did with more."""
RATE_BEYOND = 2e-5
"""Of models of more parameters than RATES has."""
LORA_RATE, DPO_SHARE = 10.0, 0.05
REPLAYED = 0.5


@dataclass(frozen=True)
class FinetuneOptions(Options):
    """Make an assistant of a base model: train it on conversations (sft), then perhaps on preferences (dpo)."""

    model: str | None = option(None, group="Model", common=True)
    """The base model: folder, run folder, run in ./runs or hub id. Default: the newest run in ./runs."""
    chat_template: str | None = option(None)
    """harmony, chatml, or a Jinja file with generation marks. Default: the model's own, else harmony."""
    out: str | None = option(None, common=True)
    """The run folder. Default: runs/METHOD-MODEL, with a numeric suffix if that exists."""
    data: list[str] = option(["wiki-qa@12000"], group="Data", common=True)
    """Conversations: wiki-qa, a name in docs/finetune.md, hf:OWNER/NAME or files; @500 caps, @2x weights."""
    val: list[str] = option([])
    """Conversations to validate on, named like --data. Default: --validation-fraction of the data."""
    validation_fraction: float = option(0.05, least=0, below=1)
    """Share of the data held out for validation, by question (wiki-qa: by article)."""
    filter: list[str] = option(["duplicates"], choices=[*FILTERS, "none"])
    """Conversations to leave out. english: of other languages; length: answers of no or over 2,000 words."""
    skip_malformed: bool = option(False)
    """Count rows that are not conversations instead of refusing the file."""
    rehearse: float | None = option(None, least=0, most=100)
    """Replay: Wikipedia tokens per token of conversations. Default: 0.5 for sft on wiki-qa alone, else 0."""
    show: int | None = option(None, least=1)
    """Print this many samples, trained tokens in green, and train nothing."""
    method: Literal["sft", "dpo"] = option("sft", group="Method", common=True)
    """sft: train the answers; dpo: prefer the chosen over the rejected ones (Rafailov et al. 2023)."""
    train_on: Literal["assistant", "all"] = option("assistant")
    """Tokens that the loss counts: the assistant's, or all."""
    beta: float = option(0.1, above=0)
    """How close dpo stays to the initial model; larger is closer."""
    lora: bool = option(False, common=True)
    """Train only low-rank adapters (Hu et al. 2021) and the embedding and head rows of new tokens."""
    dora: bool = option(False)
    """LoRA with separate weight magnitudes (Liu et al. 2024); implies --lora."""
    lora_rank: int = option(16, least=1)
    """Rank of the adapters."""
    lora_alpha: int = option(32, above=0)
    """Scale of the adapters: alpha / rank."""
    lora_dropout: float = option(0.0, least=0, below=1)
    """Dropout before an adapter."""
    merge: bool = option(True)
    """After LoRA, write model/ with the adapter merged; adapter/ is always kept."""
    epochs: float = option(1.0, above=0, group="Length and batch", common=True)
    """Epochs: how often each conversation is read."""
    steps: int | None = option(None, least=1, common=True)
    """Optimizer steps, in place of --epochs."""
    batch: int = option(16, least=1, common=True)
    """Conversations, pairs or packed rows per optimizer step."""
    micro_batch: int | None = option(None, least=1)
    """How many of them one forward pass takes. Default: 8, or the largest divisor of the batch below it."""
    context: int | None = option(None, least=1)
    """Maximum tokens per sample. Default: all positions of the model."""
    packing: bool = option(False)
    """Pack several conversations into one row of --context tokens; they do not see each other."""
    lr: float | None = option(None, above=0, group="Optimizer", common=True)
    """Peak learning rate; 3% warm-up, then linear to 0. Default: by size, see docs/finetune.md."""
    weight_decay: float = option(0.0, least=0)
    """Decoupled weight decay of the matrices."""
    evaluate_every: int | None = option(None, least=1, group="Validation and checkpoints")
    """Steps between evaluations, each with a checkpoint, from before the first step on. Default: ten per run."""
    early_stop: int | None = option(None, least=1)
    """Stop after this many evaluations without a better held-out loss. Default: never."""
    resume: Literal["auto", "never"] = option("auto")
    """auto: the same command resumes an interrupted run from its newest checkpoint."""
    track: list[str] = option([], choices=("wandb", "tensorboard", "none"), group="Tracking")
    """wandb, tensorboard; metrics.jsonl is always written."""
    seed: int = option(0, least=0, group="Hardware and seed")
    """Seed of the order of samples, draws by weight and cap, and new adapters."""
    device: str = option("auto", common=True)
    """auto (CUDA, then MPS, then CPU), cpu, cuda or mps."""
    dtype: Literal["auto", "fp32", "bf16"] = option("auto")
    """Number format of matrix products. auto: bf16 on CUDA that has it, fp32 elsewhere."""
    threads: str = option("auto")
    """CPU threads: auto adapts to what else the machine does; a number is fixed, for bit-equal results."""
    gradient_checkpointing: bool = option(False)
    """Compute activations twice to save memory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("data", "val"):
            names = [name for given in getattr(self, field) for name in split_names(given)]
            object.__setattr__(self, field, names)
        object.__setattr__(self, "filter", [name for name in self.filter if name != "none"])
        object.__setattr__(self, "threads", str(self.threads))  # threads: 2 in YAML
        if self.dora:
            object.__setattr__(self, "lora", True)

    def errors(self) -> Iterable[str]:
        """Options that exclude each other."""
        if self.method == "dpo":
            for name in ("rehearse", "packing"):
                if getattr(self, name):
                    yield f"--{name} is for sft. Leave it out with --method dpo"
        if error := threads_error(self.threads):
            yield error
        batch, micro = self.batch, self.micro_batch
        if isinstance(batch, int) and isinstance(micro, int) and micro > 0 and batch % micro:
            yield f"--batch {batch} is not a multiple of --micro-batch {micro}. Use another --micro-batch"
        if not self.data:
            yield "--data is empty. Use wiki-qa, a file or hf:OWNER/NAME"

    @property
    def replayed(self) -> float:
        """Tokens of plain text for each token of conversations."""
        if self.rehearse is not None:
            return self.rehearse
        alone = all(name.partition("@")[0] == "wiki-qa" for name in self.data)
        return REPLAYED if alone and self.method == "sft" else 0.0

    def rate(self, parameters: int) -> float:
        """The peak learning rate for a model of this many parameters."""
        if self.lr is not None:
            return self.lr
        rate = next((rate for below, rate in RATES if parameters < below), RATE_BEYOND)
        return rate * (LORA_RATE if self.lora else 1.0) * (DPO_SHARE if self.method == "dpo" else 1.0)
