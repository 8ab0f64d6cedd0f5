"""Names of devices, what importing the page that knows them costs; numba's threads follow torch's, which stay what they were."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gpt3 import device
from gpt3.device import choose_device
from gpt3.errors import InputError

CODE = """
import torch
torch.set_num_threads({threads})
import numba
from gpt3.device import follow_threads
follow_threads()
print(torch.get_num_threads(), numba.get_num_threads() == min({threads}, numba.config.NUMBA_NUM_THREADS))
torch.set_num_threads(1)
follow_threads()
print(torch.get_num_threads(), numba.get_num_threads())
"""


def test_auto_is_the_best_device_here() -> None:
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert choose_device("auto") == torch.device(best)
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["tpu", "meta", "cuda:", "cuda:x", "cpu:0", "", "CPU", "mps:1"])
def test_a_name_that_is_no_device(name: str) -> None:
    with pytest.raises(InputError, match=rf"^--device {name} is unknown; use auto, cpu, cuda, cuda:N or mps$"):
        choose_device(name)


def test_a_device_that_is_not_here() -> None:
    with pytest.raises(
        InputError, match=r"^--device cuda:99 is not available; this machine has .*cpu \(or use auto\)$"
    ):
        choose_device("cuda:99")


def test_importing_it_imports_no_torch() -> None:
    code = "import sys, gpt3.device; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_numba_follows_torch_and_torch_stays():
    """In a process where numba's pool starts now: with a shared OpenMP library that sets torch's number."""
    for threads in (1, 2):
        done = subprocess.run([sys.executable, "-c", CODE.format(threads=threads)], capture_output=True, text=True)
        assert done.stdout.splitlines() == [f"{threads} True", "1 1"], done.stderr


@pytest.mark.parametrize(
    ("version", "drivers", "expected"),
    [("2.13.0+cpu", ["nvidia0"], True), ("2.13.0", ["nvidia0"], False), ("2.13.0", [], True)],
)
def test_the_cpu_is_known_without_torch(monkeypatch, tmp_path, version, drivers, expected):
    for name in drivers:
        (tmp_path / name).touch()
    monkeypatch.setattr(device.sys, "platform", "linux")
    monkeypatch.setattr(device.metadata, "version", lambda name: version)
    monkeypatch.setattr(device, "Path", lambda name: tmp_path if name == "/dev" else Path(name))
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert device.is_cpu("auto") is expected
    assert device.is_cpu("cpu")
    assert not any(map(device.is_cpu, ("cuda", "cuda:1", "mps", "tpu")))
    assert "torch" not in sys.modules


def test_threads_chosen_before_torch_are_torchs():
    code = (
        "import sys; from gpt3.device import compute_threads, set_compute_threads\n"
        "print(compute_threads()); set_compute_threads(3); print(compute_threads(), 'torch' in sys.modules)\n"
        "import torch; print(compute_threads(), torch.get_num_threads()); set_compute_threads(2); print(torch.get_num_threads())"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert found.stdout.split("\n") == ["1", "3 False", "3 3", "2", ""]
