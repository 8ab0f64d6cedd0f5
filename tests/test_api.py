"""The commands as typed Python functions."""

import dataclasses
import inspect
import pydoc
import subprocess
import sys

import pytest

import gpt3
from gpt3.errors import InputError
from gpt3.evaluation.options import EvalOptions
from gpt3.training.options import TrainOptions


def test_errors_have_the_commands_text() -> None:
    with pytest.raises(InputError, match="--steps 0 must be"):
        gpt3.train(steps=0)
    with pytest.raises(TypeError, match="unknown option stepz; did you mean steps"):
        gpt3.train(stepz=3)  # type: ignore[call-arg]


def test_help_and_notebooks_see_the_options() -> None:
    signature = inspect.signature(gpt3.train)
    assert list(signature.parameters) == [*(field.name for field in dataclasses.fields(TrainOptions)), "evaluators"]
    assert signature.parameters["seed"].default == TrainOptions().seed
    assert "validate_every: " in pydoc.plain(pydoc.render_doc(gpt3.train))


def test_lists_may_be_lists() -> None:
    options = EvalOptions(model="demo", tasks=["arithmetic", "wiki-topic"], shots=[0, "K"])  # type: ignore[arg-type]
    assert options == EvalOptions(model=["demo"], tasks="arithmetic,wiki-topic", shots="0,K")


def test_names_load_when_they_are_used() -> None:
    code = "import sys, gpt3; assert 'torch' not in sys.modules; assert set(dir(gpt3)) >= {'train', 'load'}; gpt3.train"
    subprocess.run([sys.executable, "-c", code + "; assert 'torch' not in sys.modules"], check=True)
