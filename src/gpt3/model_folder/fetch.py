"""A model's files from the Hugging Face hub, one by one: those that are read here, and no others."""

from __future__ import annotations

import logging
from pathlib import Path

from gpt3.errors import InputError, one_line
from gpt3.model_folder.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, is_adapter
from gpt3.model_folder.locate import HUB_ID, read_json
from gpt3.model_folder.tokenizer import ALL_FILES
from gpt3.model_folder.weights import PICKLED, PICKLED_INDEX, SAFE, SAFE_INDEX, is_file_name
from gpt3.progress import say

CONFIG, GENERATION, CARD = "config.json", "generation_config.json", "README.md"
LICENCES = ("LICENSE", "LICENSE.md", "LICENSE.txt")


def local_folder(source: str | Path, *, allow_pickle: bool = False) -> Path:
    """The folder `source`, or, of a hub id (owner/name), the folder that its files were downloaded to.

    Raises:
        InputError: no such folder and no hub id, no config.json, or a hub that did not give it.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        if not (path / CONFIG).is_file() and not is_adapter(path):
            held = sorted(each.name for each in path.iterdir())
            what = f"it holds {', '.join(held[:3])}{', …' if len(held) > 3 else ''}" if held else "it is empty"
            raise InputError(f"{source} is no model folder: no {CONFIG} in it ({what}); give the folder that has one")
        return path
    if path.is_file():
        raise InputError(f"{source} is a file; give the folder it is in: {path.parent}")
    if not HUB_ID.fullmatch(str(source)) or path.parent.is_dir():
        raise InputError(f"{source}: no such folder, and no hub id (owner/name); give a model folder")
    return _download(str(source), allow_pickle=allow_pickle)


def _download(name: str, *, allow_pickle: bool) -> Path:
    from huggingface_hub import constants

    say(f"gpt3: asking {constants.ENDPOINT} for {name}")
    try:
        if (adapter := adapter_from_hub(name)) is not None:
            return adapter
        folder = _file(name, CONFIG, needed=True)
        assert folder is not None  # or an exception
        kinds = [(SAFE, SAFE_INDEX)] + ([(PICKLED, PICKLED_INDEX)] if allow_pickle else [])
        for whole, index in kinds:
            if _file(name, whole) is not None:
                break
            if _file(name, index) is not None:
                shards = read_json(folder / index).get("weight_map")
                for shard in sorted(set(shards.values())) if isinstance(shards, dict) else []:
                    if is_file_name(shard):  # `Weights` says so of others
                        _file(name, shard, needed=True)
                break
        for each in (*ALL_FILES, GENERATION, CARD, *LICENCES):
            _file(name, each)
    except (
        OSError,
        ValueError,
    ) as error:  # what the hub's library raises: unknown id, no network, no permission, a bad name
        raise InputError(
            f"{name}: no such folder, and {constants.ENDPOINT} did not give it ({type(error).__name__}: {one_line(error)}); "
            "download it where there is a network and give its folder"
        ) from error
    return folder


def adapter_from_hub(name: str) -> Path | None:
    """The local folder of a hub's adapter, downloaded; None where `name` is a whole model.

    Raises:
        OSError, ValueError: what the hub's library raises where it does not get to either.
    """
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        _file(name, CONFIG, needed=True)
    except LocalEntryNotFoundError:  # no network: another question would only wait again
        raise
    except EntryNotFoundError:
        folder = _file(name, ADAPTER_CONFIG)
        if folder is None:
            raise
        for each in (ADAPTER_WEIGHTS, *ALL_FILES, GENERATION, CARD, *LICENCES):
            _file(name, each)
        return folder
    return None


def _file(name: str, file: str, *, needed: bool = False) -> Path | None:
    """The local folder that a file of the repository is in; None where the repository has no such file."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    small = not file.endswith((".safetensors", ".bin"))
    library = logging.getLogger("huggingface_hub")  # after the imports, which set its level
    level = library.level
    library.setLevel(logging.ERROR)  # it tells each of its attempts in several lines
    if small:
        disable_progress_bars()
    try:
        return Path(hf_hub_download(name, file)).parent
    except EntryNotFoundError:
        if needed:
            raise
        return None
    finally:
        library.setLevel(level)
        if small:
            enable_progress_bars()
