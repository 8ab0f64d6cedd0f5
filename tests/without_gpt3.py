"""A process that cannot import this package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

BLOCKED = """
import importlib.abc, json, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] == "gpt3":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
"""


def python(code: str, tmp_path: Path, *arguments: str, **variables: str) -> str:
    """Standard output of a new process that runs `code` and cannot import gpt3."""
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", **variables}
    environment.pop("PYTHONPATH", None)
    process = subprocess.run(
        [sys.executable, "-c", BLOCKED + code, *arguments],
        capture_output=True,
        encoding="utf-8",
        env=environment | {"PYTHONIOENCODING": "utf-8"},
        timeout=300,
        cwd=tmp_path,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout
