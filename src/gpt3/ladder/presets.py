"""The paper's eight models (Brown et al. 2020, Table 2.1) and two small ones: shapes, exact sizes, compute.

Two entries of Table 2.1 are corrected, because the paper's own Table D.1 contradicts them: 13B has d_model 5120
(40 heads of 128; 5140 is not divisible), and XL has 16 heads of 128 (24 of them would be wider than d_model and make
1.52B parameters). With both, the formula below gives every parameter count of Table D.1. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpt3.errors import InputError
from gpt3.ladder.memory import BYTES, running_memory, shard_numbers, training_memory
from gpt3.tables import aligned

if TYPE_CHECKING:
    from gpt3.model import GPT3Config

PF_DAY = 8.64e19
"""Floating-point operations in a petaflop/s-day: 1e15 x 86,400."""
PAPER_TOKENS = 300_000_000_000
"""Tokens every model of the paper was trained on (Table 2.1)."""
GPT2_VOCABULARY = 50_257


@dataclass(frozen=True)
class Preset:
    """A model's shape and the paper's batch and learning rate for it."""

    name: str
    """Name on the command line."""
    n_layers: int
    """Blocks."""
    d_model: int
    """Width of the residual stream."""
    n_heads: int
    """Attention heads per layer."""
    d_head: int
    """Width of a head."""
    batch_tokens: int
    """Tokens per optimizer step at full batch, a multiple of the context."""
    learning_rate: float
    """Peak learning rate."""
    context: int = 2048
    """Tokens of a sequence."""
    window: int = 256
    """Keys a query of a locally banded layer sees, itself included (the paper names none; GPT-Neo's)."""
    vocab_size: int = GPT2_VOCABULARY
    """Rows of the token embedding."""
    paper_name: str | None = None
    """Name in Table 2.1; None: not of the paper."""
    positions: int | None = None
    """Rows of the position table, if more than the context's (positions are learned). None: one for each token of the context."""

    @property
    def parameters(self) -> int:
        """Exact number of parameters, the tied head counted once."""
        return shard_numbers(self, 1)

    @property
    def windows(self) -> list[int]:
        """Keys that a query of each layer sees at most: dense and banded layers alternate."""
        return [min(self.window, self.context) if layer % 2 else self.context for layer in range(self.n_layers)]

    @property
    def sequences(self) -> int:
        """Sequences of the full context per optimizer step."""
        return self.batch_tokens // self.context

    @property
    def flops_per_token(self) -> float:
        """`flops_per_token` of this shape at its full context, without building a configuration."""
        width, attention = self.d_model, self.n_heads * self.d_head
        return _flops_per_token(width, attention, 4 * width, self.vocab_size, self.context, self.windows)

    def config(self, **overrides: Any) -> GPT3Config:
        """The model configuration of this preset.

        Args:
            overrides: fields of GPT3Config to set otherwise. The end-of-text id is the vocabulary's last, as in GPT-2's,
                unless given.

        Raises:
            InputError: an unknown field, or values that make no model.
        """
        from huggingface_hub.errors import StrictDataclassError

        from gpt3.model import GPT3Config

        fields = {field.name for field in dataclasses.fields(GPT3Config)} | set(GPT3Config.attribute_map)
        if unknown := sorted(set(overrides) - fields):
            raise InputError(f"unknown model option {unknown[0]!r}; {nearest(unknown[0], sorted(fields))}")
        overrides = {GPT3Config.attribute_map.get(name, name): value for name, value in overrides.items()}
        values: dict[str, Any] = {
            "vocab_size": self.vocab_size,
            "max_position_embeddings": self.positions or self.context,
            "hidden_size": self.d_model,
            "num_hidden_layers": self.n_layers,
            "num_attention_heads": self.n_heads,
            "head_dim": self.d_head,
            "sliding_window": self.window,
        } | overrides
        if isinstance(values["vocab_size"], int):
            end_of_text = (values.get("real_vocab_size") or values["vocab_size"]) - 1
            values = {"bos_token_id": end_of_text, "eos_token_id": end_of_text} | values
        try:
            return GPT3Config(**values)
        except StrictDataclassError as error:
            reason = str(error).split("\n")[-1].strip().partition(": ")[2]
            raise InputError(f"model {self.name}: {reason}") from None


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        # What `gpt3 train` makes in minutes on two cores; shape, batch and rate by experiment (docs/LOG.md).
        Preset("demo", 4, 192, 3, 64, 16 * 128, learning_rate=1.2e-3, context=128, window=32, vocab_size=4096),
        # 17,867,008 parameters, for a laptop. Batch: where the paper's ramp begins (32k tokens). Learning rate: Table 2.1
        # goes up as models shrink; Kaplan et al. 2020 (eq. D.1) give 1.1e-3 for its 4.7M non-embedding parameters.
        Preset("17M", 6, 256, 4, 64, 32 * 1024, learning_rate=1e-3, context=1024),
        # The paper rounds its batches (0.5M, 1M, 2M, 3.2M tokens); in sequences of 2,048: powers of two as GPT-Neo took
        # them, and for 3.2M the nearest multiple of 32.
        Preset("125M", 12, 768, 12, 64, 256 * 2048, 6.0e-4, paper_name="GPT-3 Small"),
        Preset("350M", 24, 1024, 16, 64, 256 * 2048, 3.0e-4, paper_name="GPT-3 Medium"),
        Preset("760M", 24, 1536, 16, 96, 256 * 2048, 2.5e-4, paper_name="GPT-3 Large"),
        Preset("1.3B", 24, 2048, 16, 128, 512 * 2048, 2.0e-4, paper_name="GPT-3 XL"),
        Preset("2.7B", 32, 2560, 32, 80, 512 * 2048, 1.6e-4, paper_name="GPT-3 2.7B"),
        Preset("6.7B", 32, 4096, 32, 128, 1024 * 2048, 1.2e-4, paper_name="GPT-3 6.7B"),
        Preset("13B", 40, 5120, 40, 128, 1024 * 2048, 1.0e-4, paper_name="GPT-3 13B"),
        Preset("175B", 96, 12288, 96, 128, 1568 * 2048, 0.6e-4, paper_name="GPT-3 175B"),
    )
}
ALIASES = {"small": "125M", "medium": "350M", "large": "760M", "xl": "1.3B", "gpt-3": "175B", "gpt3": "175B"}


def preset(name: str) -> Preset:
    """The preset called `name`; case does not matter, and the paper's names (Small, Medium, Large, XL, GPT-3) work.

    Raises:
        InputError: no such preset; the message lists them.
    """
    wanted = name.strip().lower().removeprefix("gpt-3 ")
    by_name = {known.lower(): value for known, value in PRESETS.items()}
    found = by_name.get(ALIASES.get(wanted, wanted).lower())
    if found is None:
        raise InputError(f"unknown model preset {name!r}; {nearest(name, list(PRESETS))}")
    return found


def nearest(wrong: str, known: list[str]) -> str:
    """What a message says after an unknown name: the nearest known one, or all of them."""
    close = difflib.get_close_matches(wrong, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(known)}"


def training_flops(parameters: int, tokens: int) -> float:
    """Operations to train: 6 per parameter and token (Brown et al. 2020, App. D: multiply and add, once forward,
    twice backward); attention's own, under a tenth, left out as there."""
    return 6.0 * parameters * tokens


def paper_parameters(parameters: int) -> int:
    """`parameters` as Table D.1 rounds them: to a million, from a billion on to ten million."""
    unit = 10_000_000 if parameters >= 1_000_000_000 else 1_000_000
    return (parameters + unit // 2) // unit * unit


def flops_per_token(config: GPT3Config, context: int) -> float:
    """Operations a training step (forward and backward) needs per token, counted matrix product by matrix product.

    This is what "model FLOPs utilisation" divides by: no recomputation, attention over the keys that the causal or
    banded mask leaves, embedding look-ups free, the head's product counted.

    Args:
        config: the model's shape.
        context: tokens per sequence.
    """
    windows = [config.sliding_window if kind == "sliding_attention" else context for kind in config.layer_types]
    width, attention = config.hidden_size, config.num_attention_heads * config.head_dim
    return _flops_per_token(width, attention, config.intermediate_size, config.vocab_size, context, windows)


def _flops_per_token(
    width: int, attention: int, inner: int, vocabulary: int, context: int, windows: list[int]
) -> float:
    total = float(len(windows) * (4 * width * attention + 2 * width * inner) + vocabulary * width)
    total += sum(2 * attention * mean_keys(context, window) for window in windows)  # q k^T, and probabilities times v
    return 6.0 * total


def mean_keys(context: int, window: int) -> float:
    """Keys a query sees on average over a sequence of `context` tokens under a causal band of `window` keys."""
    window = min(window, context)
    return (window * (window + 1) / 2 + (context - window) * window) / context


def ladder_rows() -> list[dict[str, Any]]:
    """One dictionary per preset, smallest first; sizes in bytes, compute for the paper's 300B tokens.

    `flops_300b` and `pf_days_300b` start, as Table D.1 does, from the rounded count `parameters_table_d1`.
    """
    rows = []
    for entry in PRESETS.values():
        rounded = paper_parameters(entry.parameters)
        flops = training_flops(rounded, PAPER_TOKENS)
        row: dict[str, Any] = {"positions": entry.positions or entry.context}
        row |= {"parameters": entry.parameters, "parameters_table_d1": rounded}
        row |= {"flops_300b": flops, "pf_days_300b": flops / PF_DAY}
        row["train_bytes"] = {dtype: training_memory(entry, dtype).total for dtype in ("float32", "bfloat16")}
        row["run_bytes"] = {dtype: running_memory(entry, dtype) for dtype in BYTES}
        rows.append(dataclasses.asdict(entry) | row)
    return rows


def ladder_table() -> str:
    """The ladder as two plain tables, shapes and costs, with notes on what the numbers assume."""
    shapes = [["model", "layers", "d_model", "heads", "d_head", "context", "window", "batch", "lr", "parameters"]]
    costs = [
        ["model", "FLOPs", "PF-days", "train fp32", "train bf16", "run fp32", "run 16-bit", "run int8", "run int4"]
    ]
    for row in ladder_rows():
        shape = [f"{row[key]:,}" for key in ("n_layers", "d_model", "n_heads", "d_head", "context", "window")]
        sizes = [
            *row["train_bytes"].values(),
            *(row["run_bytes"][key] for key in ("float32", "bfloat16", "int8", "int4")),
        ]
        training = [f"{row['batch_tokens']:,}", f"{row['learning_rate']:.1e}"]
        shapes.append([row["name"], *shape, *training, f"{row['parameters']:,}"])
        compute = [f"{row['flops_300b']:.2e}", three_digits(row["pf_days_300b"])]
        costs.append([row["name"], *compute, *map(readable_size, sizes)])
    return "\n".join(
        [
            *aligned(shapes, left=()),
            "batch: tokens per step; lr: peak learning rate.",
            "",
            *aligned(costs, left=()),
            "FLOPs and PF-days: 6ND for 300B tokens, as in the paper's Table D.1.",
            "train: one device with weights, gradients and AdamW's moments in fp32, activations and loss of",
            "one sequence (fp32, or bf16 autocast).",
            "run: weights, and keys and values of one full context.",
        ]
    )


def three_digits(value: float) -> str:
    """`value` to three significant digits, never in exponent form: 2.60, 139, 3,640."""
    rounded = float(f"{value:.3g}")
    decimals = max(0, 2 - math.floor(math.log10(rounded)))
    return f"{rounded:,.{decimals}f}"


def readable_size(size: float) -> str:
    """Bytes as MB, GB or TB, decimal, to three digits."""
    unit, scale = ("TB", 1e12) if size >= 1e12 else ("GB", 1e9) if size >= 1e9 else ("MB", 1e6)
    return f"{three_digits(size / scale) if size else 0} {unit}"
