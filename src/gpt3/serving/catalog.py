"""The models that a server without --model can load while it runs: runs in ./runs, and published ones by their short names.

Only what is listed here is loaded: a client names an id, never a path. Loading takes a thread of its own, one model at a time.
"""

from __future__ import annotations

import contextlib
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt3.device import machine_memory
from gpt3.errors import InputError, RunError, one_line
from gpt3.ladder.memory import BYTES
from gpt3.model_folder import locate
from gpt3.model_folder.known import KNOWN, Known
from gpt3.progress import say
from gpt3.serving.host import load_model
from gpt3.serving.options import ServeOptions
from gpt3.serving.schema import ApiError
from gpt3.serving.worker import ComputeThread

FORMATS = {"fp32": "float32", "auto": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Our names of number formats, and the ladder's."""


@dataclass(frozen=True)
class Entry:
    """A model that can be loaded."""

    id: str
    """As it is served: the run's name, or the hub id."""
    name: str
    """As people call it: the run's name, or the short name."""
    place: Path | str
    """Its folder, or the hub id."""
    files: tuple[Path, ...]
    """Its weights on this machine; none: they have to be downloaded."""
    published: Known | None = None
    """What is known of a published model."""

    @property
    def bytes(self) -> int:
        """Of its weights on this machine; of those to be downloaded about as many, at 32 bits each."""
        if self.published is not None and not self.files:
            return round(4 * self.published.approximate_count)
        with contextlib.suppress(OSError):  # a run that is being removed
            return sum(file.stat().st_size for file in self.files)
        return 0


@dataclass
class Loading:
    """A model on its way."""

    entry: Entry
    state: str = "downloading"
    """downloading, loading or failed."""
    error: str | None = None
    """Why it failed."""


class Catalog:
    """What can be loaded, and what is being loaded. Safe to use from several threads.

    Args:
        compute: serves what has been loaded.
        options: of the server; where it has its models from --model, nothing is listed.
    """

    def __init__(self, compute: ComputeThread, options: ServeOptions) -> None:
        self.compute, self.options = compute, options
        self._lock = threading.Lock()
        self._loading: Loading | None = None  # or the last that failed

    def cards(self) -> list[dict[str, Any]]:
        """What can be loaded, as /v1/models describes it: runs, then published models, those on this machine first."""
        return [self._card(entry) for entry in self._entries()]

    def _card(self, entry: Entry) -> dict[str, Any]:
        loading = self._loading if self._loading is not None and self._loading.entry.id == entry.id else None
        state = "available" if loading is None else loading.state
        return {
            "id": entry.id,
            "object": "model",
            "name": entry.name,
            "kind": "run" if entry.published is None else "published",
            "parameters": entry.published and entry.published.parameters,
            "bytes": entry.bytes,
            "stored": bool(entry.files),
            "state": state,
            "downloaded": downloaded(entry.id) if state == "downloading" else None,
            "error": loading and loading.error,
        }

    def load(self, name: str) -> str:
        """Begin to load the model with this id. Nothing happens where it is loaded, or on its way.

        Returns:
            Its state: loaded, downloading or loading.

        Raises:
            ApiError: 403, this server's models are fixed; 404, no such model is listed; 409, another one is being loaded.
        """
        if not self.options.extensible:
            reason = "it was started with --model" if self.options.model else "other machines may use it without a key"
            raise ApiError(403, f"this server loads no other models: {reason}", code="fixed")
        with self._lock:
            if name in self.compute.workers:
                return "loaded"
            now = self._loading
            if now is not None and now.state != "failed" and now.entry.id != name:
                message = f"'{now.entry.id}' is being loaded; try again when that is done"
                raise ApiError(409, message, code="loading", headers={"Retry-After": "5"})
            if now is None or now.state == "failed":
                entry = next((entry for entry in self._entries() if entry.id == name), None)
                if entry is None:
                    message = (
                        f"The model '{name[:80]}' is not one that can be loaded; /v1/models lists those, as `available`"
                    )
                    raise ApiError(404, message, param="model", code="model_not_found")
                now = self._loading = Loading(entry, "loading" if entry.files else "downloading")
                threading.Thread(target=self._load, args=(now,), name="gpt3-load", daemon=True).start()
        return now.state

    @property
    def loading(self) -> Entry | None:
        """What is being loaded."""
        loading = self._loading
        return None if loading is None or loading.state == "failed" else loading.entry

    def _load(self, loading: Loading) -> None:
        """In a thread that ends with it (see gpt3.device.in_passing_thread); the server does not wait for it when it stops."""
        entry = loading.entry
        say(f"gpt3 serve: loading {entry.id}")
        try:
            place = entry.place
            if isinstance(place, str):
                place = locate.fetch(place)
                loading.state = "loading"
            self.compute.add(entry.id, load_model(place, self.options))
        except Exception as error:
            if not isinstance(error, (InputError, RunError, OSError, MemoryError)):
                traceback.print_exc()
            loading.error = str(error) if isinstance(error, InputError) else one_line(error)
            loading.state = "failed"
            say(f"gpt3 serve: {entry.id} was not loaded: {loading.error}")
        else:
            self._loading = None
            say(f"gpt3 serve: {entry.id} is ready")

    def _entries(self) -> list[Entry]:
        """What can be loaded now and is not served yet."""
        if not self.options.extensible:
            return []
        served = self.compute.workers
        found = [entry for entry in (*runs(), *published(self.options)) if entry.id not in served]
        return sorted(found, key=lambda entry: (isinstance(entry.place, str), not entry.files))


def runs() -> Iterator[Entry]:
    """The runs in ./runs that hold a model, in the order of their names."""
    for run in sorted(locate.RUNS.glob("*")):
        with contextlib.suppress(InputError, OSError):  # it has no model yet, or is being removed
            if (folder := locate.model_folder(run)) is not None:
                locate.check(folder)
                yield Entry(run.name, run.name, folder, tuple(sorted(folder.glob("*.safetensors"))))


def published(options: ServeOptions) -> Iterator[Entry]:
    """The published models whose weights fit this machine's memory, and which are on this machine or can be downloaded."""
    from huggingface_hub import constants

    memory, size = machine_memory(), BYTES[FORMATS.get(options.dtype, "float32")]
    size = size if options.quantize == "none" else BYTES[options.quantize]
    for name, known in KNOWN.items():
        files = cached(known)
        if (files or not constants.HF_HUB_OFFLINE) and (memory is None or known.approximate_count * size < memory):
            yield Entry(known.hub_id, name, known.hub_id, files, known)


def cached(known: Known) -> tuple[Path, ...]:
    """A published model's files of weights, if all of them are on this machine."""
    from huggingface_hub import try_to_load_from_cache

    def here(file: str) -> Path | None:
        found = try_to_load_from_cache(known.hub_id, file)
        return Path(found) if isinstance(found, str) else None

    whole, index = map(here, locate.WEIGHTS)
    folder = whole or index
    if folder is None or here(locate.CONFIG) is None:
        return ()
    try:
        names = locate.weight_files(folder.parent)[0]
    except InputError:  # some are missing
        return ()
    return tuple(names)


def downloaded(hub_id: str) -> int:
    """Bytes of a model from the hub that are on this machine so far."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=hub_id, repo_type="model") / "blobs"
    total = 0
    with contextlib.suppress(OSError):
        for file in folder.iterdir():
            with contextlib.suppress(OSError):  # renamed since
                total += file.stat().st_size
    return total
