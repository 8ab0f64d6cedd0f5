"""``gpt3 info``: what a model folder is."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gpt3.model_folder import known
from gpt3.model_folder.locate import fetch, find
from gpt3.options import Options, option


@dataclass(frozen=True)
class InfoOptions(Options):
    """Describe a model folder: family, shape, parameters by part, tokenizer, number format, origin, files and their sha256."""

    path: str | None = option(None, common=True)
    """A model folder, an adapter, a run or its name, a hub id, a short name, or a GGUF file. Default: the newest run."""
    json: bool = option(False, common=True)
    """Print JSON instead of text."""
    known: bool = option(False, common=True)
    """List the short names of published models, such as gpt2, with hub id, size and licence."""

    def errors(self) -> Iterable[str]:
        """A model and the list at once."""
        if self.known and self.path is not None:
            yield f"--known lists the short names; leave out {self.path}"


def run(options: InfoOptions) -> None:
    """Print what the folder is, or the known names, as text or JSON.

    Raises:
        InputError: no model folder is there.
    """
    if options.known:
        print(json.dumps(known.rows(), indent=2) if options.json else known.table())
        return
    from gpt3.model_folder.info import describe, text

    path = Path(options.path or "").expanduser()
    place = path if path.suffix == ".gguf" and path.is_file() else find(options.path)
    found = describe(place if isinstance(place, Path) else fetch(place))
    print(json.dumps(found, indent=2, ensure_ascii=False) if options.json else text(found))
