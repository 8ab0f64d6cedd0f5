"""A model one can talk to from Python: `gpt3.load(...)`, then `complete`, `stream`, `score`; and the fastest engine for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, overload

from gpt3.adaptive_threads import set_threads
from gpt3.device import CPU, choose_device, is_cpu
from gpt3.errors import InputError, one_line
from gpt3.inference.constraint import Constraint, ConstraintCompiler
from gpt3.inference.decoding import Draft
from gpt3.inference.engine import Engine
from gpt3.inference.generation import Generation, GenerationRequest
from gpt3.inference.options import SamplingOptions
from gpt3.inference.packing import check
from gpt3.inference.scoring import TextScore, TokenReader, check_text, encode_texts, first_token, score_chunks
from gpt3.inference.streaming import TokenBytes
from gpt3.model_folder import locate
from gpt3.model_folder.stored import StoredModel, open_stored
from gpt3.options import DType, Quantize, check_names
from gpt3.progress import say
from gpt3.tokenizer.loading import prompt_start
from gpt3.tokenizer.plain import PlainTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def load(
    path: str | Path | None = None,
    *,
    device: str = "auto",
    dtype: str = "auto",
    quantize: str = "none",
    threads: str | int | None = None,
) -> LanguageModel:
    """A model and its tokenizer, ready to generate.

    Args:
        path: a model folder, a run folder, a run's name under ./runs, or a hub id; None: the newest run under ./runs.
        device: cpu, cuda, cuda:N, mps, or auto (cuda, then mps, then cpu).
        dtype: format of the weights: fp32, bf16, fp16, or auto (on cuda bf16, or fp16 where it lacks that; else fp32). On a CPU
            sums and activations are float32 whatever it is.
        quantize: none; int8: 8-bit weights with one scale per output channel; int4: 4-bit weights with one for 32 of them in the
            layers, int8 in embedding and head, on a CPU.
        threads: of the CPU, for every model of this process: a number, or auto, which adapts to what else the machine does
            (`gpt3.adaptive_threads`); None leaves them as they are.

    Raises:
        InputError: nothing there, an incomplete or damaged folder, an unknown model type, a device that is not available, weights
            that are not finite (the tensor is named).

    Example:
        >>> model = load("runs/demo")
        >>> model.complete("The sea", temperature=0.7, top_p=0.95)[0].text
    """
    where: Any = CPU if is_cpu(device) else choose_device(device)
    kind = where.type
    if threads is not None:
        Engine.adaptive = set_threads(str(threads), adapt=kind == "cpu")
    if dtype not in get_args(DType):
        raise InputError(f"--dtype {dtype!r} must be one of {', '.join(get_args(DType))}")
    if quantize not in get_args(Quantize):
        raise InputError(f"--quantize {quantize!r} must be none, int8 or int4")
    if quantize == "int4" and kind != "cpu":
        raise InputError(
            f"--quantize int4 is for the CPU, but the device is {kind}. Use --quantize int8 or --device cpu."
        )
    if quantize != "none" and dtype not in ("auto", "fp32"):
        raise InputError(f"--quantize {quantize} and --dtype {dtype} are two formats. Use one of them.")
    place = locate.locate(path)
    folder = place if isinstance(place, Path) else locate.fetch(place)
    weight_format = "fp32" if dtype == "auto" else dtype
    model: Any = stored_model(folder) if kind == "cpu" and numba_fault() is None else None
    if model is not None:
        tokenizer, parameters = model.tokenizer, model.parameters
    else:
        from gpt3.model_folder.load import TORCH_DTYPES, choose_dtype, load_model

        if kind != "cpu":
            number_format = choose_dtype(dtype, where)
            weight_format = {number: name for name, number in TORCH_DTYPES.items()}[number_format]
        # on a CPU, weights are rounded as they are packed
        there = kind != "cpu" and quantize == "none"
        device_to_load = where if there else choose_device("cpu")
        model, tokenizer = load_model(folder, device_to_load, TORCH_DTYPES[weight_format if there else "fp32"])
        parameters = model.num_parameters()
        if kind != "cpu" and quantize != "none":
            from gpt3.inference.int8_weights import quantized

            model = quantized(model, number_format).to(where)
    weight_format = weight_format if quantize == "none" else quantize
    context = getattr(model.config, "max_position_embeddings", "unknown")
    family = getattr(model, "family", None) or model.config.model_type
    summary = f"{family}, {parameters:,} parameters, context {context}, {weight_format}, {where}"
    loaded = LanguageModel(model, tokenizer, make_engine(model, weight_format, take=kind == "cpu"))
    loaded.summary, loaded.parameters = summary, parameters
    if Engine.adaptive is not None:
        Engine.adaptive.begin()
    return loaded


def stored_model(folder: Path) -> StoredModel | None:
    """The model in a folder, if the CPU engine can pack it tensor by tensor; None: it has to be loaded whole.

    Raises:
        InputError: a model of a known family that is damaged.
    """
    found = open_stored(folder)
    if found is None:
        from gpt3.model_folder.load import open_converted

        found = open_converted(folder)
    return found if found is not None and has_kernels(found.config) else None


def numba_fault() -> str | None:
    """Why the kernels of the CPU engine cannot be used on this machine, in a clause; None: they can."""
    try:
        import gpt3.inference.cpu_engine  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:  # also: no folder for numba's cache can be written
        return f"numba does not work here ({one_line(error)}; NUMBA_CACHE_DIR may name a folder to write to)"
    return None


def has_kernels(config: Any) -> bool:
    """Whether the CPU engine has a kernel of a model's activation function."""
    from gpt3.inference.activations import ACTIVATIONS

    return config.activation_function in ACTIVATIONS


def make_engine(model: PreTrainedModel | StoredModel, weight_format: str = "fp32", take: bool = False) -> Engine:
    """An engine for a model, whose weights it may copy: the model need not be kept.

    Args:
        model: a causal model of transformers, on its device; or one in its folder, for which there are kernels.
        weight_format: fp32, fp16, bf16, int8 or int4, on a CPU; other devices compute in the model's own format.
        take: the model may be emptied, so that its weights are not held twice.

    Raises:
        InputError: weights that are not finite (the tensor is named), or a format that no engine here has for this model.
    """
    ours: Any = model
    if isinstance(model, StoredModel):
        from gpt3.inference.cpu_engine import CpuEngine

        return CpuEngine(model, weight_format)
    from gpt3.inference.torch_engine import ReferenceEngine, TorchEngine
    from gpt3.model import GPT3ForCausalLM
    from gpt3.model_folder.load import TORCH_DTYPES

    on_cpu, without = model.device.type == "cpu", None  # why the CPU engine is not taken
    if isinstance(ours, GPT3ForCausalLM) and on_cpu:
        without = numba_fault()
        if without is None and has_kernels(ours.config):
            from gpt3.inference.cpu_engine import CpuEngine

            return CpuEngine(ours, weight_format, take)
        without = without or f"activation {ours.config.activation_function!r} has no fast kernel"
    if weight_format in ("int8", "int4") and on_cpu:
        reason = without or f"model type {model.config.model_type!r} has no fast kernels"
        raise InputError(f"--quantize {weight_format} is not available: {reason}. Leave it out, or use --dtype bf16.")
    if without:
        say(f"{without}: decoding is several times slower")
    for name, parameter in model.named_parameters():
        check(name, parameter)
    if isinstance(ours, GPT3ForCausalLM) and not on_cpu:
        return TorchEngine(ours)
    if on_cpu and weight_format != "fp32":
        model.to(dtype=TORCH_DTYPES[weight_format])  # type: ignore[call-arg]  # transformers wraps it without types
    return ReferenceEngine(model)


class LanguageModel:
    """A model one can talk to: prompts to ids, ids to text, and the tokens that end a text.

    Args:
        model: a causal language model of transformers; or one in its folder, with an engine of it.
        tokenizer: its byte-level BPE.
        engine: runs it; None: the model's own forward, which follows the weights as they are trained.

    Attributes:
        ends: ids that end a text: generation_config.json's, and the tokenizer's EOS.
        vocabulary: ids from here on are never chosen.

    Raises:
        InputError: the tokenizer does not belong to the model, or is no byte-level BPE.
    """

    summary = "in memory"
    """Family, parameters, context, number format and device, of a model that `load` has loaded."""

    def __init__(
        self,
        model: PreTrainedModel | StoredModel,
        tokenizer: PreTrainedTokenizerFast | PlainTokenizer,
        engine: Engine | None = None,
    ) -> None:
        if engine is None:
            from gpt3.inference.torch_engine import ReferenceEngine

            assert not isinstance(model, StoredModel)
            engine = ReferenceEngine(model)
        self.tokenizer: Any = tokenizer
        self.engine = engine
        self._config = model.whole_config if isinstance(model, StoredModel) else lambda: model.config
        self.token_bytes = TokenBytes(self.tokenizer)
        self._compiler: ConstraintCompiler | None = None
        if len(tokenizer) > self.engine.vocabulary:
            raise InputError(
                f"the tokenizer has {len(tokenizer):,} ids, the model {self.engine.vocabulary:,}. Use the model's own tokenizer."
            )
        self.vocabulary = min(self.engine.vocabulary, self.token_bytes.size)
        settings = model if isinstance(model, StoredModel) else model.generation_config
        configured = getattr(settings, "eos_token_id", None)
        ends = set(configured) if isinstance(configured, (list, tuple)) else {configured}
        self.ends = {int(token) for token in (*ends, tokenizer.eos_token_id) if token is not None}

    @property
    def config(self) -> Any:
        """The model's configuration, transformers' own."""
        return self._config()

    @cached_property
    def parameters(self) -> int:
        """Numbers of the model, tied ones once."""
        import torch
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):  # the engine may have emptied the model
            return int(AutoModelForCausalLM.from_config(self.config).num_parameters())

    def encode_prompt(self, prompt: str, plain: bool = False) -> list[int]:
        """Token ids of a prompt; for an empty one EOS, with which documents begin.

        What the tokenizer itself puts before texts, as OPT's does with ``</s>``, comes before the prompt. A special token that
        the prompt spells is what the tokenizer takes it for; with `plain` it stays text.

        Raises:
            InputError: the prompt holds half a surrogate pair, which is no character.
        """
        check_text("the prompt", prompt)
        if ids := prompt_start(self.tokenizer) + (self.encode_word(prompt, plain) if prompt else []):
            return self.check_ids(ids)
        return [first_token(self.tokenizer)]

    def encode_word(self, word: str, plain: bool = False) -> list[int]:
        """Token ids of a text without BOS or EOS; `plain` as in `encode_prompt`."""
        split = True if plain else None  # None: as the tokenizer was saved
        options = {"add_special_tokens": False, "verbose": False, "split_special_tokens": split}
        options["return_attention_mask"] = False
        return list(self.tokenizer(word, **options)["input_ids"])

    def constraint(self, options: SamplingOptions) -> Constraint | None:
        """What the options ask a text to follow, for one row.

        Raises:
            InputError: it cannot be followed, or llguidance is not installed.
        """
        if options.constraint is None:
            return None
        if self._compiler is None or self._compiler.ends != self.ends:
            self._compiler = ConstraintCompiler(self.token_bytes, self.vocabulary, self.ends)
        return self._compiler.new(*options.constraint)

    def check_ids(self, ids: Sequence[int]) -> list[int]:
        """A prompt of ids, which the model must know.

        Raises:
            InputError: none, or one outside the vocabulary.
        """
        if not ids:
            raise InputError("the prompt has no ids. Give at least one.")
        if wrong := [token for token in ids if not 0 <= token < self.vocabulary]:
            raise InputError(
                f"the prompt has the id {wrong[0]}, the model and its tokenizer {self.vocabulary:,} ids from 0"
            )
        return list(ids)

    def text_of(self, ids: Sequence[int]) -> str:
        """The text that ids spell."""
        return b"".join(self.token_bytes[token] for token in ids).decode("utf-8", "replace")

    def __repr__(self) -> str:
        return f"LanguageModel({self.summary})"

    @overload
    def complete(
        self, prompts: str = "", options: SamplingOptions | None = None, *, n: int | None = None, **changes: Any
    ) -> list[Generation]: ...
    @overload
    def complete(
        self, prompts: Sequence[str], options: SamplingOptions | None = None, *, n: int | None = None, **changes: Any
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
            draft: proposes tokens ahead (see decoding.py); the texts do not depend on it.
            changes: fields of SamplingOptions by name, over `options`.

        Returns:
            n generations; for a list of prompts, such a list for each.

        Raises:
            InputError: options out of their ranges (all named at once), or a prompt that is no text.
        """
        if n is not None:
            changes["num_samples"] = n
        check_names(SamplingOptions, changes)
        options = dataclasses.replace(options or SamplingOptions(), **changes)
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
        check_names(SamplingOptions, changes)
        options = dataclasses.replace(options or SamplingOptions(), **changes)
        if options.num_samples != 1:
            raise InputError(f"num_samples is {options.num_samples}, but a stream is one text. Use 1, or `complete`.")
        return (piece for _, piece in GenerationRequest(self, [prompt], options, draft=draft))

    def score(
        self, text: str, *, context: int | None = None, stride: int | None = None, tokens: bool = False, top: int = 0
    ) -> TextScore:
        """How probable the model finds a text that begins a document: loss, perplexity, bits per byte.

        Args:
            context, stride: windows over a long text, see `gpt3.inference.scoring.score_tokens`.
            tokens: give every token's score, too.
            top: with each token, as many of the likeliest in its place.

        Raises:
            InputError: an empty text, one that is no text, or windows out of range.
        """
        [ids] = encode_texts(self.tokenizer, [("the text", text)])
        reader = TokenReader(self.tokenizer) if tokens or top else None
        found = TextScore(bytes=len(text.encode("utf-8")), characters=len(text))
        for scores in score_chunks(self.engine, [first_token(self.tokenizer), *ids], context, stride, top=top):
            found.add(scores)
            found.tokens += reader.read(scores) if reader else ()
        return found


def generate(model: LanguageModel | str | Path | None, prompt: str = "", **changes: Any) -> list[Generation]:
    """Continue a prompt: `load(model).complete(prompt, ...)`, or that of a model that is loaded already.

    Example:
        >>> generate("runs/demo", "The sea", temperature=0.8, seed=1)[0].text
    """
    if not isinstance(model, LanguageModel):
        model = load(model)
    return model.complete(prompt, **changes)
