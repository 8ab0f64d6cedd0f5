"""Made documents and other text, mixed for a training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gpt3.durable import replacing, write_text


def write_mixture(
    folder: Path, name: str, texts: Callable[[], Iterator[str]], data: Sequence[str], share: float
) -> Path:
    """``NAME.jsonl`` with these documents, unless it exists, and ``mixture.yaml``, which mixes them with other text.

    Args:
        texts: makes the documents.
        data: the other text, as `gpt3 train --data` takes it.
        share: of the documents among all tokens of the mixture.

    Returns:
        The mixture's path.
    """
    path, mixture = folder / f"{name}.jsonl", folder / "mixture.yaml"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in texts())
    sources = [
        {"name": "text", "data": list(data), "weight": round(1 - share, 6)},
        {"name": name, "data": str(path), "weight": share},
    ]
    write_text(mixture, json.dumps(sources, indent=1) + "\n")  # JSON is YAML
    return mixture
