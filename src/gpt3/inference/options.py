"""What a user may ask of text generation: names, units, ranges, defaults. Nothing heavy is imported here."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from gpt3.errors import InputError

DType = Literal["auto", "fp32", "bf16", "fp16"]
DTYPES: tuple[str, ...] = get_args(DType)
Quantize = Literal["none", "int8"]
QUANTIZE: tuple[str, ...] = get_args(Quantize)
SMALLEST_PENALTY = 0.01  # a logit divided by a smaller one may overflow
SMALLEST_TEMPERATURE = 1e-6  # below it a float32 logit divided by the temperature may overflow


@dataclass(frozen=True)
class SamplingOptions:
    """How the next token is chosen and when the text ends. The defaults are the model's own distribution, untouched.

    Raises:
        InputError: on creation, one line naming every value out of its range and what it may be.
    """

    max_new_tokens: int = 200
    """Tokens to write at most, per sample; 1 and up."""
    temperature: float = 1.0
    """Divides the logits: below 1 plainer text, above 1 wilder; 0 is greedy (the likeliest token), else from 1e-6."""
    top_k: int = 0
    """Choose among the k likeliest tokens only (Fan et al. 2018); 0 is all."""
    top_p: float = 1.0
    """Choose among the fewest tokens with this much probability together (Holtzman et al. 2019); above 0, 1 is all."""
    min_p: float = 0.0
    """Choose among tokens at least this many times as likely as the likeliest (Nguyen et al. 2024); 0 is all, up to 1."""
    typical_p: float = 1.0
    """Choose among the tokens nearest to the expected surprise that have this much probability together (Meister et al. 2022);
    above 0, 1 is all."""
    logit_bias: dict[int, float] = field(default_factory=dict)
    """What is added to the logits of single tokens, -100 to 100, by id: {"50256": -100} keeps end-of-text away."""
    repetition_penalty: float = 1.0
    """Above 1, makes tokens already in prompt or text less likely (Keskar et al. 2019); from 0.01, 1 is none."""
    presence_penalty: float = 0.0
    """Taken from the logit of every token already in the text, not the prompt (OpenAI's definition); -2 to 2, 0 is none."""
    frequency_penalty: float = 0.0
    """Taken from a token's logit once for each time it is in the text, not the prompt (OpenAI's); -2 to 2, 0 is none."""
    no_repeat_ngram: int = 0
    """Let no run of this many tokens come twice in prompt and text (Paulus et al. 2017); 0 is no limit."""
    bad_words: list[str] = field(default_factory=list)
    """Words that are not written, as the tokenizer spells them, alone or after a space; may be given several times."""
    min_new_tokens: int = 0
    """End-of-text is not chosen before so many tokens are written (stop strings still end a text); 0 is no limit."""
    stop: list[str] = field(default_factory=list)
    """Texts that end a sample, neither they nor what follows being shown; may be given several times."""
    seed: int | None = None
    """The same seed gives the same text; 0 and up. Default: another one every time, which is reported."""
    num_samples: int = 1
    """Continuations to write side by side; sample i depends on seed and i only."""
    logprobs: int | None = None
    """Log-probabilities of each chosen token and of this many likeliest, by the model itself before any option here; 0: the
    chosen alone. Default: none."""

    def __post_init__(self) -> None:
        for name in ("stop", "bad_words"):  # a single text is the common case
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, [getattr(self, name)])
        errors = self.errors()
        if errors:
            raise InputError("; ".join(errors))

    def errors(self) -> list[str]:
        """Every value out of its range, one clause each: name, value, remedy."""
        found: list[str] = []
        fine: set[str] = set()

        def check(name: str, holds: bool, remedy: str) -> None:
            if holds:
                fine.add(name)
            else:
                found.append(f"--{name.replace('_', '-')} is {getattr(self, name)!r}; {remedy}")

        check("max_new_tokens", _whole(self.max_new_tokens, 1), "give a whole number from 1")
        check(
            "temperature",
            _number(self.temperature) and (self.temperature == 0 or self.temperature >= SMALLEST_TEMPERATURE),
            f"give 0 (greedy) or a number from {SMALLEST_TEMPERATURE:g}",
        )
        check("top_k", _whole(self.top_k, 0), "give a whole number from 1, or 0 for all tokens")
        check("top_p", _number(self.top_p) and 0 < self.top_p <= 1, "give a number above 0 and up to 1")
        check("min_p", _number(self.min_p) and 0 <= self.min_p <= 1, "give a number from 0 to 1")
        check("typical_p", _number(self.typical_p) and 0 < self.typical_p <= 1, "give a number above 0 and up to 1")
        check("logit_bias", _biases(self.logit_bias), 'give numbers from -100 to 100 by token id, as {"50256": -100}')
        check(
            "repetition_penalty",
            _number(self.repetition_penalty) and self.repetition_penalty >= SMALLEST_PENALTY,
            f"give a number from {SMALLEST_PENALTY:g} (1 is no penalty)",
        )
        for name in ("presence_penalty", "frequency_penalty"):
            value = getattr(self, name)
            check(name, _number(value) and abs(value) <= 2, "give a number from -2 to 2 (0 is no penalty)")
        check("no_repeat_ngram", _whole(self.no_repeat_ngram, 0), "give a whole number from 1, or 0 for no limit")
        check("bad_words", _texts(self.bad_words), "give texts of at least one character")
        check("min_new_tokens", _whole(self.min_new_tokens, 0), "give a whole number from 0")
        check("stop", _texts(self.stop), "give texts of at least one character")
        check("seed", self.seed is None or _whole(self.seed, 0), "give a whole number from 0")
        check("num_samples", _whole(self.num_samples, 1), "give a whole number from 1")
        check("logprobs", self.logprobs is None or _whole(self.logprobs, 0), "give a whole number from 0")

        if {"num_samples", "temperature"} <= fine and self.temperature == 0 and self.num_samples > 1:
            found.append(
                f"--num-samples is {self.num_samples} with --temperature 0, which writes the same text every time; "
                "give --num-samples 1 or a temperature above 0"
            )
        if {"min_new_tokens", "max_new_tokens"} <= fine and self.min_new_tokens > self.max_new_tokens:
            found.append(
                f"--min-new-tokens is {self.min_new_tokens} with --max-new-tokens {self.max_new_tokens}; "
                "give a minimum up to the maximum"
            )
        if {"stop", "bad_words"} <= fine and (both := [text for text in self.stop if text in self.bad_words]):
            found.append(
                f"--stop and --bad-words both have {both[0]!r}, which then ends no text; give it to one of them"
            )
        return found


@dataclass(frozen=True)
class GenerateOptions(SamplingOptions):
    """Continue a text with a trained model: streams to standard output as it is written."""

    top_p: float = 0.9
    """Choose among the fewest tokens with this much probability together; above 0, 1 is all. Default: the paper's (App. F)."""
    model: str | None = None
    """A model folder, a run folder, a run's name in ./runs, or a hub id. Default: the newest run in ./runs."""
    prompt: str | None = None
    """The text to continue; "-" reads standard input. Default: what is piped in, else the beginning of a document."""
    prompt_file: str | None = None
    """A UTF-8 text file to continue, in place of --prompt; "-" is standard input."""
    input: str | None = None
    """A file of many prompts, one a line: .jsonl with {"prompt": "...", "id": ...}, else plain text; "-" is standard input."""
    output: str | None = None
    """Where the samples of --input go, one JSON object a line; started again, it goes on. Default: standard output."""
    overwrite: bool = False
    """Begin --output anew whatever is in it."""
    batch: int = 8
    """Samples that are written side by side; each has a cache of its own."""
    json: bool = False
    """Print one JSON object a line and sample, when it is complete, in place of text."""
    stats: bool = False
    """Tell the time to the first token, tokens/s, GB/s of weights read and their share of what the memory gives."""
    device: str = "auto"
    """auto (CUDA, then MPS, then CPU), cpu, cuda, cuda:N or mps."""
    dtype: DType = "auto"
    """Number format of the weights; a CPU computes in fp32 with all. auto: bf16 on CUDA that has it, fp32 elsewhere."""
    quantize: Quantize = "none"
    """none, or int8: weights of 8 bits, one scale an output channel, made at load; on a CPU."""
    draft: str | None = None
    """A smaller model of the same tokenizer, named as --model, which guesses tokens ahead; the model checks several at once."""
    lookup: bool = False
    """Guess tokens ahead from what followed the same words before in prompt and text (prompt lookup, Saxena 2023)."""

    def errors(self) -> list[str]:
        """As SamplingOptions', and what is wrong in the rest."""
        found = super().errors()
        prompts = {"--prompt": self.prompt, "--prompt-file": self.prompt_file, "--input": self.input}
        given = [name for name, value in prompts.items() if value is not None]
        if len(given) > 1:
            found.append(f"{' and '.join(given)} are given together; give one of them")
        if self.input is None:
            for name in ("output", "overwrite"):
                if getattr(self, name):
                    found.append(f"--{name} is for the prompts of --input; give it, too, or redirect standard output")
        elif self.overwrite and self.output is None:
            found.append("--overwrite is for --output; give it, too, or leave --overwrite out")
        if self.logprobs is not None and not self.json and self.input is None:
            found.append(f"--logprobs {self.logprobs} are not shown in text; add --json")
        if not _whole(self.batch, 1):
            found.append(f"--batch is {self.batch!r}; give a whole number from 1")
        if self.dtype not in DTYPES:
            found.append(f"--dtype is {self.dtype!r}; give one of {', '.join(DTYPES)}")
        if self.quantize not in QUANTIZE:
            found.append(f"--quantize is {self.quantize!r}; give one of {', '.join(QUANTIZE)}")
        elif self.quantize != "none" and self.dtype not in ("auto", "fp32"):
            found.append(f"--quantize {self.quantize} and --dtype {self.dtype} are two formats; give one of them")
        if self.draft is not None and self.lookup:
            found.append("--draft and --lookup both guess ahead; give one of them")
        return found


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _texts(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(text, str) and text for text in value)


def _biases(value: object) -> bool:
    return isinstance(value, dict) and all(
        _whole(token, 0) and _number(bias) and abs(bias) <= 100 for token, bias in value.items()
    )
