"""A checkpoint: one folder from which a run resumes bit for bit. Its format, its verification, its loading.

checkpoints/step-N/ holds the model folder's files (so it can be generated from), ``optimizer.safetensors`` (state tensors as
``NAME.exp_avg``, by parameter name), further sets of tensors the trainer gives such as ``ema.safetensors``, the random
generators, ``state.json``, and ``manifest.json``: every other file's size and sha256, written last. The folder is written under
a temporary name, fsynced and renamed (checkpoint_writer.py). docs/checkpoints.md describes it file by file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gpt3.device import usable_cores
from gpt3.durable import TEMPORARY_SUFFIX, discard, sha256_of
from gpt3.errors import InputError
from gpt3.training import random_state
from gpt3.training.distributed import ALONE, World
from gpt3.training.tensor_files import Entry, described, entries_of, read_into

FORMAT = 2
STATE, MANIFEST = "state.json", "manifest.json"
MOST_SHOWN = 12
"""At most this many differences are spelled out in one message."""


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, whole or not, oldest first."""
    found = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    return sorted(found, key=step_of)


def step_of(path: Path) -> int:
    """The step in a checkpoint's name."""
    return int(path.name.removeprefix("step-"))


def discard_partial(folder: Path) -> list[str]:
    """Remove what killed writers left half-written or half-removed in `folder`; returns the names.

    Only while no writer is at work there: the run folder is locked by one run.
    """
    left = sorted(folder.glob(f"*{TEMPORARY_SUFFIX}"))
    for path in left:
        discard(path)
    return [path.name for path in left]


def retained(steps: Iterable[int], current: int, *, keep: int, keep_every: int | None, best: int | None) -> set[int]:
    """Which of `steps` stay after the checkpoint of step `current` is whole.

    The newest `keep` up to and with `current`, every multiple of `keep_every`, and `best`. Steps after `current` are what a
    run left that was set back to an earlier checkpoint: they neither count nor go.
    """
    steps = set(steps)
    newest = sorted(step for step in steps if step <= current)[-keep:]
    for_ever = {step for step in steps if keep_every is not None and step % keep_every == 0}
    return (steps & {*newest, current, best}) | for_ever | {step for step in steps if step > current}


# ----------------------------------------------------------------------------------------------------------------- verify


def manifest_text(files: Mapping[str, tuple[int, str]]) -> str:
    """manifest.json for files of (size in bytes, sha256 in hex), by name."""
    listed = {name: {"bytes": size, "sha256": digest} for name, (size, digest) in sorted(files.items())}
    return json.dumps({"format": FORMAT, "files": listed}, indent=1) + "\n"


def damage(path: Path, world: World = ALONE) -> str | None:
    """What is wrong with the checkpoint at `path`, in a few words; None if it is whole, to the bit.

    A collective of the `world`: each rank hashes its share of the files.

    Raises:
        InputError: another version wrote it, in another format: it may be whole, and to skip it would lose its steps.
    """
    found: str | dict[str, str] = world.agree(lambda: _listed(path))
    if isinstance(found, str):
        return found

    def differs(entry: tuple[str, str]) -> str | None:
        name, digest = entry
        try:
            if sha256_of(path / name) != digest:
                return f"{name} is damaged: its sha256 is not the one in {MANIFEST}"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
        return None

    share = list(found.items())[world.rank :: world.size]
    with ThreadPoolExecutor(usable_cores()) as threads:  # hashing lets other threads run
        own = next(filter(None, threads.map(differs, share)), None)
    return next(filter(None, world.gather(own)), None)


def _listed(path: Path) -> str | dict[str, str]:
    """Each file's sha256 by the manifest of the checkpoint at `path`, all files having their sizes; else what is wrong."""
    try:
        text = (path / MANIFEST).read_text(encoding="utf-8")
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError) as error:
        return f"{MANIFEST} cannot be read ({error})"
    try:
        content = json.loads(text)
        found = content.get("format", FORMAT)
        if found == FORMAT:
            files = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in content["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is damaged"
    if found != FORMAT:
        raise InputError(
            f"checkpoint {path} has format {found}, this program reads {FORMAT}. Resume it with the version of gpt3 that wrote "
            "it, or start afresh with another --out."
        )
    if text != manifest_text(files) or STATE not in files:
        return f"{MANIFEST} is damaged"
    for name, (size, _) in files.items():
        try:
            found = (path / name).stat().st_size
        except OSError:
            return f"{name} is missing"
        if found != size:
            return f"{name} has {found:,} bytes, {MANIFEST} says {size:,}"
    return {name: digest for name, (_, digest) in files.items()}


def newest_whole(folder: Path, world: World = ALONE) -> tuple[Path | None, list[tuple[Path, str]]]:
    """The newest whole checkpoint in `folder`, and the newer ones that were skipped, each with what is wrong.

    A collective of the `world`.

    Raises:
        InputError: one is of another format.
    """
    passed_over: list[tuple[Path, str]] = []
    found: list[Path] = world.agree(lambda: checkpoints(folder))
    for path in reversed(found):
        reason = damage(path, world)
        if reason is None:
            return path, passed_over
        passed_over.append((path, reason))
    return None, passed_over


def read_state(path: Path) -> dict[str, Any]:
    """A checkpoint's state.json.

    Raises:
        InputError: `path` is no checkpoint of this format.
    """
    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--resume {path} is not a checkpoint ({error}); name a checkpoints/step-N folder") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else None
        raise InputError(f"--resume {path} has format {found}, this program reads {FORMAT}")
    return state


# ------------------------------------------------------------------------------------------------------------------- load


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and the buffers that are saved, by name; a tied one once, under its first name."""
    saved = model.state_dict().keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in saved}
    return {name: tensor.detach() for name, tensor in (*model.named_parameters(), *buffers.items())}


def kind_of(optimizer: torch.optim.Optimizer) -> str:
    """The optimizer's name, which a checkpoint's must be: of one that steps on the CPU the one inside."""
    return str(getattr(optimizer, "kind", type(optimizer).__name__))


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimizer's state by ``NAME.key``, NAME being the parameter's: its tensors, and its plain numbers."""
    tensors, numbers = {}, {}
    for name, weight in model.named_parameters():
        for key, value in optimizer.state.get(weight, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{name}.{key}"] = value.detach()
            else:
                numbers[f"{name}.{key}"] = value
    return tensors, numbers


def load_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    extra: Mapping[str, Mapping[str, Tensor]] | None = None,
    rank: int = 0,
) -> dict[str, Any]:
    """Put a checkpoint in place: weights, optimizer state, `extra` tensors, random generators. Returns its state.json.

    Every rank calls it and reads the parts that it holds, no matter how many ranks wrote them. On the same number of ranks
    everything is put back bit for bit. On another number the generators of ranks that did not exist are derived from rank 0's.

    Args:
        path: a checkpoint, verified (`newest_whole` or `damage`).
        model: plain, the module inside DDP, or one under FSDP2's ``fully_shard``; filled in place.
        optimizer: over `model`'s parameters, its state replaced; None: weights and `extra` only.
        extra: further tensors by set and name, filled in place, e.g. ``{"ema": …}`` for ema.safetensors.
        rank: this process's rank.

    Raises:
        InputError: names, shapes, number formats or the kind of optimizer differ; all differences are found before anything
            is changed.
    """
    state = read_state(path)
    sets = {"model": named_tensors(model), **(extra or {})}
    found = {stem: entries_of(path, stem) for stem in sets}
    differences = [text for stem, tensors in sets.items() for text in _differences(stem, tensors, found[stem])]
    saved: dict[str, Entry] = {}
    if optimizer is not None:
        saved = entries_of(path, "optimizer")
        differences += _optimizer_differences(model, optimizer, state, saved)
    if differences:
        more = f"; and {len(differences) - MOST_SHOWN} more" if len(differences) > MOST_SHOWN else ""
        raise InputError(f"checkpoint {path} does not fit this run: {'; '.join(differences[:MOST_SHOWN])}{more}")
    known = rank < state["world_size"]
    generators = load_file(path / random_name(rank if known else 0, state["world_size"]))
    for stem, tensors in sets.items():
        read_into(tensors, found[stem])
    if optimizer is not None:
        load_optimizer_state(model, optimizer, saved, state["optimizer"]["numbers"])
    if known:
        random_state.restore(generators)
    else:
        random_state.derive(generators, rank)
    return state


def _differences(stem: str, tensors: Mapping[str, Tensor], entries: Mapping[str, Entry]) -> list[str]:
    """What of one set does not fit, a sentence each."""
    texts = []
    for name, tensor in tensors.items():
        here = described(tuple(tensor.shape), tensor.dtype)
        if name not in entries:
            texts.append(f"{stem} {name} is not in the checkpoint")
        elif str(entries[name]) != here:
            texts.append(f"{stem} {name} is {entries[name]} in the checkpoint and {here} here")
    return texts + [f"{stem} {name} is in the checkpoint only" for name in entries if name not in tensors]


def _optimizer_differences(
    model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any], entries: Mapping[str, Entry]
) -> list[str]:
    made_by, here = state["optimizer"]["class"], kind_of(optimizer)
    if made_by != here:
        return [f"its optimizer is {made_by}, here it is {here}"]
    shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    texts = []
    for key, entry in entries.items():
        name = key.rpartition(".")[0]
        if name not in shapes:
            texts.append(f"optimizer {key} belongs to no parameter of this model")
        elif len(entry.shape) == len(shapes[name]) and entry.shape != shapes[name]:
            texts.append(f"optimizer {key} is {entry} in the checkpoint for a parameter of shape {shapes[name]} here")
    return texts


@torch.no_grad()
def load_optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, entries: Mapping[str, Entry], numbers: Mapping[str, Any]
) -> None:
    """Replace the state of every parameter. A tensor of the parameter's shape is sharded as the parameter is."""
    keys: dict[str, list[str]] = {}
    for key in (*entries, *numbers):
        keys.setdefault(key.rpartition(".")[0], []).append(key)
    on_device = {
        # where torch keeps its step count on the device
        weight: bool(group.get("fused") or group.get("capturable")) and not group.get("on_cpu")
        for group in optimizer.param_groups
        for weight in group["params"]
    }
    on_cpu = {weight for group in optimizer.param_groups if group.get("on_cpu") for weight in group["params"]}
    tensors: dict[str, Tensor] = {}
    for name, weight in model.named_parameters():
        state: dict[str, Any] = {}
        device = torch.device("cpu") if weight in on_cpu else weight.device
        for key in keys.get(name, ()):
            short = key.rpartition(".")[2]
            if key in numbers:
                state[short] = numbers[key]
                continue
            entry = entries[key]
            if entry.shape == tuple(weight.shape) and short != "step":
                value = torch.empty_like(weight, dtype=entry.dtype, device=device, requires_grad=False)
            else:
                host = short == "step" and not on_device.get(weight, False)
                value = torch.empty(entry.shape, dtype=entry.dtype, device="cpu" if host else device)
            state[short] = tensors[key] = value
        optimizer.state.pop(weight, None)
        if state:
            optimizer.state[weight] = state
            if optimizer.state.get(weight) is not state:
                raise TypeError(f"{type(optimizer).__name__}.state is a copy; a checkpoint must be able to fill it")
    read_into(tensors, entries)


def random_name(rank: int, world_size: int) -> str:
    """The file of a rank's random generators."""
    return "random.safetensors" if world_size == 1 else f"random-{rank}.safetensors"
