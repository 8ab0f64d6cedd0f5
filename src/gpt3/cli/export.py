"""``gpt3 export``: load, refuse what the target cannot hold, write, reload, compare, say what came out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt3.cli.export_options import ExportOptions
from gpt3.durable import check_room, replacing
from gpt3.errors import InputError
from gpt3.export.fitting import check_shape, export_context, vocabulary_rows

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

    from gpt3.model import GPT3ForCausalLM

MODEL_FILES = {"README.md", "config.json", "generation_config.json", "model.safetensors.index.json"}
TOKENIZER_FILES = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"}
SHOWN_TEXTS = 40  # characters of a text that llama.cpp splits otherwise
LLAMA_TOKENS = 64  # of the prompt whose next token's probabilities it is asked for
EXTRA = "llama.cpp itself was not asked: pip install 'gpt3[llama-cpp]' for that"


def run(options: ExportOptions) -> Path:
    """Export and print what was written, how long its context is, how far its logits are from the model's.

    Raises:
        InputError: no such model, or one that the format cannot hold; an `out` that holds something else.
        RunError: what was written is further from the model than rounding goes.
    """
    from gpt3.export.gguf import gguf_module
    from gpt3.model_folder.locate import locate

    out = Path(options.out)
    place = locate(options.model)
    _check_out(out, place, options.format)
    if options.format == "gguf":
        gguf_module()
    model, tokenizer, name = _load(place)
    config = model.config
    check_shape(config, options.format)
    context = export_context(config, options.format, options.context)
    rows = vocabulary_rows(config, tokenizer)
    write = _write_gguf if options.format == "gguf" else _write_folder
    lines = write(model, tokenizer, out, options, context=context, rows=rows, name=name)
    size = sum(file.stat().st_size for file in ([out] if out.is_file() else out.iterdir()))
    print(f"{place} -> {out}: {options.format}, {options.dtype}, {size / 1e6:,.1f} MB")
    print(context_line(model.config.max_position_embeddings, config.sliding_window, context, options))
    print("\n".join(lines))
    return out


def context_line(positions: int, window: int, context: int, options: ExportOptions) -> str:
    """How much of the context went along, and why not all."""
    line = f"context: {context:,} of the model's {positions:,} tokens"
    if context == positions:
        return f"context: {context:,} tokens, the model's"
    if options.context is None:
        line += f", its window: llama.cpp's gpt2 has no banded layers and would go wrong beyond {window:,}"
    return line


def _load(place: Path | str) -> tuple[GPT3ForCausalLM, PreTrainedTokenizerFast, str]:
    """The model in float32 on the CPU, its tokenizer, and what to call it."""
    from gpt3.model import GPT3ForCausalLM
    from gpt3.model_folder.load import load_transformers

    model: Any
    model, tokenizer = load_transformers(place, device="cpu", dtype="fp32")
    if not isinstance(model, GPT3ForCausalLM):
        kind = model.config.model_type
        raise InputError(
            f"--model {place} is a {kind} model, not a gpt3 one; `gpt3 import` makes a gpt3 model of what it can"
        )
    path = Path(place)
    return model, tokenizer, path.parent.name if path.name in ("model", "adapter") and path.parent.name else path.name


def _check_out(out: Path, place: Path | str, target: str) -> None:
    """Refuse to write over anything but an earlier export."""
    if isinstance(place, Path) and (out.resolve() == place.resolve() or out.resolve() in place.resolve().parents):
        raise InputError(f"--out {out} is the model itself or a folder around it; name another")
    if target == "gguf":
        return
    if out.is_file():
        raise InputError(f"--out {out} is a file; name a folder")
    if out.is_dir():
        names = {entry.name for entry in out.iterdir()}
        others = sorted(n for n in names - MODEL_FILES - TOKENIZER_FILES if not n.endswith(".safetensors"))
        if others:
            raise InputError(f"--out {out} holds other things ({', '.join(others[:3])}); name a new folder")


def _write_gguf(
    model: GPT3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    out: Path,
    options: ExportOptions,
    *,
    context: int,
    rows: int,
    name: str,
) -> list[str]:
    from gpt3.export.comparison import LARGEST, check, difference, logits, probe, tanh_gelu
    from gpt3.export.gguf import gguf_bytes, write_gguf
    from gpt3.export.gguf_reading import read_gguf

    check_room(out.parent, gguf_bytes(model, options.dtype), purpose="the GGUF file")
    with replacing(out) as temporary:
        write_gguf(model, tokenizer, temporary, dtype=options.dtype, context=context, name=name)
        if options.verify == "no":
            return ["not verified"]
        ids = probe(model.config, context, rows)
        ours = logits(model, ids, rows)
        theirs = logits(read_gguf(temporary), ids, rows)
        found = difference(ours, theirs)
        lines = [f"reloaded as GPT-2: {found}"]
        if model.config.activation_function == "gelu":
            with tanh_gelu(model):
                tanh = logits(model, ids, rows)
            lines[0] += f"; {float((ours - tanh).abs().max()):.2g} of it from GELU by tanh, llama.cpp's only one"
            ours = tanh
        if options.dtype == "f32":
            check(difference(ours, theirs), LARGEST, "the GGUF file")
        else:
            check(difference(ours, theirs), max(found.spread, LARGEST), "the GGUF file")
        lines.append(_ask_llama_cpp(temporary, model, tokenizer, ids, rows, context))
    return lines


def _ask_llama_cpp(path: Path, model: Any, tokenizer: Any, ids: Tensor, rows: int, context: int) -> str:
    """What llama.cpp itself makes of the file, where it is installed."""
    from gpt3.export.comparison import logits
    from gpt3.export.hard_texts import HARD_TEXTS
    from gpt3.export.llama_cpp import LlamaCpp, installed

    if not installed():
        return EXTRA
    import torch

    prompt = ids[:, : min(LLAMA_TOKENS, context - 1) or 1]
    ours = logits(model, prompt, rows)[0, -1].log_softmax(-1)
    with LlamaCpp(path, context=context) as llama:
        theirs = torch.tensor(llama.log_probabilities(prompt[0].tolist(), rows))
        other = [text for text in HARD_TEXTS if llama.tokenize(text) != tokenizer(text)["input_ids"]]
    line = (
        f"llama.cpp itself: largest difference of a token's log-probability {float((ours - theirs).abs().max()):.2g}; "
    )
    if other:
        count, first = len(other), other[0][:SHOWN_TEXTS]
        return line + f"OTHER token ids on {count} of {len(HARD_TEXTS)} hard texts, the first {first!a}"
    return line + f"the same token ids on {len(HARD_TEXTS)} hard texts"


def _write_folder(
    model: GPT3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    out: Path,
    options: ExportOptions,
    *,
    context: int,
    rows: int,
    name: str,
) -> list[str]:
    import torch
    from transformers import GPT2LMHeadModel, GPTNeoForCausalLM

    from gpt3.export.comparison import LARGEST, check, difference, logits, probe
    from gpt3.export.gpt2 import to_gpt2
    from gpt3.export.gpt_neo import to_gpt_neo
    from gpt3.export.stock import reload, save

    kind: Any = GPT2LMHeadModel if options.format == "gpt2" else GPTNeoForCausalLM
    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[options.dtype]
    size = sum(value.numel() for value in model.parameters()) * dtype.itemsize
    check_room(out.parent, size, purpose="the exported model")
    stock = (to_gpt2 if options.format == "gpt2" else to_gpt_neo)(model, context=context, rows=rows)
    verify = options.verify == "yes"
    if verify:  # before the weights are rounded to fewer bits
        ids = probe(model.config, context, rows)
        ours = logits(model, ids, rows)
        check(difference(ours, logits(stock, ids, rows)), LARGEST, f"--format {options.format}")
    tokenizer.model_max_length = context
    with replacing(out) as temporary:
        save(stock, tokenizer, temporary, dtype)
        if not verify:
            return ["not verified"]
        found = difference(ours, logits(reload(kind, temporary), ids, rows))
        check(found, LARGEST if options.dtype == "f32" else max(found.spread, LARGEST), f"--format {options.format}")
    return [f"reloaded by {kind.__name__}: {found}"]
