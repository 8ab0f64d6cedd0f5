"""``gpt3 info``: what a model folder is, without reading its weights into memory."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from gpt3.cli.import_model import ORIGIN
from gpt3.cli.import_options import InfoOptions
from gpt3.durable import sha256_of
from gpt3.errors import InputError
from gpt3.model_folder.adapter import ADAPTER_WEIGHTS, is_adapter
from gpt3.model_folder.locate import RUNS, TRAIN_FIRST, model_folder, newest_run, read_json

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


def run(options: InfoOptions) -> None:
    """Print what the folder is, as text or JSON.

    Raises:
        InputError: no model folder there.
    """
    path = Path(options.path).expanduser() if options.path is not None else None
    found = (
        describe_file(path) if path and path.suffix == ".gguf" and path.is_file() else describe(folder_of(options.path))
    )
    print(json.dumps(found, indent=2, ensure_ascii=False) if options.json else text(found))


def folder_of(path: str | None) -> Path:
    """The folder to describe: a model folder, a run's, the newest run's; or a hub id's, downloaded.

    Raises:
        InputError: there is none.
    """
    if path is None:
        folder = newest_run(RUNS)
        if folder is None:
            raise InputError(
                f"no path is given and no trained model is in ./{RUNS}; give a model folder, or {TRAIN_FIRST}"
            )
        return folder
    for place in (Path(path).expanduser(), RUNS / path):
        if place.is_dir() and (folder := model_folder(place) or newest_run(place)) is not None:
            return folder
    from gpt3.model_folder.fetch import local_folder

    return local_folder(path)


def describe(folder: Path) -> dict[str, Any]:
    """What is known of a model folder, for JSON: shape, parameters, tokenizer, files, origin.

    Of a model that cannot run here, `problem` says why, and the rest is what its files show.
    """
    from gpt3.model_folder.weights import Weights

    if is_adapter(folder):
        return describe_adapter(folder)
    raw = read_json(folder / "config.json")
    found: dict[str, Any] = {"folder": str(folder), "model_type": raw.get("model_type")}
    try:
        found |= _as_model(folder, raw)
    except InputError as error:
        found["problem"] = str(error)
        try:
            weights = Weights(folder)
            found["dtypes"] = dict(Counter(weights.dtypes.values()))
        except InputError:
            pass
    found["origin"] = _origin(folder, raw)
    found["files"] = _files(folder)
    return found


def describe_adapter(folder: Path) -> dict[str, Any]:
    """The same of an adapter: its kind, the base it names, the layers it changes; `problem`, where the base is not here."""
    from gpt3.model_folder.adapter import BASE, adapter_settings, base_of, kind_of
    from gpt3.model_folder.weights import Weights

    settings = adapter_settings(folder)
    weights = Weights(folder, file=ADAPTER_WEIGHTS)
    layers = settings.get("target_modules") or []
    found: dict[str, Any] = {
        "folder": str(folder),
        "model_type": "adapter",
        "family": f"PEFT adapter, {kind_of(settings)}",
        "base": settings.get(BASE),
        "layers": [layers] if isinstance(layers, str) else sorted(layers),
        "parameters": {"total": sum(map(math.prod, weights.shapes.values()))},
        "dtypes": dict(Counter(weights.dtypes.values())),
        "origin": _origin(folder, {}),
        "files": _files(folder),
    }
    try:
        base_of(folder, settings)
    except InputError as error:
        found["problem"] = str(error)
    return found


def describe_file(path: Path) -> dict[str, Any]:
    """The same of a GGUF file, as far as it says."""
    from gpt3.model_folder.gguf_info import describe_gguf

    found = {"folder": str(path), "model_type": "gguf", **describe_gguf(path), "origin": None}
    return {**found, "files": [_file(path)]}


def _files(folder: Path) -> list[dict[str, Any]]:
    return [_file(path) for path in sorted(folder.iterdir()) if path.is_file()]


def _file(path: Path) -> dict[str, Any]:
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path)}


def _as_model(folder: Path, raw: dict[str, Any]) -> dict[str, Any]:
    """Shape, parameters and tokenizer of a model that is whole."""
    from gpt3.model_folder.convert import open_checkpoint
    from gpt3.model_folder.tokenizer import tokenizer_line
    from gpt3.tokenizer.loading import prompt_start, tokenizer_hash

    checkpoint = open_checkpoint(folder, allow_ours=True)
    config, tokenizer = checkpoint.config, checkpoint.tokenizer
    parameters = {name: p.numel() for name, p in checkpoint.empty_model().named_parameters()}
    banded = "sliding_attention" in config.layer_types
    return {
        "family": checkpoint.blueprint.family,
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
            "layer_types": [KINDS[kind] for kind in config.layer_types],
            "window": config.sliding_window if banded else None,
            "tied_head": config.tie_word_embeddings,
        },
        "parameters": {
            "total": sum(parameters.values()),
            **{
                part: count
                for part, marks in PARTS.items()
                if (count := sum(n for name, n in parameters.items() if any(mark in f".{name}" for mark in marks)))
            },
        },
        "dtypes": dict(Counter(checkpoint.weights.dtypes[name] for name in checkpoint.names.values())),
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


def _origin(folder: Path, raw: dict[str, Any]) -> dict[str, Any] | None:
    """Where the model came from, as far as its folder says."""
    if (folder / ORIGIN).is_file():
        return read_json(folder / ORIGIN)
    for parent in folder.absolute().parents[:2]:  # runs/NAME/model, runs/NAME/checkpoints/step-N
        if (parent / "metrics.jsonl").is_file() and (parent / "config.yaml").is_file():
            return {"run": parent.name}
    name = raw.get("_name_or_path")
    return {"source": name} if name else None


def text(found: dict[str, Any]) -> str:
    """`describe`'s finding for people."""
    lines = [f"{found['folder']}: {found.get('family') or 'model_type ' + repr(found['model_type'])}"]
    if "problem" in found:
        lines.append(f"does not run here: {found['problem']}")
    if found["model_type"] == "adapter":
        lines += [f"base: {found['base']}", f"layers: {', '.join(found['layers'])}"]
        lines.append(f"parameters: {found['parameters']['total']:,}")
    elif found["model_type"] == "gguf":
        said = ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in found["shape"].items() if value)
        lines += [f"shape: {said}", f"parameters: {found['parameters']['total']:,}"]
    elif shape := found.get("shape"):
        kinds = Counter(shape["layer_types"])
        layers = " and ".join(f"{count} {kind}" for kind, count in sorted(kinds.items(), reverse=True))
        order = ", ".join(shape["layer_types"][:4]) + (", …" if shape["layers"] > 4 else "")
        window = f"; window {shape['window']} keys, the query's own counted" if shape["window"] else ""
        lines += [
            f"shape: {shape['layers']} layers x {shape['width']}, {shape['heads']} heads of {shape['head_width']}, "
            f"MLP {shape['mlp_width']} ({shape['activation']}), norm {shape['layer_norm']}",
            f"layers: {layers} ({order}){window}",
            f"context: {shape['context']:,} positions; vocabulary: {shape['vocabulary']:,} ids"
            + (f", {shape['padding_ids']} of them padding" if shape["padding_ids"] else ""),
        ]
        parts = {part: count for part, count in found["parameters"].items() if part != "total"}
        total = found["parameters"]["total"]
        lines.append(f"parameters: {total:,}{' (output head tied)' if shape['tied_head'] else ''}")
        lines += [f"  {part:<19}{count:>15,}  {count / total:6.1%}" for part, count in parts.items()]
    if found.get("dtypes"):
        lines.append(
            "number format: " + ", ".join(f"{name} ({count} tensors)" for name, count in found["dtypes"].items())
        )
    if "tokenizer" in found:
        summary = found["tokenizer"]["summary"] if found["tokenizer"] else "none"
        lines.append(f"tokenizer: {summary}")
    lines += [f"note: {note}" for note in found.get("notes", ())]
    origin = found["origin"] or {}
    lines.append(
        "origin: " + (", ".join(f"{k} {v}" for k, v in origin.items() if isinstance(v, str)) or "not recorded")
    )
    lines.append("files:")
    lines += [f"  {file['sha256']}  {file['bytes']:>13,}  {file['name']}" for file in found["files"]]
    return "\n".join(lines)
