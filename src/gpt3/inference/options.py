"""Options of text generation: names, units, ranges and defaults. Nothing heavy is imported here."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from gpt3.options import DType, Options, Quantize, flag, option

SMALLEST_TEMPERATURE = 1e-6  # below it a float32 logit divided by the temperature may overflow


@dataclass(frozen=True)
class SamplingOptions(Options):
    """How the next token is chosen and when the text ends. The defaults are the model's own distribution, untouched.

    Raises:
        InputError: on creation; names every value out of its range and what it may be.
    """

    max_new_tokens: int = option(200, least=1, group="Length", common=True)
    """Tokens to generate at most for each sample."""
    min_new_tokens: int = option(0, least=0)
    """Prevent EOS tokens until a sample has this many tokens; stop strings still end it; 0 is no limit."""
    stop: list[str] = option([], common=True)
    """Strings that end a sample; neither they nor what follows is shown. May be given several times."""
    temperature: float = option(1.0, least=0, group="Sampling", common=True)
    """Divides the logits: below 1 plainer text, above 1 more varied; 0 is greedy, else from 1e-6."""
    top_k: int = option(0, least=0, common=True)
    """Sample among the k likeliest tokens only (Fan et al. 2018); 0 keeps all."""
    top_p: float = option(1.0, above=0, most=1, common=True)
    """Sample among the fewest tokens with this total probability (Holtzman et al. 2019); 1 keeps all."""
    min_p: float = option(0.0, least=0, most=1)
    """Drop tokens less than this many times as likely as the likeliest (Nguyen et al. 2024); 0 keeps all."""
    typical_p: float = option(1.0, above=0, most=1)
    """Keep the tokens whose surprise is closest to typical, up to this total probability (Meister et al. 2022); 1 keeps all."""
    repetition_penalty: float = option(1.0, least=0.01)
    """Above 1, makes tokens already in prompt or text less likely (Keskar et al. 2019); 1 is none."""
    presence_penalty: float = option(0.0, least=-2, most=2)
    """Subtracted from the logit of every token already in the text, not the prompt (OpenAI's); 0 is none."""
    frequency_penalty: float = option(0.0, least=-2, most=2)
    """Subtracted from a token's logit once for each time it is in the text, not the prompt (OpenAI's); 0 is none."""
    no_repeat_ngram: int = option(0, least=0)
    """Let no run of this many tokens occur twice in prompt and text (Paulus et al. 2017); 0 is no limit."""
    logit_bias: dict[int, float] = option({}, least=-100, most=100)
    """Added to the logits of single tokens, by id: {"50256": -100} prevents EOS."""
    bad_words: list[str] = option([])
    """Words to prevent, as the tokenizer spells them, alone or after a space. May be given several times."""
    seed: int | None = option(None, least=0, common=True)
    """The same seed gives the same text. Default: a random one, which is reported."""
    num_samples: int = option(1, least=1, common=True)
    """Continuations of each prompt; sample i depends on the seed and i only."""
    logprobs: int | None = option(None, least=0)
    """Log-probabilities by the model itself, of the chosen token and this many of the likeliest. Default: none."""
    json_schema: str | None = option(None, group="Constrained output")
    """The text is JSON that follows this JSON Schema: a file, or the schema itself (in Python also a dict)."""
    regex: str | None = option(None)
    """The whole text matches this regular expression, without look-around or backreferences."""
    choices: list[str] = option([])
    """The text is one of these: a,b or given several times."""

    def __post_init__(self) -> None:
        if isinstance(self.json_schema, dict):  # in Python
            with contextlib.suppress(TypeError, ValueError):
                object.__setattr__(self, "json_schema", json.dumps(self.json_schema))
        for name in ("stop", "bad_words"):  # a single text is the common case
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, [getattr(self, name)])
        super().__post_init__()

    @property
    def constraint(self) -> tuple[str, str] | None:
        """What a text must follow: the option's name, and a JSON Schema or a regular expression; None: nothing."""
        if self.json_schema is not None:
            return "json_schema", self.json_schema
        if self.regex is not None:
            return "regex", self.regex
        return ("choices", "|".join(map(re.escape, self.choices))) if self.choices else None

    def errors(self) -> Iterator[str]:
        """As Options': contradictions, and what the ranges do not say."""
        if 0 < self.temperature < SMALLEST_TEMPERATURE:
            yield f"--temperature {self.temperature!r} must be 0 (greedy) or at least {SMALLEST_TEMPERATURE:g}"
        for name in ("stop", "bad_words", "choices"):
            if "" in getattr(self, name):
                yield f"{flag(name)} {getattr(self, name)!r} must be texts of at least one character"
        for token in self.logit_bias:
            if not isinstance(token, int) or isinstance(token, bool) or token < 0:
                yield f"--logit-bias {token!r} must be a token id, a whole number from 0"
        if self.temperature == 0 and self.num_samples > 1:
            yield (
                f"--num-samples {self.num_samples} with --temperature 0 gives the same text every time. "
                "Use --num-samples 1 or a temperature above 0"
            )
        if self.min_new_tokens > self.max_new_tokens >= 1:
            yield f"--min-new-tokens {self.min_new_tokens} exceeds --max-new-tokens {self.max_new_tokens}. Use fewer"
        if both := [text for text in self.stop if text in self.bad_words]:
            yield f"--stop and --bad-words both have {both[0]!r}, which then ends no text. Give it to one of them"
        constraints = [name for name in ("json_schema", "regex", "choices") if getattr(self, name) not in (None, [])]
        if len(constraints) > 1:
            yield f"{' and '.join(map(flag, constraints))} are given together. Use one of them"


@dataclass(frozen=True)
class GenerateOptions(SamplingOptions):
    """Continue a text with a trained model; it appears on standard output as it is generated."""

    top_p: float = option(0.9, above=0, most=1, common=True)
    """Sample among the fewest tokens with this total probability; 1 keeps all. Default: 0.9, the paper's (App. F)."""
    model: str | None = option(None, group="Model", common=True)
    """A model or run folder, a run's name in ./runs, a hub id, or starter. Default: the newest run in ./runs, else starter."""
    draft: str | None = option(None)
    """A smaller model with the same tokenizer that guesses tokens ahead; the model checks several at once."""
    lookup: bool = option(False)
    """Guess tokens ahead from what followed the same words in prompt and text (prompt lookup, Saxena 2023)."""
    prompt: str | None = option(None, group="Input and output", common=True)
    """The text to continue; "-" reads standard input. Default: piped input, else the start of a document."""
    prompt_file: str | None = option(None)
    """A UTF-8 text file to continue, in place of --prompt; "-" is standard input."""
    input: str | None = option(None, common=True)
    """A file of prompts, one per line: .jsonl with {"prompt": "...", "id": ...}, or text; "-" is standard input."""
    output: str | None = option(None, common=True)
    """File for the samples of --input, one JSON object per line; run again to resume. Default: standard output."""
    overwrite: bool = option(False)
    """Replace --output even if it has content."""
    json: bool = option(False)
    """Print each finished sample as one JSON object per line, in place of text."""
    stats: bool = option(False)
    """Print the time to the first token, tokens/s, and the memory bandwidth used."""
    batch: int = option(8, least=1, group="Hardware")
    """Samples generated in parallel; each has its own cache."""
    device: str = option("auto", common=True)
    """auto (CUDA, then MPS, then CPU), cpu, cuda, cuda:N or mps."""
    dtype: DType = option("auto")
    """Number format of the weights; auto: on CUDA bf16, or fp16 where it lacks that; else fp32. A CPU computes in fp32."""
    quantize: Quantize = option("none")
    """none; int8 or int4: 8- or 4-bit weights, made at load; int4 for CPUs."""
    threads: str = option("auto")
    """CPU threads: auto adapts to what else the machine does; a number is fixed."""

    def errors(self) -> Iterator[str]:
        """As SamplingOptions', and contradictions in the rest."""
        yield from super().errors()
        prompts = {"--prompt": self.prompt, "--prompt-file": self.prompt_file, "--input": self.input}
        given = [name for name, value in prompts.items() if value is not None]
        if len(given) > 1:
            yield f"{' and '.join(given)} are given together. Use one of them"
        if self.input is None:
            for name in ("output", "overwrite"):
                if getattr(self, name):
                    yield f"--{name} needs --input. Add it, or redirect standard output"
        elif self.overwrite and self.output is None:
            yield "--overwrite needs --output. Add it, or leave --overwrite out"
        if self.logprobs is not None and not self.json and self.input is None:
            yield f"--logprobs {self.logprobs} is not shown in text. Add --json"
        if self.quantize != "none" and self.dtype not in ("auto", "fp32"):
            yield f"--quantize {self.quantize} and --dtype {self.dtype} are two formats. Use one of them"
        if self.draft is not None and self.lookup:
            yield "--draft and --lookup both guess ahead. Use one of them"
