"""What a GGUF file says of itself, for `gpt3 info`: its header is read, its weights are not."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from gpt3.errors import InputError, one_line, require

KEYS = {
    "layers": "block_count",
    "width": "embedding_length",
    "heads": "attention.head_count",
    "mlp_width": "feed_forward_length",
    "context": "context_length",
}
"""Our names of the shape's parts, and GGUF's below the architecture's name."""


def describe_gguf(path: Path) -> dict[str, Any]:
    """Architecture, shape, parameters, number formats and tokenizer of a GGUF file.

    Raises:
        InputError: the gguf package is not installed, or the file is damaged.
    """
    gguf = require("gguf", extra="export", purpose="reading a GGUF file")
    try:
        reader = gguf.GGUFReader(path)
        fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}

        def value(name: str) -> Any:
            return fields[name].contents() if name in fields else None

        architecture = value("general.architecture")
        counts = [math.prod(map(int, tensor.shape)) for tensor in reader.tensors]
        tokens = fields.get("tokenizer.ggml.tokens")
        found: dict[str, Any] = {
            "family": f"GGUF, architecture {architecture}",
            "name": value("general.name"),
            "shape": {ours: value(f"{architecture}.{theirs}") for ours, theirs in KEYS.items()},
            "parameters": {"total": sum(counts)},
            "dtypes": dict(Counter(tensor.tensor_type.name for tensor in reader.tensors)),
            "tokenizer": None
            if tokens is None
            else {
                "summary": f"{value('tokenizer.ggml.model')} of {len(tokens.data):,} ids",
                "ids": len(tokens.data),
                "chat_template": value("tokenizer.chat_template") is not None,
            },
        }
    except (ValueError, KeyError, IndexError, OSError, OverflowError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no whole GGUF file ({one_line(error)}); copy it again") from error
    return found
