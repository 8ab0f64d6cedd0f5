"""``gpt3 import``: another family's checkpoint, or an adapter, converted tensor by tensor into a gpt3 model folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gpt3.durable import check_room, replacing
from gpt3.errors import InputError
from gpt3.options import Options, option


@dataclass(frozen=True)
class ImportOptions(Options):
    """Convert a checkpoint of GPT-2, GPT-Neo, OPT, … (docs/import.md lists the families), or an adapter and its base, into a
    gpt3 model folder."""

    source: str
    """A folder, a run or a hub id (owner/name), whose files are downloaded; a PEFT adapter is merged into its base."""
    out: str
    """The model folder to write; it must be new or empty."""
    allow_pickle: bool = option(False, common=True)
    """Read pytorch_model.bin if there is no safetensors file; only tensors are read, code in it is refused."""


def run(options: ImportOptions) -> Path:
    """Check, convert, write the folder whole or not at all, and print what it is.

    Raises:
        InputError: an `out` that is not empty; see `gpt3.model_folder.load.open_checkpoint`.
    """
    out = Path(options.out).expanduser()
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file. Name a new folder")
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"--out {out} is not empty. Name a new folder")

    from gpt3.model_folder.info import tokenizer_line
    from gpt3.model_folder.load import open_checkpoint
    from gpt3.model_folder.write import write_checkpoint

    checkpoint = open_checkpoint(options.source, allow_pickle=options.allow_pickle)
    config, family = checkpoint.config, checkpoint.conversion.family
    parameters = checkpoint.empty_model().num_parameters()
    check_room(out, parameters * checkpoint.dtype.itemsize, purpose="the model")
    with replacing(out) as temporary:
        # no path of this machine in a folder that may travel
        is_folder = Path(options.source).expanduser().is_dir()
        write_checkpoint(checkpoint, temporary, checkpoint.folder.resolve().name if is_folder else options.source)
    number_format = str(checkpoint.dtype).removeprefix("torch.")
    print(
        f"{family}: {config.num_hidden_layers} layers x {config.hidden_size}, {parameters:,} parameters in {number_format}"
    )
    print(f"tokenizer: {tokenizer_line(checkpoint.tokenizer)}")
    for note in checkpoint.conversion.notes:
        print(f"note: {note}")
    print(f"model saved in {out}")
    return out
