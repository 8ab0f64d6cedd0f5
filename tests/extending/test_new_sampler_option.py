"""A new sampler option is one field, one function and one line, as CONTRIBUTING.md shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHECKS = """
import sys

import numpy as np
import torch

sys.path.insert(0, sys.argv[1])
from test_generate_docs import missing_rows

from gpt3.cli import main as cli
from gpt3.inference.options import GenerateOptions, SamplingOptions
from gpt3.inference.row import Row
from gpt3.inference.sampling import candidates, sample
from gpt3.serving.app import assemble
from gpt3.serving.openapi import reference_page
from gpt3.serving.options import ServeOptions
from gpt3.serving.schema import CompletionBody

logits = torch.randn(2, 3000, generator=torch.Generator().manual_seed(0)) * 3
probabilities = logits.double().softmax(-1)
expected = probabilities >= 0.3 * probabilities.amax(-1, keepdim=True) ** 2
options = SamplingOptions(top_a=0.3)
assert 1 < expected.sum() < 500
assert torch.equal(candidates(logits, options)[1] > 0, expected)
assert np.array_equal(candidates(logits[0].numpy(), options)[1] > 0, expected[0].numpy())
rows = [Row([1], options, seed=n, number=0, ends=set(), vocabulary=3000) for n in range(200)]
assert {token.id for token in sample(logits[:1].expand(200, -1), rows)} <= set(expected[0].nonzero()[:, 0].tolist())

assert cli.main(["generate", "--top-a", "1.5", "x"]) == 2
assert cli.main(["generate", "--help-all"]) == 0

body = CompletionBody(prompt="x", top_a=0.3)
assert body.sampling_options(None, 5) == SamplingOptions(top_a=0.3, max_new_tokens=5)
field = CompletionBody.model_json_schema()["properties"]["top_a"]
assert (field["anyOf"][0]["maximum"], field["x-neutral"]) == (1, 0.0)
page = reference_page(assemble({}, ServeOptions())[0].openapi())
assert "squared probability; 0 keeps all. Default: 0. Not an OpenAI field." in page
assert missing_rows(GenerateOptions) == [
    "| `--top-a` | at least 0 and at most 1 | 0 | "
    "Drop tokens less likely than this times the likeliest's squared probability; 0 keeps all. |"
]
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The package with the code blocks of the page put into copies of two files; all else is linked."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = page.partition("### A sampler option")[2].partition("\n### ")[0]
    field, function, chain = re.findall(r"```python\n(.*?)```", section, flags=re.S)
    (line,) = re.findall(r"^ +Step\(.*\n", chain, flags=re.M)
    source, copy = ROOT / "src" / "gpt3", tmp_path / "gpt3"
    (copy / "inference").mkdir(parents=True)
    for path in [*source.iterdir(), *(source / "inference").iterdir()]:
        target = copy / path.relative_to(source)
        if target != copy / "inference" and path.name != "__pycache__":
            target.symlink_to(path, target_is_directory=path.is_dir())
    for name, before, added in (
        ("options.py", "    repetition_penalty: float", field),
        ("sampling.py", "class Step(NamedTuple)", f"{function}\n\n"),
        ("sampling.py", '    Step(("typical_p",)', line),
    ):
        path = copy / "inference" / name
        text = path.read_text(encoding="utf-8")
        assert text.count(before) == 1
        path.unlink()
        path.write_text(text.replace(before, added + before), encoding="utf-8")
    return tmp_path


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_the_chain_the_command_the_api_its_page_and_the_docs_know_it(package: Path) -> None:
    pytest.importorskip("fastapi")
    done = subprocess.run(
        [sys.executable, "-c", CHECKS, str(ROOT / "tests" / "inference")],
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "--top-a 1.5 must be a number of at least 0 and at most 1" in done.stderr
    assert re.search(r"--top-a X +Drop tokens less likely than this", done.stdout)
