"""What a model folder, an adapter or a GGUF file is, without reading its weights into memory."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from gpt3.durable import sha256_of
from gpt3.errors import InputError, one_line, require
from gpt3.model_folder import locate
from gpt3.model_folder.adapter import kind_of
from gpt3.model_folder.convert import Stored, mapped, read_checkpoint, stored_weights
from gpt3.tokenizer.loading import prompt_start, tokenizer_hash

PARTS = {
    "token embedding": ("transformer.wte",),
    "position embedding": ("transformer.wpe",),
    "attention": (".attn.",),
    "MLP": (".mlp.",),
    "layer norms": (".ln_1.", ".ln_2.", ".ln_f."),
    "output head": ("lm_head.",),
}
"""Parts of a model, and what the names of their parameters hold."""
KINDS = {"full_attention": "dense", "sliding_attention": "banded"}
GGUF_SHAPE = {
    "layers": "block_count",
    "width": "embedding_length",
    "heads": "attention.head_count",
    "mlp_width": "feed_forward_length",
    "context": "context_length",
}
"""Our names of the shape's parts, and GGUF's after the architecture's name."""


def describe(path: Path) -> dict[str, Any]:
    """What is known of a model folder, an adapter or a GGUF file, for JSON: shape, parameters, tokenizer, files, origin.

    Of a model that cannot run here, `problem` says why, and the rest is what its files show.
    """
    if path.is_file():
        files, found = [path], _gguf(path)
    else:
        files = sorted(each for each in path.iterdir() if each.is_file())
        found = _adapter(path) if locate.is_adapter(path) else _model(path)
    sizes = [{"name": file.name, "bytes": file.stat().st_size, "sha256": sha256_of(file)} for file in files]
    return {"folder": str(path), **found, "files": sizes}


def _model(folder: Path) -> dict[str, Any]:
    raw = locate.read_json(folder / locate.CONFIG)
    found: dict[str, Any] = {"model_type": raw.get("model_type")}
    try:
        found |= _checked_model(folder)
    except InputError as error:
        found["problem"] = str(error)
        with suppress(InputError):
            found["dtypes"] = _dtypes(stored_weights(folder)[0])
    return {**found, "origin": _origin(folder, raw.get("_name_or_path"))}


def _checked_model(folder: Path) -> dict[str, Any]:
    """Family, shape, parameters and tokenizer of a model whose every tensor is there."""
    checkpoint = read_checkpoint(folder, allow_ours=True)
    config, tokenizer = checkpoint.config, checkpoint.tokenizer
    parameters = {name: p.numel() for name, p in checkpoint.empty_model().named_parameters()}
    kinds = [KINDS[kind] for kind in config.layer_types or ()]
    parts = {
        part: sum(count for name, count in parameters.items() if any(mark in f".{name}" for mark in marks))
        for part, marks in PARTS.items()
    }
    return {
        "family": checkpoint.conversion.family,
        "shape": {
            "layers": config.num_hidden_layers,
            "width": config.hidden_size,
            "heads": config.num_attention_heads,
            "head_width": config.head_dim,
            "mlp_width": config.intermediate_size,
            "activation": config.activation_function,
            "layer_norm": "before each sub-block" if config.use_pre_layernorm else "after each residual sum",
            "context": config.max_position_embeddings,
            "vocabulary": config.vocab_size,
            "padding_ids": config.vocab_size - (config.real_vocab_size or config.vocab_size),
            "layer_types": kinds,
            "window": config.sliding_window if "banded" in kinds else None,
            "tied_head": config.tie_word_embeddings,
        },
        "parameters": {"total": sum(parameters.values()), **{part: count for part, count in parts.items() if count}},
        "dtypes": _dtypes(checkpoint.stored),
        "tokenizer": tokenizer
        and {
            "summary": tokenizer_line(tokenizer),
            "ids": len(tokenizer),
            "end_of_text": tokenizer.eos_token,
            "before_each_text": prompt_start(tokenizer),
            "chat_template": tokenizer.chat_template is not None,
            "hash": tokenizer_hash(tokenizer),
        },
        "notes": checkpoint.notes,
    }


def _adapter(folder: Path) -> dict[str, Any]:
    """The kind of an adapter, the base it names, the layers it changes; `problem`, if the base is not here."""
    settings, weights = locate.adapter_settings(folder), mapped(folder / locate.ADAPTER_WEIGHTS)
    layers = settings.get("target_modules") or []
    found = {
        "model_type": "adapter",
        "family": f"PEFT adapter, {kind_of(settings)}",
        "base": settings.get(locate.BASE),
        "layers": [layers] if isinstance(layers, str) else sorted(layers),
        "parameters": {"total": sum(math.prod(tensor.shape) for tensor in weights.values())},
        "dtypes": _dtypes(weights),
        "origin": _origin(folder),
    }
    try:
        locate.base_of(folder, settings)
    except InputError as error:
        found["problem"] = str(error)
    return found


def _gguf(path: Path) -> dict[str, Any]:
    """Architecture, shape, parameters, number formats and tokenizer of a GGUF file, from its header.

    Raises:
        InputError: the gguf package is not installed, or the file is damaged.
    """
    gguf = require("gguf", extra="export", purpose="reading a GGUF file")
    try:
        reader = gguf.GGUFReader(path)

        def value(name: str) -> Any:
            return reader.fields[name].contents() if name in reader.fields else None

        architecture, tokens = value("general.architecture"), reader.fields.get("tokenizer.ggml.tokens")
        return {
            "model_type": "gguf",
            "family": f"GGUF, architecture {architecture}",
            "name": value("general.name"),
            "shape": {ours: value(f"{architecture}.{theirs}") for ours, theirs in GGUF_SHAPE.items()},
            "parameters": {"total": sum(math.prod(map(int, tensor.shape)) for tensor in reader.tensors)},
            "dtypes": dict(Counter(tensor.tensor_type.name for tensor in reader.tensors)),
            "tokenizer": None
            if tokens is None
            else {
                "summary": f"{value('tokenizer.ggml.model')} of {len(tokens.data):,} ids",
                "ids": len(tokens.data),
                "chat_template": value("tokenizer.chat_template") is not None,
            },
            "origin": None,
        }
    except (ValueError, KeyError, IndexError, OSError, OverflowError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a complete GGUF file ({one_line(error)}). Copy it again") from error


def _dtypes(weights: Mapping[str, Stored]) -> dict[str, int]:
    return dict(Counter(tensor.dtype for tensor in weights.values()))


def _origin(folder: Path, name: str | None = None) -> dict[str, Any] | None:
    """Where a model came from, as far as its folder says; `name` is what its config.json says."""
    if (folder / locate.ORIGIN).is_file():
        return locate.read_json(folder / locate.ORIGIN)
    for parent in folder.absolute().parents[:2]:  # runs/NAME/model, runs/NAME/checkpoints/step-N
        if (parent / "metrics.jsonl").is_file() and (parent / "config.yaml").is_file():
            return {"run": parent.name}
    return {"source": name} if name else None


def tokenizer_line(tokenizer: PreTrainedTokenizerFast | None) -> str:
    """What it is, in words."""
    if tokenizer is None:
        return "none: there are no tokenizer files next to the weights"
    kind = json.loads(tokenizer.backend_tokenizer.to_str())["model"].get("type", "unknown kind")
    start = prompt_start(tokenizer)
    habit = f", puts {tokenizer.decode(start)} before each text" if start else ""
    return f"{kind} of {len(tokenizer):,} ids, ends texts with {tokenizer.eos_token}{habit}"


def text(found: Mapping[str, Any]) -> str:
    """What `describe` found, for people."""
    lines = [f"{found['folder']}: {found.get('family') or 'model_type ' + repr(found['model_type'])}"]
    if "problem" in found:
        lines.append(f"cannot run here: {found['problem']}")
    if "base" in found:
        lines += [f"base: {found['base']}", f"layers: {', '.join(found['layers'])}"]
    shape = found.get("shape", {})
    plain = {name: value for name, value in shape.items() if value and not isinstance(value, (list, bool))}
    numbers = {name: value if isinstance(value, str) else f"{value:,}" for name, value in plain.items()}
    if numbers:
        lines.append("shape: " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in numbers.items()))
    if kinds := shape.get("layer_types"):
        count = " and ".join(f"{count} {kind}" for kind, count in sorted(Counter(kinds).items(), reverse=True))
        window = f"; window {shape['window']} keys, the query's own counted" if shape["window"] else ""
        lines.append(f"layers: {count} ({locate.some(kinds, 4)}){window}")
    if parameters := found.get("parameters"):
        total = parameters["total"]
        lines.append(f"parameters: {total:,}{' (output head tied)' if shape.get('tied_head') else ''}")
        parts = [(part, count) for part, count in parameters.items() if part != "total"]
        lines += [f"  {part:<19}{count:>15,}  {count / total:6.1%}" for part, count in parts]
    if dtypes := found.get("dtypes"):
        lines.append("number format: " + ", ".join(f"{name} ({count} tensors)" for name, count in dtypes.items()))
    if "tokenizer" in found:
        lines.append(f"tokenizer: {found['tokenizer']['summary'] if found['tokenizer'] else 'none'}")
    lines += [f"note: {note}" for note in found.get("notes", ())]
    origin = ", ".join(f"{key} {value}" for key, value in (found["origin"] or {}).items() if isinstance(value, str))
    lines += [f"origin: {origin or 'not recorded'}", "files:"]
    lines += [f"  {file['sha256']}  {file['bytes']:>13,}  {file['name']}" for file in found["files"]]
    return "\n".join(lines)
