"""One thread a test process: the tensors are tiny, and threads that wait for a busy core take many times as long.

Files whose few tests take longest come first, so that no process is left with them at the end.
"""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["GPT3_COMPILE"] = "wait"  # no processes that go on after a test
LONGEST = (
    "test_ranks.py", "test_engines.py", "test_kills.py", "test_prepare_resume.py", "test_checkpoint_ranks.py",
    "test_run_folder.py", "test_encoder.py", "test_init_from.py", "test_server.py", "test_serve.py", "test_generation.py",
    "test_hub.py", "test_generate_command.py", "test_model_folder.py", "test_generate_many.py", "test_run.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, in that order; the others as they come."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
