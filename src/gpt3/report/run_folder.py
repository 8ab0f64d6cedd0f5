"""What a run folder says, read into one value. Only metrics.jsonl must be there; a run in progress is as good as any."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from gpt3.energy import Energy
from gpt3.errors import InputError

METRICS, SAMPLES, THREADS = "metrics.jsonl", "samples.jsonl", "threads.jsonl"
CONFIG, ENVIRONMENT, DATA, PREDICTION = "config.yaml", "environment.json", "data.json", "prediction.json"
ENERGY = "energy.json"
FINAL_MODEL = "model"


@dataclass(frozen=True)
class Run:
    """One run, as far as its folder tells."""

    name: str
    """The folder's name; see `unique_names`."""
    folder: Path
    """Where it is."""
    records: list[dict[str, Any]]
    """metrics.jsonl in the order of steps; each has a whole number ``step``."""
    samples: list[dict[str, Any]] = field(default_factory=list)
    """samples.jsonl in the order of steps: step, prompt, text."""
    config: dict[str, str] = field(default_factory=dict)
    """config.yaml as text."""
    environment: dict[str, str] = field(default_factory=dict)
    """environment.json as text, inner keys joined by a dot."""
    sources: list[dict[str, Any]] = field(default_factory=list)
    """data.json's sources: name, and numbers or None for tokens, weight, share, epochs, documents, and asked, the weight as a
    share of all weights."""
    energy: Energy = field(default_factory=Energy)
    """What its sessions took, without sources where it was not measured."""
    finished: bool = False
    """Whether the final model is there."""
    written: str = ""
    """When the last record came, in UTC."""
    outlook: list[str] = field(default_factory=list)
    """What was predicted and reached, and what would have helped most, a line each."""
    notes: list[str] = field(default_factory=list)
    """What could not be read and was left out, a line each."""

    @property
    def steps(self) -> int | None:
        """The steps this run is to have, where its configuration says so."""
        text = self.config.get("steps", "")
        return int(text) if text.isdigit() else None

    def numbers(self, key: str) -> list[float]:
        """The finite values of a key of the records."""
        return [value for record in self.records if (value := number(record.get(key))) is not None]


def read_run(folder: Path) -> Run:
    """Read a run folder. A damaged file other than metrics.jsonl is left out and named in `notes`.

    Raises:
        InputError: no run folder, or unreadable metrics.
    """
    path = folder / METRICS
    if not path.is_file():
        raise InputError(f"{folder} is not a run folder: it has no {METRICS}; give a folder made by gpt3 train")
    records = sorted(read_metrics(path), key=lambda record: record["step"])
    notes: list[str] = []
    config, environment, data, foreseen = (
        _read(folder / name, notes) for name in (CONFIG, ENVIRONMENT, DATA, PREDICTION)
    )
    return Run(
        name=folder.resolve().name,
        folder=folder,
        records=records,
        config=_flat(config),
        environment=_flat(environment),
        samples=_samples(folder / SAMPLES, notes),
        sources=_sources(data),
        energy=_energy(_read(folder / ENERGY, notes)),
        outlook=[str(line) for line in foreseen.get("lines") or ()],
        finished=(folder / FINAL_MODEL).is_dir(),
        written=f"{datetime.fromtimestamp(path.stat().st_mtime, timezone.utc):%Y-%m-%d %H:%M} UTC",
        notes=notes,
    )


def read_metrics(path: Path, last_step: int | None = None) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl or another file of objects with a ``step``, up to `last_step`; none where it is missing.

    A last line that a kill cut short is left out, and so is what has no step.

    Raises:
        InputError: the file cannot be read, or a line is not JSON.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None
    records = []
    for place, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            raise InputError(f"{path}, line {place} is not JSON. Remove the line, or fix it.") from None
        if isinstance(record, dict) and _is_step(record.get("step")):
            records.append(record)
    return [record for record in records if last_step is None or record["step"] <= last_step]


def read_energy(folder: Path) -> Energy:
    """What energy.json says that a run took; without sources where it says nothing."""
    return _energy(_read(folder / ENERGY, []))


def unique_names(folders: Sequence[Path]) -> list[str]:
    """A name for each folder: its own, with as many parents before it as tell it from the others."""
    parts = [folder.resolve().parts for folder in folders]
    names = []
    for own in parts:
        depth = 1
        while depth < len(own) and sum(other[-depth:] == own[-depth:] for other in parts) > 1:
            depth += 1
        names.append("/".join(own[-depth:]).encode("utf-8", "replace").decode())  # a name on disk may be any bytes
    return names


def number(value: Any) -> float | None:
    """`value` if it is a finite number, else None. True and False are none."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return value
    return None


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _read(path: Path, notes: list[str]) -> dict[str, Any]:
    """A YAML or JSON file's mapping; empty where there is none."""
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        notes.append(f"{path.name} is left out, it cannot be read: {' '.join(str(error).split())}")
        return {}
    if not isinstance(content, dict):
        notes.append(f"{path.name} is left out, it holds no keys and values")
        return {}
    return content


def _samples(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """The samples, in the order of steps. A last line that a kill cut short is skipped, as in metrics.jsonl."""
    if not path.is_file():
        return []
    found: dict[tuple[int, str], dict[str, Any]] = {}
    bad = 0
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n") or not line.strip():
            continue
        try:
            record = json.loads(line)
            step, prompt, text = record["step"], str(record.get("prompt") or ""), str(record.get("text") or "")
            if not _is_step(step):
                raise ValueError("step")
        except (ValueError, TypeError, KeyError, AttributeError):
            bad += 1
            continue
        found[step, prompt] = {"step": step, "prompt": prompt, "text": text}  # a resumed run writes a step again
    if bad:
        notes.append(f"{path.name}: {bad} line{'s' if bad > 1 else ''} left out, not a sample with a step")
    return sorted(found.values(), key=lambda sample: sample["step"])


def _sources(content: dict[str, Any]) -> list[dict[str, Any]]:
    sources = content.get("sources")
    rows: list[dict[str, Any]] = []
    for source in sources if isinstance(sources, list) else ():
        if isinstance(source, dict):
            numbers = {key: number(source.get(key)) for key in ("tokens", "weight", "share", "epochs", "documents")}
            rows.append({"name": str(source.get("name", "?"))} | numbers)
    total = sum(row["weight"] or 0.0 for row in rows)
    return [row | {"asked": row["weight"] / total if row["weight"] is not None and total > 0 else None} for row in rows]


def _energy(content: dict[str, Any]) -> Energy:
    joules = content.get("joules")
    found = joules.items() if isinstance(joules, dict) else ()
    return Energy({str(name): amount for name, value in found if (amount := number(value)) is not None})


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Keys and values as text, inner mappings with their keys joined by a dot."""
    result: dict[str, str] = {}
    for key, value in content.items():
        nested = isinstance(value, dict) and value
        result |= _flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": _text(value)}
    return result


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, float):
        return repr(float(f"{value:.12g}"))  # 0.006, not 0.005999999999999999
    return str(value)
