"""``gpt3 import`` and ``gpt3 export``: other programs' models to a gpt3 model folder, and back. Written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gpt3 import __version__
from gpt3.durable import check_room, replacing
from gpt3.errors import InputError
from gpt3.model_folder.locate import MODEL_FOLDER, locate, name_of
from gpt3.options import Options, option
from gpt3.tables import counted
from gpt3.work_folder import check_file, check_out

BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 1.0625, "q4_0": 0.75}
"""Bytes per weight in each number format. q4_0 counts a third of the weights as q8_0: the embedding keeps that format."""
EXPORTED = "gpt3_export.json"
"""Written last into an exported folder: what tells it from a model of the user's."""
FILES = [
    EXPORTED, "README.md", "config.json", "generation_config.json", "model.safetensors.index.json", "*.safetensors",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
]  # fmt: skip
"""Names of what an earlier export to a folder wrote."""


@dataclass(frozen=True)
class ImportOptions(Options):
    """Convert a checkpoint of GPT-2, GPT-Neo, OPT, … (docs/import.md lists the families), or an adapter and its base, into a
    gpt3 model folder."""

    source: str
    """A folder, a run or a hub id (owner/name), whose files are downloaded; a PEFT adapter is merged into its base."""
    out: str
    """The model folder to write; it must be new or empty, unless --overwrite is given."""
    allow_pickle: bool = option(False, common=True)
    """Read pytorch_model.bin if there is no safetensors file; only tensors are read, code in it is refused."""
    overwrite: bool = option(False, common=True)
    """Replace the model at --out."""


def import_model(options: ImportOptions) -> Path:
    """Check, convert, write the folder whole or not at all, and print what it is.

    Raises:
        InputError: an `out` that is not empty; see `gpt3.model_folder.load.open_checkpoint`.
    """
    out, source = Path(options.out), Path(options.source).expanduser()
    _check_not_within(out, source)
    check_out(out, overwrite=options.overwrite, kind=MODEL_FOLDER)

    from gpt3.model_folder.info import tokenizer_line
    from gpt3.model_folder.load import open_checkpoint
    from gpt3.model_folder.write import write_checkpoint

    checkpoint = open_checkpoint(options.source, allow_pickle=options.allow_pickle)
    config, family = checkpoint.config, checkpoint.conversion.family
    parameters = checkpoint.empty_model().num_parameters()
    check_room(out, parameters * checkpoint.dtype.itemsize, purpose="the model")
    with replacing(out) as temporary:
        # no path of this machine in a folder that may travel
        write_checkpoint(checkpoint, temporary, checkpoint.folder.resolve().name if source.is_dir() else options.source)
    shape = f"{counted(config.num_hidden_layers, 'layer')} x {config.hidden_size}"
    print(f"{family}: {shape}, {parameters:,} parameters in {str(checkpoint.dtype).removeprefix('torch.')}")
    print(f"tokenizer: {tokenizer_line(checkpoint.tokenizer)}")
    for note in checkpoint.conversion.notes:
        print(f"note: {note}")
    print(f"model saved in {out}")
    return out


def _check_not_within(out: Path, model: Path) -> None:
    """Refuse an `out` that is the folder `model` or one around it."""
    if out.resolve() in (model.resolve(), *model.resolve().parents):
        raise InputError(f"--out {out} is the model itself or a folder around it. Name another")


@dataclass(frozen=True)
class ExportOptions(Options):
    """Write a model in the format other programs run: GGUF for llama.cpp and LM Studio, stock GPT-2 or GPT-Neo for the rest."""

    format: Literal["gguf", "gpt2", "gpt-neo"]
    """gguf: one file for llama.cpp; gpt2, gpt-neo: a folder for transformers' own classes (docs/export.md)."""
    out: str
    """The file (gguf) or folder (gpt2, gpt-neo) to write; an earlier export there is replaced."""
    model: str | None = option(None, common=True)
    """A model folder, a run folder, a run's name in ./runs, or a hub id. Default: the newest run in ./runs."""
    dtype: Literal["f32", "f16", "bf16", "q8_0", "q4_0"] = option("f32", common=True)
    """Number format of the weights; for gguf also q8_0 and q4_0: 8 or 4 bits, a scale for every 32 values."""
    context: int | None = option(None, least=1, common=True)
    """Longest context in tokens. Default: the model's; for gguf with banded layers, at most their window."""
    verify: Literal["yes", "no"] = option("yes", common=True)
    """Reload what was written in the target's own class and compare logits before the export counts as done."""
    overwrite: bool = option(False, common=True)
    """Replace a file or a model at --out that is no earlier export."""

    def errors(self) -> Iterator[str]:
        """Options that do not go together."""
        if self.dtype in ("q8_0", "q4_0") and self.format != "gguf":
            yield f"--dtype {self.dtype} is not for --format {self.format}; use one of f32, f16, bf16"
        if self.format == "gguf" and not self.out.endswith(".gguf"):
            yield f"--out {self.out} must end in .gguf"


def export(options: ExportOptions) -> Path:
    """Export and print what was written, how long its context is, how far its logits are from the model's.

    Raises:
        InputError: no such model, or one that the format cannot hold; an `out` that holds something else.
        RunError: what was written differs from the model by more than rounding.
    """
    from gpt3.export.stock import fit
    from gpt3.model import GPT3ForCausalLM
    from gpt3.model_folder.load import load_transformers

    out, place = Path(options.out), locate(options.model)
    if isinstance(place, Path):
        _check_not_within(out, place)
    if options.format == "gguf":
        from gpt3.export.gguf import MARK, compare_gguf, write_gguf  # or an error that says how to install its package

        check_file("--out", out, MARK.encode(), overwrite=options.overwrite)
    else:
        own = FILES if (out / EXPORTED).is_file() else ()
        check_out(out, own, overwrite=options.overwrite, kind=MODEL_FOLDER)
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
        if options.format == "gguf":
            write_gguf(model, tokenizer, temporary, dtype=options.dtype, context=context, name=name_of(place))
            checked = options.verify == "yes"
            lines = compare_gguf(model, tokenizer, temporary, options.dtype, context, rows) if checked else []
        else:
            lines = _write_folder(model, tokenizer, temporary, options, context, rows)
            origin = {"format": options.format, "written_by": f"gpt3 {__version__}"}
            (temporary / EXPORTED).write_text(json.dumps(origin) + "\n", encoding="utf-8")
    size = sum(file.stat().st_size for file in ([out] if out.is_file() else out.iterdir()))
    print(f"{place} -> {out}: {options.format}, {options.dtype}, {size / 1e6:,.1f} MB")
    if context == positions:
        print(f"context: {context:,} tokens, the model's")
    elif options.context is not None:
        print(f"context: {context:,} of the model's {positions:,} tokens")
    else:
        why = f"llama.cpp's gpt2 has no banded layers and would be wrong beyond {context:,}"
        print(f"context: {context:,} of the model's {positions:,} tokens, its window: {why}")
    print("\n".join(lines or ["not verified"]))
    return out


def _write_folder(
    model: Any, tokenizer: Any, folder: Path, options: ExportOptions, context: int, rows: int
) -> list[str]:
    """Write a model of transformers' own class; returns how far it is from the model, if that is to be verified.

    Raises:
        RunError: too far.
    """
    import torch

    from gpt3.export.comparison import check, difference, logits, probe
    from gpt3.export.stock import reload, save, to_gpt2, to_gpt_neo

    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[options.dtype]
    stock: Any = (to_gpt2 if options.format == "gpt2" else to_gpt_neo)(model, context=context, rows=rows)
    what, kind = f"--format {options.format}", type(stock)
    tokenizer.model_max_length = context
    if options.verify == "no":
        save(stock, tokenizer, folder, dtype)
        return []
    ids = probe(model.config, context, rows)
    ours = logits(model, ids, rows)
    check(difference(ours, logits(stock, ids, rows)), "f32", what)  # before the weights are rounded to fewer bits
    save(stock, tokenizer, folder, dtype)
    found = difference(ours, logits(reload(kind, folder), ids, rows))
    check(found, options.dtype, what)
    return [f"reloaded by {kind.__name__}: {found}"]
