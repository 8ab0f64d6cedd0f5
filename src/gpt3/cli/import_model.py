"""``gpt3 import``: another family's checkpoint, converted tensor by tensor into a model folder of ours."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from gpt3.cli.import_options import ImportOptions
from gpt3.durable import check_room, replacing, sha256_of
from gpt3.errors import InputError
from gpt3.version import __version__

ORIGIN = "origin.json"
"""In an imported folder: what it was made from."""


def run(options: ImportOptions) -> Path:
    """Check, convert, write the folder whole or not at all, say what came out.

    Raises:
        InputError: an `out` that holds something; see `gpt3.model_folder.convert.open_checkpoint`.
    """
    out = Path(options.out).expanduser()
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; name a new folder")
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"--out {out} is not empty; name a new folder")

    from gpt3.model_folder.card import card
    from gpt3.model_folder.convert import open_checkpoint
    from gpt3.model_folder.fetch import LICENCES
    from gpt3.model_folder.tokenizer import tokenizer_line
    from gpt3.model_folder.write import model_folder_files, write_weights

    checkpoint = open_checkpoint(options.source, allow_pickle=options.allow_pickle)
    model = checkpoint.empty_model()
    need = model.num_parameters() * checkpoint.dtype.itemsize
    check_room(out, need, purpose="the model")
    folder, place = checkpoint.folder.resolve(), Path(checkpoint.place).expanduser()
    origin = {
        "family": checkpoint.blueprint.family,
        "source": folder.name
        if place.is_dir()
        else checkpoint.place,  # no path of this machine in a folder that may travel
        "sha256": {file.name: sha256_of(file) for file in checkpoint.files},
        "notes": checkpoint.notes,
        "written_by": f"gpt3 {__version__}",
    }
    with replacing(out) as temporary:
        temporary.mkdir()
        for name, content in model_folder_files(model, checkpoint.tokenizer).items():
            (temporary / name).write_bytes(content)
        write_weights(temporary, checkpoint.tensors())
        (temporary / ORIGIN).write_text(json.dumps(origin, indent=1) + "\n", encoding="utf-8")
        (temporary / "README.md").write_text(card(checkpoint, str(origin["source"])), encoding="utf-8")
        for name in LICENCES:
            if (checkpoint.folder / name).is_file():
                shutil.copyfile(checkpoint.folder / name, temporary / name)
    config = checkpoint.config
    print(
        f"{checkpoint.blueprint.family}: {config.num_hidden_layers} layers x {config.hidden_size}, "
        f"{model.num_parameters():,} parameters in {str(checkpoint.dtype).removeprefix('torch.')}"
    )
    print(f"tokenizer: {tokenizer_line(checkpoint.tokenizer)}")
    for note in checkpoint.blueprint.notes:
        print(f"note: {note}")
    print(f"model saved in {out}")
    return out
