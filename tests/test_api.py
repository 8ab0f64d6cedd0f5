"""The commands as typed Python functions."""

import subprocess
import sys

import pytest

import gpt3
from gpt3.errors import InputError


def test_errors_have_the_commands_text() -> None:
    with pytest.raises(InputError, match="--steps 0 must be"):
        gpt3.train(steps=0)
    with pytest.raises(TypeError, match="unknown option stepz; did you mean steps"):
        gpt3.train(stepz=3)  # type: ignore[call-arg]


def test_names_load_when_they_are_used() -> None:
    code = "import sys, gpt3; assert 'torch' not in sys.modules; assert set(dir(gpt3)) >= {'train', 'load'}; gpt3.train"
    subprocess.run([sys.executable, "-c", code + "; assert 'torch' not in sys.modules"], check=True)
