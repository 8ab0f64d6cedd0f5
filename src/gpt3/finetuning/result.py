"""What a fine-tuning run came to: its result, and the README.md of the folder with the model or the adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt3.finetuning.gathering import SourceReport
from gpt3.finetuning.options import FinetuneOptions
from gpt3.finetuning.samples import Cuts


@dataclass(frozen=True)
class FinetuneResult:
    """A run, finished or interrupted."""

    folder: Path
    """The run folder, which is also a model to load once the run is finished."""
    steps: int
    seconds: float
    before: dict[str, float]
    """The evaluation of the model as it was, by the names in metrics.jsonl, such as ``val/loss``."""
    after: dict[str, float]
    """The evaluation of the model that was kept."""
    finished: bool = True
    """False: interrupted after a checkpoint; the same options resume it."""
    exit_code: int = 0
    """130 or 143 after a signal."""

    def held_out(self) -> list[tuple[str, float, float]]:
        """What was measured on held-out data: name, before, after."""
        names = sorted(name for name in self.before if name.startswith("val/") and name in self.after)
        return [(name[4:].replace("_", " "), self.before[name], self.after[name]) for name in names]


def model_card(
    result: FinetuneResult,
    options: FinetuneOptions,
    base: str,
    reports: Sequence[SourceReport],
    cuts: Cuts,
    library: str = "transformers",
) -> str:
    """Markdown with Hugging Face's front matter: what it was made from, on what, how well it did, how to talk with it.

    `library` is what loads the folder: transformers, or peft for an adapter.
    """
    method = {"sft": "supervised fine-tuning (TRL)", "dpo": "direct preference optimization (TRL)"}[options.method]
    if options.lora:
        method += f", {'DoRA' if options.dora else 'LoRA'} of rank {options.lora_rank}"
    sources = "\n".join(f"| {one.name} | {one.train:,} | {one.held_out:,} | {one.licence} |" for one in reports)
    figures = "\n".join(f"| held-out {name} | {old:.4f} | {new:.4f} |" for name, old, new in result.held_out())
    return f"""---
library_name: {library}
pipeline_tag: text-generation
tags: [gpt3, {options.method}]
---
# {result.folder.name}

Made from `{base}` by {method}, with the gpt3 package: {result.steps:,} steps of {options.batch}, {cuts.samples:,} samples of
{cuts.tokens:,} tokens, {cuts.trained_tokens:,} of them trained, seed {options.seed}, {result.seconds / 60:.1f} minutes.

| data | trained on | held out | licence |
|---|---|---|---|
{sources}

| | before | after |
|---|---|---|
{figures}

## Talk with it

```sh
gpt3 chat --model PATH_OF_THIS_FOLDER
```

What it says of the world is often wrong. The licences of its data apply to it too.
"""
