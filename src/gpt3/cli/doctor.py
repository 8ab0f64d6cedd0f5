"""``gpt3 doctor``: what this machine and this installation are like, on one page to paste into a bug report."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt3 import __version__
from gpt3.corpus.prepare import cache_folder
from gpt3.device import allowed_cores, memory_limit, processor
from gpt3.durable import discard, folder_bytes
from gpt3.errors import InputError, extras, install_command
from gpt3.ladder.presets import readable_size
from gpt3.options import Options, option
from gpt3.tables import aligned, counted, labelled, wrapped

PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "numba", "safetensors", "datasets", "fastokens")
"""Whose versions matter in a bug report."""


@dataclass(frozen=True)
class DoctorOptions(Options):
    """Describe this machine and installation on one page: device, threads, measured peaks, memory, extras, caches, versions."""

    json: bool = option(False, common=True)
    """Print JSON instead of text."""
    clear_cache: bool = option(False, common=True)
    """Remove gpt3's own caches (prepared shards, tokenizers, tasks); they are made again when needed."""


def run(options: DoctorOptions) -> None:
    """Print the page; or clear the caches and print what was freed."""
    if options.clear_cache:
        freed = clear_caches()
        print(json.dumps(freed) if options.json else cleared_text(freed))
        return
    found = examine()
    print(json.dumps(found, indent=2) if options.json else text(found))


def examine() -> dict[str, Any]:
    """Everything the page says, ready for JSON: sizes in bytes, speeds in FLOP/s and bytes/s. Takes about a second."""
    return {
        "versions": versions(),
        "machine": machine(),
        "compute": compute(),
        "memory": memory(),
        "extras": missing_extras(),
        "caches": caches(),
    }


def versions() -> dict[str, str | None]:
    """Of Python, this package and those that matter; None for one that is not installed."""
    found: dict[str, str | None] = {"gpt3": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def machine() -> dict[str, Any]:
    """The system, the processor, and how many of its cores this process may use."""
    return {
        "system": platform.platform(),
        "python": sys.executable,
        "processor": processor(),
        "cores": os.cpu_count(),
        **{f"cores_{name}": count for name, count in allowed_cores().items()},
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
    }


def compute() -> dict[str, Any]:
    """The device that ``--device auto`` takes, the number format and the reason for it, threads, and measured peaks."""
    import torch

    from gpt3.device import choose_device
    from gpt3.inference.device_check import known_check
    from gpt3.inference.speed import read_bandwidth
    from gpt3.training.distributed import BF16_WORTH, choose_compute, gemm_flops

    device = choose_device("auto")
    chosen = choose_compute("auto", "auto")
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    peaks = {name: gemm_flops(device, dtype) for name, dtype in dtypes.items()}
    ratio = peaks["bf16"] / peaks["fp32"]
    if device.type == "cpu":
        why = f"bf16 measured {ratio:.1f} times as fast as fp32; it is used from {BF16_WORTH:g} times"
    else:
        why = "bf16 where the GPU has it, else fp16" if device.type == "cuda" else "fp32 on Apple silicon"
    return {
        "device": str(device),
        "check": None if device.type == "cpu" else dataclasses.asdict(known_check(device)),
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "dtype": chosen.dtype_name,
        "dtype_reason": why,
        "matrix_product_flops": peaks,
        "memory_read_bytes_per_s": read_bandwidth(device),
    }


def memory() -> dict[str, Any]:
    """Bytes of memory and of disk, all and free."""
    found: dict[str, Any] = {"total": None, "available": None, "limit": memory_limit()}
    if sys.platform == "linux":
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        sizes = {line.partition(":")[0]: int(line.split()[1]) << 10 for line in lines if line.endswith("kB")}
        found |= {"total": sizes.get("MemTotal"), "available": sizes.get("MemAvailable")}
    elif hasattr(os, "sysconf"):
        found["total"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    disk = shutil.disk_usage(Path.cwd())
    return found | {"disk_total": disk.total, "disk_free": disk.free}


def missing_extras() -> dict[str, dict[str, Any]]:
    """Each extra of this package: the packages it lacks here, and the command that installs them."""
    return {
        name: {"missing": lacking, "install": install_command(name) if lacking else None}
        for name, lacking in extras().items()
    }


def caches() -> list[dict[str, Any]]:
    """Folders of cached work and the bytes they hold: each of ours, then the Hub's, which other programs use too."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folders = [*(("gpt3", path) for path in own_caches()), ("Hugging Face", Path(HF_HUB_CACHE))]
    return [{"owner": owner, "folder": str(path), "bytes": folder_bytes(path)} for owner, path in folders]


def own_caches() -> list[Path]:
    """The folders in gpt3's cache."""
    folder = cache_folder()
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def clear_caches() -> list[dict[str, Any]]:
    """Remove gpt3's own caches, and say what each held.

    Raises:
        InputError: one of them cannot be removed.
    """
    cleared = []
    for folder in own_caches():
        size = folder_bytes(folder)
        try:
            discard(folder)
        except OSError as error:
            raise InputError(f"{folder} cannot be removed ({error.strerror}). Remove it by hand.") from None
        cleared.append({"folder": str(folder), "bytes": size})
    return cleared


def text(found: dict[str, Any]) -> str:
    """The page for a terminal: `examine`'s findings in aligned rows."""
    compute, host, memory = found["compute"], found["machine"], found["memory"]
    peaks = ", ".join(f"{name} {flops / 1e9:,.0f} GFLOP/s" for name, flops in compute["matrix_product_flops"].items())
    cores = [f"affinity {host['cores_affinity']}"] if host["cores_affinity"] else []
    cores += [f"container limit {host['cores_cgroup']:g}"] if host["cores_cgroup"] else []
    rows = [
        ("versions", ", ".join(f"{name} {version or 'missing'}" for name, version in found["versions"].items())),
        ("python", host["python"]),
        ("system", host["system"]),
        ("processor", f"{host['processor'] or 'unknown'}, {compute['instructions']}, {counted(host['cores'], 'core')}"),
        ("device", compute["device"] + (f" ({compute['name']})" if compute["name"] else "")),
        *([("check", check_text(compute["check"]))] if compute["check"] else []),
        ("dtype", f"{compute['dtype']} ({compute['dtype_reason']})"),
        (
            "threads",
            f"{compute['threads']} ({'; '.join([*cores, 'OMP_NUM_THREADS ' + (host['OMP_NUM_THREADS'] or 'unset')])})",
        ),
        ("peaks", f"matrix products {peaks}; memory read at {compute['memory_read_bytes_per_s'] / 1e9:,.1f} GB/s"),
        ("memory", _amount(memory["total"], memory["available"], "available") + _limit(memory["limit"])),
        ("disk here", _amount(memory["disk_total"], memory["disk_free"], "free")),
    ]
    lines = labelled(rows)
    lines += ["", "extras:"]
    for name, extra in found["extras"].items():
        lines += wrapped(
            f"  {name}: " + (f"missing {', '.join(extra['missing'])}" if extra["missing"] else "installed"), 4
        )
        lines += [f"    {extra['install']}"] if extra["missing"] else []
    lines += ["", "caches (`gpt3 doctor --clear-cache` empties gpt3's own):"]
    lines += aligned(
        [(f"  {readable_size(each['bytes'])}", each["owner"], each["folder"]) for each in found["caches"]], left=(1, 2)
    )
    return "\n".join(lines)


def check_text(check: dict[str, Any]) -> str:
    """What the device made of a tiny model, compared with the CPU."""
    if check["faults"]:
        return f"NOT what the CPU computes: {'; '.join(check['faults'])}"
    return f"computes what the CPU does (differences up to {max(check['differences'].values()):.1%}; {check['device']})"


def cleared_text(cleared: list[dict[str, Any]]) -> str:
    """What `clear_caches` removed, a line per folder."""
    lines = [f"removed {each['folder']} ({readable_size(each['bytes'])})" for each in cleared]
    return "\n".join(lines) or f"nothing to remove in {cache_folder()}"


def _amount(total: int | None, rest: int | None, word: str) -> str:
    known = [readable_size(total)] if total is not None else []
    return ", ".join([*known, *([f"{readable_size(rest)} {word}"] if rest is not None else [])]) or "unknown"


def _limit(limit: int | None) -> str:
    return f", container limit {readable_size(limit)}" if limit is not None else ""
