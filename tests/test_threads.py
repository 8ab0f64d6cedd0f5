"""numba's threads follow torch's, and torch's stay what they were."""

import subprocess
import sys

CODE = """
import torch
torch.set_num_threads({threads})
import numba
from gpt3.threads import follow_torch
follow_torch()
print(torch.get_num_threads(), numba.get_num_threads() == min({threads}, numba.config.NUMBA_NUM_THREADS))
torch.set_num_threads(1)
follow_torch()
print(torch.get_num_threads(), numba.get_num_threads())
"""


def test_numba_follows_torch_and_torch_stays():
    """In a process where numba's pool starts now: with a shared OpenMP library that sets torch's number."""
    for threads in (1, 2):
        done = subprocess.run([sys.executable, "-c", CODE.format(threads=threads)], capture_output=True, text=True)
        assert done.stdout.splitlines() == [f"{threads} True", "1 1"], done.stderr
