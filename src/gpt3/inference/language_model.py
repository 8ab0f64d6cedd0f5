"""A model one can talk to from Python: `gpt3.load(...)`, then `complete`, `stream`, `score`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from gpt3.device import choose_device
from gpt3.errors import InputError
from gpt3.inference.decoding import Draft
from gpt3.inference.fastest_engine import make_engine
from gpt3.inference.generation import Generation, GenerationRequest
from gpt3.inference.options import SamplingOptions
from gpt3.inference.scoring import score_text
from gpt3.inference.text_model import TextModel
from gpt3.model_folder.load import TORCH_DTYPES, choose_dtype, load_transformers

if TYPE_CHECKING:
    from gpt3.inference.scoring import TextScore


def load(
    path: str | Path | None = None, *, device: str = "auto", dtype: str = "auto", quantize: str = "none"
) -> LanguageModel:
    """A model and its tokenizer, ready to generate.

    Args:
        path: a model folder, a run folder, a run's name under ./runs, or a hub id; None: the newest run under ./runs.
        device: cpu, cuda, cuda:N, mps, or auto (cuda, then mps, then cpu).
        dtype: format of the weights: fp32, bf16, fp16, or auto (bf16 on cuda that has it, fp32 elsewhere). On a CPU sums and
            activations are float32 whatever it is.
        quantize: none, or int8: 8-bit weights with one scale per output channel (on a CPU).

    Raises:
        InputError: nothing there, an incomplete or damaged folder, an unknown model type, a device that is not available, weights
            that are not finite (the tensor is named).

    Example:
        >>> model = load("runs/demo")
        >>> model.complete("The sea", temperature=0.7, top_p=0.95)[0].text
    """

    where = choose_device(device)
    number_format = choose_dtype(dtype, where)
    if quantize not in ("none", "int8"):
        raise InputError(f"--quantize {quantize!r} must be none or int8")
    if quantize == "int8" and where.type != "cpu":
        raise InputError(
            f"--quantize int8 is for the CPU, but the device is {where.type}. Use --device cpu, or --dtype bf16."
        )
    if quantize == "int8" and dtype not in ("auto", "fp32"):
        raise InputError(f"--quantize int8 and --dtype {dtype} are two formats. Use one of them.")
    names = {number: name for name, number in TORCH_DTYPES.items()}
    weight_format = "int8" if quantize == "int8" else names[number_format]
    cpu = where.type == "cpu"  # there, weights are rounded as they are packed
    model, tokenizer = load_transformers(path, device=device, dtype="fp32" if cpu else dtype)
    context = getattr(model.config, "max_position_embeddings", "unknown")
    family = getattr(model, "family", model.config.model_type)
    summary = f"{family}, {model.num_parameters():,} parameters, context {context}, {weight_format}, {where}"
    loaded = LanguageModel(
        model, tokenizer, make_engine(model, weight_format, take=True) if cpu else make_engine(model)
    )
    loaded.summary = summary
    return loaded


class LanguageModel(TextModel):
    """A model one can talk to; arguments and attributes are TextModel's."""

    summary = "in memory"
    """Family, parameters, context, number format and device, of a model that `load` has loaded."""

    def __repr__(self) -> str:
        return f"LanguageModel({self.summary})"

    @overload
    def complete(
        self,
        prompts: str,
        options: SamplingOptions | None = None,
        *,
        n: int | None = None,
        draft: Draft | None = None,
        **changes: Any,
    ) -> list[Generation]: ...
    @overload
    def complete(
        self,
        prompts: Sequence[str],
        options: SamplingOptions | None = None,
        *,
        n: int | None = None,
        draft: Draft | None = None,
        **changes: Any,
    ) -> list[list[Generation]]: ...
    def complete(
        self,
        prompts: str | Sequence[str] = "",
        options: SamplingOptions | None = None,
        *,
        n: int | None = None,
        draft: Draft | None = None,
        **changes: Any,
    ) -> list[Generation] | list[list[Generation]]:
        """Continue a prompt, or many at once.

        Args:
            prompts: a text, or several; "" begins a new document.
            options: by default the model's own distribution and at most 200 tokens.
            n: samples of each prompt (`num_samples`).
            draft: proposes tokens ahead (see speculation.py); the texts do not depend on it.
            changes: fields of SamplingOptions by name, over `options`.

        Returns:
            n generations; for a list of prompts, such a list for each.

        Raises:
            InputError: options out of their ranges (all named at once), or a prompt that is no text.
        """
        if n is not None:
            changes["num_samples"] = n
        options = with_changes(options, changes)
        asked = [prompts] if isinstance(prompts, str) else list(prompts)
        results, count = GenerationRequest(self, asked, options, draft=draft).complete(), options.num_samples
        if isinstance(prompts, str):
            return results
        return [results[start : start + count] for start in range(0, len(results), count)]

    def stream(
        self, prompt: str = "", options: SamplingOptions | None = None, *, draft: Draft | None = None, **changes: Any
    ) -> Iterator[str]:
        """Continue a prompt and yield the text as it is made, in pieces of whole characters; joined, they are `complete`'s.

        Takes what `complete` takes, but a single sample of one prompt.

        Raises:
            InputError: as `complete`; at the call, not at the first piece.
        """
        options = with_changes(options, changes)
        if options.num_samples != 1:
            raise InputError(f"num_samples is {options.num_samples}, but a stream is one text. Use 1, or `complete`.")
        return (piece for _, piece in GenerationRequest(self, [prompt], options, draft=draft))

    def score(
        self,
        text: str,
        *,
        context: int | None = None,
        stride: int | None = None,
        tokens: bool = False,
        top: int = 0,
    ) -> TextScore:
        """How probable the model finds a text that begins a document: loss, perplexity, bits per byte.

        Args:
            context, stride: windows over a long text, see `gpt3.inference.scoring`.
            tokens: give every token's score, too.
            top: with each token, as many of the likeliest in its place.

        Raises:
            InputError: an empty text, one that is no text, or windows out of range.
        """

        return score_text(self.engine, self.tokenizer, text, context=context, stride=stride, tokens=tokens, top=top)


def with_changes(options: SamplingOptions | None, changes: dict[str, Any]) -> SamplingOptions:
    """Options with some fields replaced, checked."""
    return dataclasses.replace(options if options is not None else SamplingOptions(), **changes)


def generate(model: LanguageModel | str | Path | None, prompt: str = "", **changes: Any) -> list[Generation]:
    """Continue a prompt: `load(model).complete(prompt, ...)`, or that of a model that is loaded already.

    Example:
        >>> generate("runs/demo", "The sea", temperature=0.8, seed=1)[0].text
    """
    if not isinstance(model, LanguageModel):
        model = load(model)
    return model.complete(prompt, **changes)
