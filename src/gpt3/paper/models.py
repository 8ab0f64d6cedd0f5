"""The models that experiments ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gpt3.errors import InputError
from gpt3.model_folder.locate import RUNS, STARTER, check, locate, name_of, newest_run
from gpt3.paper.experiment import Measured, Model


def models(named: Sequence[str], measured: Mapping[str, Measured]) -> list[Model]:
    """Those named and those that experiment 3.1 trained, smallest first; without either, the newest run or the starter model.

    Raises:
        InputError: a name without a model.
    """
    found = {str(place): described(place) for place in map(locate, named)}
    for row in measured.get("3.1", {}).get("models", []):
        found.setdefault(row["place"], described(check(Path(row["place"])), row["name"]))
    if not found:
        newest = newest_run(RUNS)
        place = STARTER if newest is None else check(newest)
        found[str(place)] = described(place, "starter" if newest is None else None)
    ordered = sorted(found.values(), key=lambda model: model.layer_parameters)
    if len({model.name for model in ordered}) < len(ordered):
        raise InputError("two --model have the same name. Rename one of the folders, or name one of them.")
    return ordered


def described(place: Path | str, name: str | None = None) -> Model:
    """A model with its size and age, which are read from its folder or the hub."""
    from gpt3.model_folder.convert import read_checkpoint
    from gpt3.model_folder.load import open_checkpoint

    checkpoint = read_checkpoint(place, allow_ours=True) if isinstance(place, Path) else open_checkpoint(place)
    config = checkpoint.config
    total = sum(weight.numel() for weight in checkpoint.empty_model().parameters())
    layers = 4 * config.num_hidden_layers * config.hidden_size * (config.num_attention_heads * config.head_dim)
    layers += 8 * config.num_hidden_layers * config.hidden_size**2
    written = max(file.stat().st_mtime_ns for file in checkpoint.files)
    return Model(name or name_of(place), place, total, layers, written)
