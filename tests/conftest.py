"""One thread a test process: the tensors are tiny, and threads that wait for a busy core take many times as long.

Files whose few tests take longest come first, so that no process is left with them at the end. The first two compile kernels that
others need: those of the CPU engine, those of `gpt3 corpus`; files that compile the same do not begin at once.
"""

import gc
import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["GPT3_COMPILE"] = "wait"  # no processes that go on after a test
LONGEST = (
    "test_engines.py", "test_corpus.py", "test_ranks.py", "test_corpus_docs.py", "test_corpus_kills.py", "test_four_bit.py",
    "test_kills.py", "test_init_from.py", "test_prepare_resume.py", "test_run.py", "test_run_folder.py", "test_parity.py",
    "test_old_artefacts.py", "test_growing.py", "test_generation.py", "test_train.py", "test_encoder.py", "test_server.py",
    "test_serve.py", "test_hub.py", "test_generate_many.py", "test_model_folder.py", "test_fitting.py",
)  # fmt: skip


def pytest_collection_finish() -> None:
    """What was imported stays, so that the garbage collector need not look through it after every few tests."""
    gc.freeze()


@pytest.fixture
def one_gpt2(monkeypatch: pytest.MonkeyPatch) -> None:
    """GPT-2's tokenizer without the 0.2 s of a copy for each who asks, for tests that leave it as it is."""
    monkeypatch.setattr("gpt3.tokenizer.gpt2.deepcopy", lambda tokenizer: tokenizer)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, in that order; the others as they come."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
