"""What computes: the device that a name means (`auto`, `cpu`, `cuda`, `cuda:N` or `mps`), and threads of the CPU.

numba's loops take as many threads as torch does, and no thread is left behind that has computed. torch is imported where it is
needed: to learn that there is only a CPU, and to set its threads, it is not.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import re
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from gpt3.errors import InputError

if TYPE_CHECKING:
    import torch

Result = TypeVar("Result")
NAME = re.compile(r"cpu|mps|cuda(:\d+)?")
FULL_MEMORY = (
    "MPS backend out of memory", "Invalid buffer size: ", "kIOGPUCommandBufferCallbackErrorOutOfMemory",
    "CUBLAS_STATUS_ALLOC_FAILED", "DefaultCPUAllocator: ",
)  # fmt: skip
"""What torch's errors say, besides torch.OutOfMemoryError, where memory could not be allocated."""


class Device(Protocol):
    """What computes: torch's device, or the CPU without torch. As text, its name."""

    @property
    def type(self) -> str:
        """cpu, cuda or mps."""


class _Cpu(NamedTuple):
    type: str = "cpu"

    def __str__(self) -> str:
        return self.type


CPU: Device = _Cpu()
"""The CPU, for what computes without torch."""
ACCELERATORS = ("nvidia*", "nvhost*", "nvgpu*", "nvmap", "dxg", "kfd")
"""In /dev: NVIDIA's drivers, also Tegra's, and Windows' GPU under WSL; AMD's."""


def is_cpu(name: str) -> bool:
    """Whether `choose_device` of this name gives the CPU, as far as that is known without torch; False: ask it.

    ``auto`` is the CPU where torch was built for nothing else, or where the system shows no driver of a GPU.
    """
    if name != "auto" or sys.platform == "darwin":  # MPS may be there
        return name == "cpu"
    if "torch" in sys.modules:
        return str(choose_device(name)) == "cpu"
    try:
        if metadata.version("torch").endswith("+cpu"):
            return True
    except metadata.PackageNotFoundError:
        return True
    if sys.platform == "win32":
        return not Path(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "nvcuda.dll").exists()
    return sys.platform == "linux" and not any(any(Path("/dev").glob(pattern)) for pattern in ACCELERATORS)


def choose_device(name: str) -> torch.device:
    """The device called `name`; ``auto`` is CUDA, else MPS, else the CPU.

    Raises:
        InputError: there is no such name, or no such device here.
    """
    import torch

    if name != "auto" and not NAME.fullmatch(name):
        raise InputError(f"--device {name} is unknown; use auto, cpu, cuda, cuda:N or mps")
    here = ["cpu"]
    if torch.backends.mps.is_available():
        here.insert(0, "mps")
    if torch.cuda.is_available():
        here = ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count())), *here]
    if name == "auto":
        return torch.device(here[0])
    if name not in here:
        raise InputError(f"--device {name} is not available; this machine has {', '.join(here)} (or use auto)")
    return torch.device(name)


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether torch raised `error` because memory could not be allocated: CUDA's, MPS's (a plain RuntimeError) or the CPU's."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in FULL_MEMORY)
    )


def empty_cache(device: torch.device) -> None:
    """Give the memory that torch keeps for later back to a GPU's driver."""
    import torch

    if device.type != "cpu":
        getattr(torch, device.type).empty_cache()


@functools.cache
def compile_failure(device: torch.device) -> str | None:
    """Why torch.compile does not work on `device`, in a few words; None where it does. It compiles one addition to find out."""
    import torch

    try:
        torch.compile(_plus_one, dynamic=False)(torch.zeros(8, device=device))
    except Exception as error:  # no Triton, no compiler, a compiler that fails: each has exceptions of its own
        cause = getattr(error, "inner_exception", error)
        text = next(filter(None, map(str.strip, str(cause).splitlines())), type(cause).__name__)
        return text.removesuffix(".")[:160]
    return None


def _plus_one(x: torch.Tensor) -> torch.Tensor:
    return x + 1


def processor() -> str | None:
    """The processor's name; None where the system does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or None


def usable_cores() -> int:
    """CPU cores that this process may use: of its affinity and its container's limit the smaller, at least 1."""
    limits = [limit for limit in allowed_cores().values() if limit is not None]
    return max(1, int(min(limits, default=os.cpu_count() or 1)))


def allowed_cores() -> dict[str, float | None]:
    """What limits the CPU cores of this process: ``affinity`` in cores, ``cgroup`` in cores' worth of time; None for no limit."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return {"affinity": affinity, "cgroup": _cgroup_cores()}


def memory_limit() -> int | None:
    """Bytes that a container allows this process; None without a limit."""
    for place in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            limit = int(Path(place).read_text(encoding="ascii"))
            return limit if limit < 1 << 60 else None  # version 1 writes a huge number for none
    return None


def machine_memory() -> int | None:
    """Bytes of memory of this machine, or what its container allows. None where nobody says."""
    try:
        here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return None
    return min(here, memory_limit() or here)


def _cgroup_cores(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float | None:
    """The tightest CPU quota of this process's control group and those above it, in cores; None without one."""
    quotas: list[float] = []
    with contextlib.suppress(OSError, ValueError):
        for line in own.read_text(encoding="utf-8").splitlines():
            _, controllers, inner = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            top = root / controllers if controllers else root  # version 1 mounts each controller in a folder of its own
            path = top / inner.lstrip("/")
            for folder in (path, *path.parents):
                if folder == top or top in folder.parents:
                    quotas += _quota(folder)
    return min(quotas, default=None)


def _quota(folder: Path) -> list[float]:
    """The quota that a control group's folder states, as a list of at most one."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        return [int(quota) / int(period)] if quota != "max" else []
    with contextlib.suppress(OSError, ValueError):
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period"))
        return [int(quota) / int(period)] if int(quota) > 0 else []
    return []


def in_passing_thread(work: Callable[[], Result]) -> Result:
    """What `work` returns or raises, in a thread that ends with it.

    The OpenMP library gives each thread that computes helpers of its own, and keeps them as long as the thread lives. Where all
    helpers together are more than cores, waiting gets slow (see gpt3.serving.worker): a main thread that only loads a model, for
    another thread to use, loads it here.
    """
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    thread = threading.Thread(target=run, name="gpt3-load", daemon=True)  # Ctrl-C does not wait for it
    thread.start()
    thread.join()
    return future.result()


_threads: int | None = None  # that `set_threads` chose before torch was there


def compute_threads() -> int:
    """Threads that compute: torch's, and until torch is imported what it would take: a thread a core, or OMP_NUM_THREADS."""
    global _threads
    if "torch" in sys.modules:
        import torch

        if _threads is not None:
            torch.set_num_threads(_threads)
            _threads = None
        return torch.get_num_threads()
    if _threads is not None:
        return _threads
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return int(wanted) if wanted.isdigit() and int(wanted) > 0 else physical_cores()


def set_compute_threads(threads: int) -> None:
    """Compute with this many threads from now on: torch's operators, also if it is imported later, and numba's loops."""
    global _threads
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)
        _threads = None
    else:
        _threads = threads


def physical_cores() -> int:
    """Cores among the CPUs of this process's affinity: of CPUs that share one (hyperthreads), one counts; at least 1."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = set()
    for cpu in os.sched_getaffinity(0):
        place = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(place.read_text(encoding="ascii"))
        except OSError:
            cores.add(str(cpu))
    return max(1, len(cores))


def follow_threads() -> None:
    """Let numba's next parallel function run on as many threads as torch's operators do.

    numba's pool, when it starts, sets the OpenMP library's number of threads. torch may use the same library: its own number is
    put back.
    """
    import numba

    threads = compute_threads()
    most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    numba.set_num_threads(min(threads, most))
    if "torch" in sys.modules and compute_threads() != threads:
        set_compute_threads(threads)
