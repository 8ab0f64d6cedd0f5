"""``gpt3 export``: load, refuse what the target cannot hold, write, reload, compare, print what was written."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gpt3.durable import check_room, replacing
from gpt3.errors import InputError
from gpt3.model_folder.locate import locate
from gpt3.options import Options, option

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from gpt3.model import GPT3ForCausalLM

BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 1.0625}
"""Bytes of a weight in each number format."""
FILES = {"README.md", "config.json", "generation_config.json", "model.safetensors.index.json"}
FILES |= {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"}


@dataclass(frozen=True)
class ExportOptions(Options):
    """Write a model in the format other programs run: GGUF for llama.cpp and LM Studio, stock GPT-2 or GPT-Neo for the rest."""

    format: Literal["gguf", "gpt2", "gpt-neo"]
    """gguf: one file for llama.cpp; gpt2, gpt-neo: a folder for transformers' own classes (docs/export.md)."""
    out: str
    """The file (gguf) or folder (gpt2, gpt-neo) to write; an earlier export there is replaced."""
    model: str | None = option(None, common=True)
    """A model folder, a run folder, a run's name in ./runs, or a hub id. Default: the newest run in ./runs."""
    dtype: Literal["f32", "f16", "bf16", "q8_0"] = option("f32", common=True)
    """Number format of the weights; q8_0 (8 bits, a scale for every 32 values) for gguf only."""
    context: int | None = option(None, least=1, common=True)
    """Longest context in tokens. Default: the model's; for gguf with banded layers, at most their window."""
    verify: Literal["yes", "no"] = option("yes", common=True)
    """Reload what was written in the target's own class and compare logits before the export counts as done."""

    def errors(self) -> Iterator[str]:
        """Options that do not go together."""
        if self.dtype == "q8_0" and self.format != "gguf":
            yield f"--dtype {self.dtype} is not for --format {self.format}; use one of f32, f16, bf16"
        if self.format == "gguf" and not self.out.endswith(".gguf"):
            yield f"--out {self.out} must end in .gguf"
        if self.format == "gguf" and Path(self.out).is_dir():
            yield f"--out {self.out} is a folder; name a file"


def run(options: ExportOptions) -> Path:
    """Export and print what was written, how long its context is, how far its logits are from the model's.

    Raises:
        InputError: no such model, or one that the format cannot hold; an `out` that holds something else.
        RunError: what was written differs from the model by more than rounding.
    """
    from gpt3.export.stock import fit
    from gpt3.model import GPT3ForCausalLM
    from gpt3.model_folder.load import load_transformers

    out, place = Path(options.out), locate(options.model)
    _check_out(out, place, options.format)
    if options.format == "gguf":
        importlib.import_module("gpt3.export.gguf")  # or an error that says how to install its package
    model: Any
    model, tokenizer = load_transformers(place, device="cpu", dtype="fp32")
    if not isinstance(model, GPT3ForCausalLM):
        kind = model.config.model_type
        raise InputError(
            f"--model {place} is a {kind} model, not a gpt3 one. Convert it with gpt3 import, if it can be"
        )
    positions = model.config.max_position_embeddings
    context, rows = fit(model.config, tokenizer, options.format, options.context)
    check_room(out.parent, int(model.num_parameters() * BYTES[options.dtype]), purpose="the exported model")
    with replacing(out) as temporary:
        write = _write_gguf if options.format == "gguf" else _write_folder
        lines = write(model, tokenizer, temporary, options, context, rows, _name(Path(place)))
    size = sum(file.stat().st_size for file in ([out] if out.is_file() else out.iterdir()))
    print(f"{place} -> {out}: {options.format}, {options.dtype}, {size / 1e6:,.1f} MB")
    line = (
        f"{context:,} of the model's {positions:,} tokens"
        if context < positions
        else f"{context:,} tokens, the model's"
    )
    if context < positions and options.context is None:
        line += f", its window: llama.cpp's gpt2 has no banded layers and would be wrong beyond {context:,}"
    print(f"context: {line}")
    print("\n".join(lines))
    return out


def _name(place: Path) -> str:
    """What to call a model: of a run, the run's name."""
    return place.parent.name if place.name in ("model", "adapter") and place.parent.name else place.name


def _check_out(out: Path, place: Path | str, target: str) -> None:
    """Refuse to write over anything but an earlier export."""
    if isinstance(place, Path) and (out.resolve() == place.resolve() or out.resolve() in place.resolve().parents):
        raise InputError(f"--out {out} is the model itself or a folder around it. Name another")
    if target == "gguf":
        return
    if out.is_file():
        raise InputError(f"--out {out} is a file. Name a folder")
    if out.is_dir():
        names = {entry.name for entry in out.iterdir()} - FILES
        others = sorted(name for name in names if not name.endswith(".safetensors"))
        if others:
            raise InputError(f"--out {out} holds other files ({', '.join(others[:3])}). Name a new folder")


def _write_gguf(
    model: GPT3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    path: Path,
    options: ExportOptions,
    context: int,
    rows: int,
    name: str,
) -> list[str]:
    from gpt3.export.comparison import check, comparison_line, difference, logits, probe, tanh_gelu
    from gpt3.export.gguf import read_gguf, write_gguf

    write_gguf(model, tokenizer, path, dtype=options.dtype, context=context, name=name)
    if options.verify == "no":
        return ["not verified"]
    ids = probe(model.config, context, rows)
    ours, theirs = logits(model, ids, rows), logits(read_gguf(path), ids, rows)
    line = f"reloaded as GPT-2: {difference(ours, theirs)}"
    if model.config.activation_function == "gelu":
        with tanh_gelu(model):
            tanh = logits(model, ids, rows)
        line += f"; {float((ours - tanh).abs().max()):.2g} of it from GELU by tanh, llama.cpp's only one"
        ours = tanh
    check(difference(ours, theirs), options.dtype, "the GGUF file")
    return [line, comparison_line(path, model, tokenizer, ids, rows, context)]


def _write_folder(
    model: GPT3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    options: ExportOptions,
    context: int,
    rows: int,
    name: str,
) -> list[str]:
    import torch

    from gpt3.export.comparison import check, difference, logits, probe
    from gpt3.export.stock import reload, save, to_gpt2, to_gpt_neo

    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[options.dtype]
    stock: Any = (to_gpt2 if options.format == "gpt2" else to_gpt_neo)(model, context=context, rows=rows)
    what, kind = f"--format {options.format}", type(stock)
    tokenizer.model_max_length = context
    if options.verify == "no":
        save(stock, tokenizer, folder, dtype)
        return ["not verified"]
    ids = probe(model.config, context, rows)
    ours = logits(model, ids, rows)
    check(difference(ours, logits(stock, ids, rows)), "f32", what)  # before the weights are rounded to fewer bits
    save(stock, tokenizer, folder, dtype)
    found = difference(ours, logits(reload(kind, folder), ids, rows))
    check(found, options.dtype, what)
    return [f"reloaded by {kind.__name__}: {found}"]
