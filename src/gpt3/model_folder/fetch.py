"""A model's files from the Hugging Face hub, one by one: those that are read here, and no others."""

from __future__ import annotations

import logging
from pathlib import Path

from gpt3.errors import InputError, one_line
from gpt3.model_folder.locate import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CARD,
    CONFIG,
    GENERATION,
    PICKLED,
    WEIGHTS,
    is_file_name,
    read_json,
)
from gpt3.model_folder.tokenizer import ALL_FILES
from gpt3.progress import say

LICENCES = ("LICENSE", "LICENSE.md", "LICENSE.txt")


def fetch(name: str, *, allow_pickle: bool = False) -> Path:
    """The local folder with the files of the hub's model or adapter `name` (owner/name), downloaded unless they are there.

    Args:
        allow_pickle: take .bin files where there are no safetensors.

    Raises:
        InputError: the hub has no such model, or cannot be reached.
    """
    from huggingface_hub import constants

    try:
        folder = _file(name, CONFIG, reached=True) or _file(name, ADAPTER_CONFIG)
        if folder is None:
            raise OSError(f"it has neither {CONFIG} nor {ADAPTER_CONFIG}")
        say(f"{name}: from {constants.ENDPOINT}")
        if (folder / CONFIG).is_file():
            _weights(name, folder, allow_pickle)
        else:
            _file(name, ADAPTER_WEIGHTS)
        for each in (*ALL_FILES, GENERATION, CARD, *LICENCES):
            _file(name, each)
    except (OSError, ValueError) as error:  # the hub library's: unknown id, no network, no permission, a bad name
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(
            f"{name}: no such folder or run, and {constants.ENDPOINT} did not give it ({reason}). "
            "Download it where there is a network and give its folder"
        ) from error
    return folder


def _weights(name: str, folder: Path, allow_pickle: bool) -> None:
    for whole, index in (WEIGHTS, PICKLED) if allow_pickle else (WEIGHTS,):
        if _file(name, whole) is not None:
            return
        if _file(name, index) is not None:
            placed = read_json(folder / index).get("weight_map")
            for file in sorted(filter(is_file_name, set(placed.values()))) if isinstance(placed, dict) else ():
                _file(name, file)
            return


def _file(name: str, file: str, *, reached: bool = False) -> Path | None:
    """The local folder that a file of the repository is in; None where the repository has no such file.

    Raises:
        OSError: with `reached`, if the hub cannot be reached and the file is not here: asking again would only wait again.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    library = logging.getLogger("huggingface_hub")  # after the imports, which set its level
    level = library.level
    library.setLevel(logging.ERROR)  # it reports each of its attempts in several lines
    quiet = not file.endswith((".safetensors", ".bin")) and not are_progress_bars_disabled()
    if quiet:
        disable_progress_bars()
    try:
        return Path(hf_hub_download(name, file)).parent
    except EntryNotFoundError as error:
        if reached and isinstance(error, LocalEntryNotFoundError):
            raise
        return None
    finally:
        library.setLevel(level)
        if quiet:
            enable_progress_bars()
