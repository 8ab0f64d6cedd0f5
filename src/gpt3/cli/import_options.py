"""Options of ``gpt3 import`` and ``gpt3 info``. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ImportOptions:
    """Write a checkpoint of GPT3-dev, GPT-2, Cerebras-GPT, GPT-Neo or OPT, or an adapter and its base, as a gpt3 model folder."""

    source: str
    """A folder, or a hub id (owner/name), whose files are downloaded; of a PEFT adapter, merged into its base."""
    out: str
    """The model folder to write; it must be new or empty."""
    allow_pickle: bool = False
    """Read pytorch_model.bin where there is no safetensors file: tensors only, code in it is refused."""


@dataclass(frozen=True)
class InfoOptions:
    """Say what a model folder is: family, shape, parameters by part, tokenizer, number format, files and their sha256, origin."""

    path: str | None = None
    """A model folder of any family, a PEFT adapter's, a run or its name, a hub id, a GGUF file. Default: the newest run."""
    json: bool = False
    """Print JSON in place of text."""
