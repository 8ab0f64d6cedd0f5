"""A model one can talk to from Python: `gpt3.load(...)`, then `complete`, `stream`, `score`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from gpt3.errors import InputError
from gpt3.inference.decoding import Draft
from gpt3.inference.engine import Engine
from gpt3.inference.engines import make_engine
from gpt3.inference.generation import Generation, Job, check_stream
from gpt3.inference.options import SamplingOptions
from gpt3.inference.reference_engine import ReferenceEngine
from gpt3.inference.streaming import TokenBytes
from gpt3.tokenizer.loading import prompt_start

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from gpt3.inference.scoring import TextScore


def load(
    path: str | Path | None = None, *, device: str = "auto", dtype: str = "auto", quantize: str = "none"
) -> LanguageModel:
    """A model and its tokenizer, ready to write.

    Args:
        path: a model folder, a run folder, a run's name under ./runs, or a hub id; None: the newest run under ./runs.
        device: cpu, cuda, cuda:N, mps, or auto (cuda, then mps, then cpu).
        dtype: format of the weights: fp32, bf16, fp16, or auto (bf16 on cuda that has it, fp32 elsewhere). On a CPU sums and
            activations are float32 whatever it is.
        quantize: none, or int8: weights of 8 bits, one scale an output channel (on a CPU).

    Raises:
        InputError: nothing there, an incomplete or damaged folder, an unknown model type, a device that is not here, weights
            that are not finite (the tensor is named).

    Example:
        >>> model = load("runs/demo")
        >>> model.complete("The sea", temperature=0.7, top_p=0.95)[0].text
    """
    from gpt3.device import choose_device
    from gpt3.model_folder.load import TORCH_DTYPES, choose_dtype, load_transformers

    where = choose_device(device)
    number_format = choose_dtype(dtype, where)
    if quantize not in ("none", "int8"):
        raise InputError(f"--quantize is {quantize!r}; give none or int8")
    if quantize == "int8" and where.type != "cpu":
        raise InputError(
            f"--quantize int8 is for the CPU, the device is {where.type}; give --device cpu, or --dtype bf16"
        )
    if quantize == "int8" and dtype not in ("auto", "fp32"):
        raise InputError(f"--quantize int8 and --dtype {dtype} are both given; leave one out")
    if where.type != "cpu":
        model, tokenizer = load_transformers(path, device=device, dtype=dtype)
        return LanguageModel(model, tokenizer, make_engine(model))
    model, tokenizer = load_transformers(path, device="cpu", dtype="fp32")  # rounded as it is packed
    names = {number: name for name, number in TORCH_DTYPES.items()}
    weight_format = "int8" if quantize == "int8" else names[number_format]
    return LanguageModel(model, tokenizer, make_engine(model, weight_format, take=True))


class LanguageModel:
    """A model, its tokenizer, and an engine that runs it.

    Args:
        model: a causal language model of transformers.
        tokenizer: its byte-level BPE.
        engine: None: the model's own forward, which follows the weights as they are trained.

    Attributes:
        ends: ids that end a text: generation_config.json's, and the tokenizer's end-of-text.
        vocabulary: ids from here on are never chosen.

    Raises:
        InputError: the tokenizer does not belong to the model, or is no byte-level BPE.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, engine: Engine | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.engine = ReferenceEngine(model) if engine is None else engine
        self.config = model.config
        self.token_bytes = TokenBytes(tokenizer)
        if len(tokenizer) > self.engine.vocabulary:
            raise InputError(
                f"the tokenizer has {len(tokenizer):,} ids, the model {self.engine.vocabulary:,}; use the model's own tokenizer"
            )
        self.vocabulary = min(self.engine.vocabulary, self.token_bytes.size)
        configured = getattr(model.generation_config, "eos_token_id", None)
        ends = set(configured) if isinstance(configured, (list, tuple)) else {configured}
        self.ends = {int(token) for token in (*ends, tokenizer.eos_token_id) if token is not None}

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
        job = Job(self, [prompts] if isinstance(prompts, str) else list(prompts), options, draft=draft)
        for _ in job:
            pass
        results, count = job.results(), options.num_samples
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
        check_stream(options)
        job = Job(self, [prompt], options, draft=draft)
        return (piece for _, piece in job)

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
        from gpt3.inference.scoring import score_text

        return score_text(self.engine, self.tokenizer, text, context=context, stride=stride, tokens=tokens, top=top)

    def encode_prompt(self, prompt: str) -> list[int]:
        """Token ids of a prompt; end-of-text, where documents begin, for an empty one.

        What the tokenizer itself puts before texts, as OPT's does with ``</s>``, stands before the prompt.

        Raises:
            InputError: the prompt holds half a surrogate pair, which is no character.
        """
        try:
            prompt.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(
                f"the prompt is no text at character {error.start} ({error.reason}); give it in UTF-8"
            ) from None
        ids: list[int] = self.tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"] if prompt else []
        ids = prompt_start(self.tokenizer) + ids
        if ids:
            return self.check_ids(ids)
        start = self.tokenizer.bos_token_id if self.tokenizer.bos_token_id is not None else self.tokenizer.eos_token_id
        if start is None:
            raise InputError("the prompt is empty and the tokenizer has no end-of-text to begin from; give a --prompt")
        return [start]

    def encode_word(self, word: str) -> list[int]:
        """Token ids of a text that is not to be written."""
        ids: list[int] = self.tokenizer(word, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def check_ids(self, ids: Sequence[int]) -> list[int]:
        """A prompt of ids, which the model must know.

        Raises:
            InputError: none, or one outside the vocabulary.
        """
        if not ids:
            raise InputError("the prompt has no ids; give at least one")
        if not 0 <= min(ids) <= max(ids) < self.vocabulary:
            wrong = next(token for token in ids if not 0 <= token < self.vocabulary)
            raise InputError(
                f"the prompt has the id {wrong}, the model and its tokenizer {self.vocabulary:,} ids from 0"
            )
        return list(ids)

    def text_of(self, ids: Sequence[int]) -> str:
        """The text that ids spell."""
        return b"".join(self.token_bytes[token] for token in ids).decode("utf-8", "replace")


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
