"""Where a run's initial weights come from (``--init-from``): in ``origin.json`` of the run folder and of the final model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt3.durable import write_text
from gpt3.model_folder.locate import LICENCES, ORIGIN, read_json

LICENCE_FILES = "licence_files"
"""In origin.json of the run folder: the licences' texts by file name."""
NO_LICENCE = """The weights have none yet: choose one before you publish them, as a line `license: ...` at the top of this
file. It must agree with the licences of the training data above."""


def write_origin(run: Path, origin: Mapping[str, Any]) -> None:
    """Write what is known of the initial weights (`gpt3.training.init_from.Initial.origin`) into the run folder."""
    write_text(run / ORIGIN, json.dumps(origin, indent=1, ensure_ascii=False) + "\n")


def read_origin(run: Path) -> dict[str, Any] | None:
    """What a run or model folder knows of its initial weights; None where they were random."""
    return read_json(run / ORIGIN) if (run / ORIGIN).is_file() else None


def copy_origin(run: Path, model: Path) -> None:
    """Write a run's origin, if it has one, and the licences of its initial weights into its final model folder."""
    origin = read_origin(run)
    if origin is None:
        return
    kept = {key: value for key, value in origin.items() if key != LICENCE_FILES} | {"run": run.name}
    write_text(model / ORIGIN, json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    for name, text in origin.get(LICENCE_FILES, {}).items():
        if name in LICENCES:
            write_text(model / name, text)


def card_parts(origin: Mapping[str, Any] | None) -> dict[str, str]:
    """What a model card says of the initial weights: its ``front_matter``, ``how``, a row ``origin``, and ``licence``."""
    if origin is None:
        return {"front_matter": "", "how": "trained", "origin": "", "licence": NO_LICENCE}
    source, stated = origin["source"], origin.get("licence") or []
    head = [*([f"base_model: {origin['hub_id']}"] if origin.get("hub_id") else []), *stated]
    derived = "These weights are derived from them: keep to it, and to the licences of the training data above."
    if stated:
        texts = ", ".join(f"`{name}`" for name in origin.get(LICENCE_FILES, {}))
        where = f", and its text is in {texts}" if texts else ""
        licence = f"The licence of the initial weights ({source}) is named at the top of this file{where}. {derived}"
    else:
        licence = (
            f"The initial weights ({source}) name no licence. Find out theirs before you publish these, and write it as a line "
            f"`license: ...` at the top of this file. {derived}"
        )
    return {
        "front_matter": "".join(f"{line}\n" for line in head),
        "how": f"trained from the weights of {source} ({origin['family']})",
        "origin": f"| initial weights | {source} ({origin['family']}); `{ORIGIN}` has the sha256 of their files |\n",
        "licence": licence,
    }
