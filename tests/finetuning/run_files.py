"""What a fine-tuning run left in its folder."""

from __future__ import annotations

from pathlib import Path

import torch

from gpt3.report.run_folder import read_metrics


def weights(folder: Path, name: str = "model.safetensors") -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / name)


def records(folder: Path, key: str) -> list[float]:
    return [record[key] for record in read_metrics(folder / "metrics.jsonl") if key in record]
