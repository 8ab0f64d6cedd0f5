"""The README.md of a fine-tuned model's folder, and of an adapter's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpt3.finetuning.gathering import SourceReport
from gpt3.finetuning.options import FinetuneOptions
from gpt3.finetuning.samples import Cuts

if TYPE_CHECKING:
    from gpt3.finetuning.tuning import TuningResult


def model_card(
    name: str,
    options: FinetuneOptions,
    base: str,
    reports: Sequence[SourceReport],
    cuts: Cuts,
    result: TuningResult,
    library: str = "transformers",
) -> str:
    """Markdown with Hugging Face's front matter: what it was made from, on what, how well it did, how to talk with it.

    `library` is what loads the folder: transformers, or peft for an adapter.
    """
    method = {"sft": "supervised fine-tuning (TRL)", "dpo": "direct preference optimization (TRL)"}[options.method]
    if options.lora:
        method += f", {'DoRA' if options.dora else 'LoRA'} of rank {options.lora_rank}"
    sources = "\n".join(
        f"| {report.name} | {report.train:,} | {report.held_out:,} | {report.licence} |" for report in reports
    )
    figures = "\n".join(
        f"| held-out {key[4:].replace('_', ' ')} | {result.before[key]:.4f} | {result.after[key]:.4f} |"
        for key in sorted(set(result.before) & set(result.after))
        if key.startswith("val/")
    )
    return f"""---
library_name: {library}
pipeline_tag: text-generation
tags: [gpt3, {options.method}]
---
# {name}

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

What it says of the world is often wrong. The licences of its data hold for it too.
"""
