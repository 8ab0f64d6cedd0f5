"""The run that a model comes from: what it read and what it took, where its folder has that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpt3.paper.experiment import Model
from gpt3.report.run_folder import FINAL_MODEL, METRICS, number, read_energy, read_metrics


def run_of(model: Model) -> Path | None:
    """The folder of the finished run whose model this is; None for models from elsewhere, and for checkpoints."""
    place = Path(model.place)
    run = place.parent if place.name == FINAL_MODEL else place
    return run if (run / METRICS).is_file() and (run / FINAL_MODEL).is_dir() else None


def origin(model: Model) -> dict[str, Any]:
    """A model's size, and of its run: tokens trained on, and joules by source; None and nothing where there is no such run."""
    run = run_of(model)
    seen = [] if run is None else [number(record.get("tokens")) for record in read_metrics(run / METRICS)]
    tokens = max((value for value in seen if value is not None), default=None)
    return {
        "name": model.name, "parameters": model.parameters, "layer_parameters": model.layer_parameters, "tokens": tokens,
        "joules": {} if run is None else dict(read_energy(run).joules),
    }  # fmt: skip
