"""What `gpt3 finetune` and `gpt3 chat` can be told. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gpt3.errors import InputError
from gpt3.inference.options import SamplingOptions

RATES = ((10**7, 5e-4), (10**8, 2e-4), (10**9, 1e-4))
"""Peak learning rates below so many parameters; docs/LOG.md has what 17M did with more."""
RATE_BEYOND = 2e-5
"""Of models of more parameters than RATES has."""
LORA_RATE, DPO_SHARE = 10.0, 0.05
REHEARSED = 0.5


@dataclass(frozen=True)
class FinetuneOptions:
    """Make an assistant of a base model: train it on conversations (sft), then perhaps on preferences (dpo)."""

    data: list[str] = field(default_factory=lambda: ["wiki-qa@12000"])
    """Conversations: wiki-qa, a name of docs/finetune.md, hf:OWNER/NAME[:CONFIG][:SPLIT], or files (.json .jsonl .csv .parquet),
    each with @500 for at most 500 of them, @0.5x or @3x for a weight."""
    model: str | None = None
    """The base model: a model folder, a run folder, a run's name in ./runs, or a hub id. Default: the newest run in ./runs."""
    val: list[str] = field(default_factory=list)
    """Conversations to validate on, named as --data is. Default: --validation-fraction of the data."""
    out: str | None = None
    """The run folder. Default: runs/METHOD-MODEL, with a number behind it when that is taken."""
    method: Literal["sft", "dpo"] = "sft"
    """sft: train the answers; dpo: prefer the chosen to the rejected ones (Rafailov et al. 2023)."""
    chat_template: str | None = None
    """harmony, chatml, or a Jinja file with generation marks. Default: the model's own, else harmony."""
    filter: list[str] = field(default_factory=lambda: ["duplicates"])
    """Which conversations to leave out: duplicates, near-duplicates, english (what is not), length, refusals; none."""
    validation_fraction: float = 0.05
    """Share of the data that is held out, by questions (of wiki-qa: by articles)."""
    skip_malformed: bool = False
    """Count rows that are no conversations, in place of refusing the file."""
    show: int | None = None
    """Print so many samples, what is trained in green, and train nothing."""
    train_on: Literal["assistant", "all"] = "assistant"
    """Which tokens the loss counts: what the assistant says, or everything."""
    context: int | None = None
    """Tokens of a sample at most. Default: all of the model's positions."""
    rehearse: float | None = None
    """Tokens of embedded Wikipedia text read beside each token of conversations, so that a base model does not unlearn to write.
    Default: 0.5 where wiki-qa is all the data and the method is sft, else 0."""
    packing: bool = False
    """Put several conversations into one row of --context tokens; they do not see each other. Worth it on a GPU."""
    epochs: float = 1.0
    """Times every conversation is read."""
    steps: int | None = None
    """Optimizer steps, in place of --epochs."""
    batch: int = 16
    """Conversations (or pairs, or packed rows) an optimizer step sees."""
    micro_batch: int | None = None
    """How many of them go through the model at a time. Default: 8, or the batch where that is less."""
    lr: float | None = None
    """Peak learning rate, after a warm-up over 3% of the steps, falling linearly. Default: 5e-4 below 10M parameters, 2e-4 below
    100M, 1e-4 below 1B, 2e-5 above; with --lora ten times, with dpo a twentieth of that."""
    weight_decay: float = 0.0
    """Decoupled weight decay of the matrices."""
    lora: bool = False
    """Train low-rank adapters only (Hu et al. 2021), and the embeddings of new special tokens."""
    dora: bool = False
    """LoRA with the weights' lengths apart (Liu et al. 2024); implies --lora."""
    lora_rank: int = 16
    """Rank of the adapters."""
    lora_alpha: int = 32
    """Their scale: alpha / rank."""
    lora_dropout: float = 0.0
    """Dropout before an adapter."""
    merge: bool = True
    """After LoRA, write model/ with the adapter merged in; adapter/ is kept in any case."""
    beta: float = 0.1
    """How close dpo keeps to the model it began with: larger is closer."""
    evaluate_every: int | None = None
    """Steps between evaluations, each with a checkpoint; also before the first step. Default: ten in a run."""
    early_stop: int | None = None
    """Stop after so many evaluations without a better held-out loss. Default: never. The best model is kept in any case."""
    resume: Literal["auto", "never"] = "auto"
    """auto: the same command goes on from the newest checkpoint of an interrupted run."""
    seed: int = 0
    """Of the order of samples, the draws by weight and cap, and new adapters."""
    device: str = "auto"
    """auto (CUDA, then MPS, then CPU), cpu, cuda or mps."""
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    """Of matrix products; auto: bf16 on CUDA that has it, fp32 elsewhere."""
    gradient_checkpointing: bool = False
    """Compute activations twice to save memory."""
    track: list[str] = field(default_factory=list)
    """wandb, tensorboard; metrics.jsonl is always written."""

    def __post_init__(self) -> None:
        if self.filter == ["none"]:
            object.__setattr__(self, "filter", [])
        if self.dora:
            object.__setattr__(self, "lora", True)
        found = []
        for name in ("steps", "batch", "micro_batch", "context", "lora_rank", "evaluate_every", "early_stop", "show"):
            value = getattr(self, name)
            if value is not None and value < 1:
                found.append(f"--{name.replace('_', '-')} {value} must be from 1")
        for name in ("epochs", "lr", "lora_alpha", "beta"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                found.append(f"--{name.replace('_', '-')} {value} must be above 0")
        if not 0 <= self.validation_fraction < 1:
            found.append(f"--validation-fraction {self.validation_fraction} must be from 0 and below 1")
        if not 0 <= self.lora_dropout < 1:
            found.append(f"--lora-dropout {self.lora_dropout} must be from 0 and below 1")
        if self.rehearse is not None and not 0 <= self.rehearse <= 100:
            found.append(f"--rehearse {self.rehearse} must be from 0 to 100")
        if self.rehearse and self.method == "dpo":
            found.append("--rehearse is for sft; leave it out with --method dpo")
        if self.seed < 0:
            found.append(f"--seed {self.seed} must be from 0")
        if self.micro_batch is not None and self.batch % self.micro_batch:
            found.append(f"--batch {self.batch} is no multiple of --micro-batch {self.micro_batch}")
        if self.packing and self.method == "dpo":
            found.append("--packing is for sft; leave it out with --method dpo")
        unknown = [name for name in self.track if name not in ("none", "wandb", "tensorboard")]
        if unknown:
            found.append(f"--track {unknown[0]} is unknown; give wandb, tensorboard or none")
        if not self.data:
            found.append("--data names nothing; give wiki-qa, a file or hf:owner/name")
        if found:
            raise InputError("; ".join(found))

    @property
    def rehearsed(self) -> float:
        """Tokens of plain text for each of conversations."""
        if self.rehearse is not None:
            return self.rehearse
        alone = all(name.partition("@")[0] == "wiki-qa" for name in self.data)
        return REHEARSED if alone and self.method == "sft" else 0.0

    def rate(self, parameters: int) -> float:
        """The peak learning rate for a model of so many parameters."""
        if self.lr is not None:
            return self.lr
        rate = next((rate for below, rate in RATES if parameters < below), RATE_BEYOND)
        return rate * (LORA_RATE if self.lora else 1.0) * (DPO_SHARE if self.method == "dpo" else 1.0)


@dataclass(frozen=True)
class ChatOptions(SamplingOptions):
    """Talk with a fine-tuned model in the terminal; in a pipe, one message a line."""

    temperature: float = 0.7
    """Divides the logits: below 1 plainer text, above 1 wilder; 0 is greedy (the likeliest token), else from 1e-6."""
    top_p: float = 0.9
    """Choose among the fewest tokens with this much probability together; above 0, 1 is all."""
    model: str | None = None
    """A model folder, a run folder, a run's name in ./runs, or a hub id. Default: the newest run in ./runs."""
    system: str | None = None
    """The system message the conversation begins with."""
    load: str | None = None
    """A conversation that /save wrote, to go on with."""
    few_shot: bool = False
    """Talk to a base model as GPT-3 was used: questions and answers before the question (paper App. G). Default for a model
    without a chat template."""
    device: str = "auto"
    """auto (CUDA, then MPS, then CPU), cpu, cuda, cuda:N or mps."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of weights and arithmetic. auto: bf16 on CUDA that has it, fp32 elsewhere."""
    quantize: Literal["none", "int8"] = "none"
    """int8: weights of 8 bits, on a CPU."""
