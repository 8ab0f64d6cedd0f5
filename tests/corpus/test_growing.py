"""Shards that grow while they are read: the same blocks however they come to be, and every window a function of its number."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from gpt3.corpus import blocks
from gpt3.corpus.blocks import BlockOrder, GrowingFolder, open_growing
from gpt3.corpus.documents import Part
from gpt3.corpus.growing import GrowingWriter, Producer, Sizes, read_blocks
from gpt3.corpus.shards import TOKENIZER_FOLDER, documents
from gpt3.errors import InputError, RunError
from gpt3.tokenizer.loading import tokenizer_hash
from gpt3.tokenizer.train import train_tokenizer
from gpt3.work_folder import LOCK, locked

WORDS = [
    "the",
    "sea",
    "was",
    "calm",
    "and",
    "the",
    "old",
    "ship",
    "came",
    "back",
    "to",
    "port",
    "at",
    "night",
    "with",
    "no",
]


SMALL = Sizes(block_tokens=500, head_bytes=3000, batch_bytes=400)


class Texts(Part):
    """A part of given texts."""

    def __init__(self, name: str, texts: list[str]) -> None:
        self.name, self.texts = name, texts
        self.size = sum(map(len, texts))

    def documents(self):
        return iter(self.texts)


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([" ".join(WORDS)] * 3, 300)


def make_parts(seed: int = 1, count: int = 300) -> list[Texts]:
    draw = random.Random(seed)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(3, 30))) for _ in range(count)]
    texts[200:220] = texts[:20]  # what may be held out comes again later
    return [Texts("a", texts[:90]), Texts("b", []), Texts("c", texts[90:])]


def writer(folder: Path, tokenizer, parts, fraction: float = 0.2) -> GrowingWriter:
    folder.mkdir(exist_ok=True)
    tokenizer.save_pretrained(folder / TOKENIZER_FOLDER)
    return GrowingWriter(folder, parts, tokenizer, 1, fraction, SMALL)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def opened(folder: Path, tokenizer) -> GrowingFolder:
    return GrowingFolder(folder, {"tokenizer_sha256": tokenizer_hash(tokenizer), "validation_fraction": 0.2})


def test_documents_in_order_with_the_held_out_ones_nowhere_else(tmp_path, tokenizer):
    parts = make_parts()
    writer(tmp_path / "g", tokenizer, parts).run(lambda tokens: True)
    folder = opened(tmp_path / "g", tokenizer)
    train = [tokenizer.decode(ids) for ids in documents(folder.split("train"))]
    held_out = [tokenizer.decode(ids) for ids in documents(folder.split("validation"))]
    texts = [text for part in parts for text in part.texts]
    assert held_out
    assert train == [text for text in texts if text not in held_out]
    assert set(held_out) <= set(texts[:100])
    assert folder.ended
    assert len(folder.blocks) > 5
    assert all(block.shard.tokens >= 500 for block in folder.blocks[:-1])
    folder.check_tokenizer(folder.tokenizer(), "its own")


@pytest.mark.parametrize("fraction", [0.0, 0.2])
def test_any_kill_ends_in_the_same_bytes(tmp_path, tokenizer, fraction, monkeypatch):
    parts = make_parts()
    writer(tmp_path / "whole", tokenizer, parts, fraction).run(lambda tokens: True)
    expected = contents(tmp_path / "whole")
    real = os.replace
    for survived in range(0, 40, 3):
        calls = 0

        def replace(*arguments, **named):
            nonlocal calls
            calls += 1
            if calls > survived:  # noqa: B023
                raise Killed
            return real(*arguments, **named)

        folder = tmp_path / str(survived)
        first = writer(folder, tokenizer, parts, fraction)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            with contextlib.suppress(Killed):
                first.run(lambda tokens: True)
        writer(folder, tokenizer, parts, fraction).run(lambda tokens: True)
        found = contents(folder)
        assert {name: found.get(name) for name in expected} == expected, survived
        assert not (fraction == 0 and (folder / "validation-00000.bin").exists())


def test_it_stops_when_enough_is_there_and_goes_on_later(tmp_path, tokenizer):
    parts = make_parts()
    writer(tmp_path / "whole", tokenizer, parts).run(lambda tokens: True)
    asked: list[int] = []

    def enough(tokens: int) -> bool:
        asked.append(tokens)
        return tokens < 1200

    writer(tmp_path / "g", tokenizer, parts).run(enough)
    assert asked[-1] == sum(block.shard.tokens for block in read_blocks(tmp_path / "g")) >= 1200
    assert not (tmp_path / "g" / "end.json").exists()
    writer(tmp_path / "g", tokenizer, parts).run(lambda tokens: True)
    assert contents(tmp_path / "g") == contents(tmp_path / "whole")


def test_nothing_to_train_on(tmp_path, tokenizer):
    with pytest.raises(InputError, match="no documents to train on"):
        writer(tmp_path / "g", tokenizer, [Texts("a", [])]).run(lambda tokens: True)


def test_windows_are_a_function_of_their_number(tmp_path, tokenizer):
    parts = make_parts()
    path = tmp_path / "g"
    writer(path, tokenizer, parts).run(lambda tokens: tokens < 1200)
    early = BlockOrder(opened(path, tokenizer), 16, seed=5)
    seen = [early.window(index) for index in range(60)]
    writer(path, tokenizer, parts).run(lambda tokens: True)  # meanwhile the rest came
    late = BlockOrder(opened(path, tokenizer), 16, seed=5)
    assert late.window(1000).shape == (17,)  # of a later epoch
    assert all((late.window(index) == window).all() for index, window in enumerate(seen))
    assert any((BlockOrder(opened(path, tokenizer), 16, seed=6).window(i) != seen[i]).any() for i in range(3))
    assert (late.batch([3, 59]) == np.stack([seen[3], seen[59]])).all()


def test_an_epoch_holds_every_window_of_every_block_once(tmp_path, tokenizer):
    path = tmp_path / "g"
    writer(path, tokenizer, make_parts()).run(lambda tokens: True)
    order = BlockOrder(opened(path, tokenizer), 16, seed=5)
    size = order.windows_per_epoch
    for epoch in (0, 1):
        places = [order.place(epoch * size + i) for i in range(size)]
        assert {place[0] for place in places} == {epoch}
        assert len(set(places)) == size
        assert [block for _, block, _ in places] == sorted(block for _, block, _ in places)
    text = Counter(order.folder.split("train").read(0, len(order.folder.split("train"))).tolist())
    read = Counter(np.concatenate([order.window(i)[:-1] for i in range(size)]).tolist())
    assert all(read[token] <= count for token, count in text.items())  # nothing is read twice in an epoch
    assert sum(read.values()) == 16 * size


def test_context_longer_than_every_block(tmp_path, tokenizer):
    writer(tmp_path / "g", tokenizer, make_parts(count=20)).run(lambda tokens: True)
    with pytest.raises(InputError, match="too few tokens for a window of context 100,000; use a shorter one"):
        BlockOrder(opened(tmp_path / "g", tokenizer), 100_000, seed=1).window(0)


@pytest.fixture
def novel(tmp_path, tokenizer, monkeypatch) -> Path:
    """A JSONL file; its tokenizer in ./tokenizer, the cache in ./cache."""
    monkeypatch.setenv("GPT3_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(blocks, "SIZES", SMALL)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    texts = [text for part in make_parts(count=600) for text in part.texts]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return tmp_path / "a.jsonl"


@pytest.fixture
def growing(novel, tmp_path) -> Iterator[Callable[[], GrowingFolder]]:
    """Opens the growing folder of `novel`, as many times as it is called."""
    folders: list[GrowingFolder] = []

    def open_it() -> GrowingFolder:
        folders.append(open_growing([str(novel)], str(tmp_path / "tokenizer"), 0.01))
        return folders[-1]

    yield open_it
    for folder in folders:
        folder.close()


def exit_code(folder: GrowingFolder) -> int | None:
    """Of the folder's process, which ends soon."""
    assert folder.producer is not None
    assert folder.producer.process is not None
    folder.producer.process.join(60)
    return folder.producer.process.exitcode


def test_a_process_prepares_while_this_one_reads(growing):
    folder = growing()
    assert exit_code(folder) == 0  # the first block is there
    assert not folder.ended
    order = BlockOrder(folder, 16, seed=3)
    windows = [order.window(index) for index in range(50)]
    folder.want(1 << 40)
    assert order.place(10_000_000)[0] > 0  # to the end
    again = growing()
    assert again.producer is None  # nothing is left to do
    assert all((BlockOrder(again, 16, seed=3).window(index) == window).all() for index, window in enumerate(windows))


def test_two_runs_on_one_folder_do_not_wait_for_one_another(growing):
    first, second = growing(), growing()
    assert second.producer.process is None  # the first block was there already
    first.want(first.tokens + 1)
    assert BlockOrder(first, 16, seed=3).place(50)[1] == 1
    second.want(1 << 40)
    assert BlockOrder(second, 16, seed=3).place(10_000_000)[0] > 0  # while the first one is not closed
    assert exit_code(first) == exit_code(second) == 0


def test_a_wish_that_the_process_did_not_see_is_fulfilled(growing, monkeypatch):
    folder = growing()
    assert exit_code(folder) == 0
    monkeypatch.setattr(Producer, "want", lambda self, tokens: setattr(self.tokens, "value", tokens))
    folder.want(1 << 40)  # as if the process had been about to end
    assert BlockOrder(folder, 16, seed=3).place(10_000_000)[0] > 0


def test_a_process_that_was_killed_is_not_started_again(growing):
    folder = growing()
    order = BlockOrder(folder, 16, seed=3)
    order.window(0)
    assert exit_code(folder) == 0
    folder.want(1 << 40)
    folder.producer.process.kill()
    with pytest.raises(RunError, match="the process that prepares data was killed"):
        order.place(10_000_000)


def test_errors_of_the_process_are_told_where_data_is_waited_for(novel, growing):
    with novel.open("a") as file:
        file.write("{no json\n")
    folder = growing()
    folder.want(1 << 40)
    with pytest.raises(InputError, match="line 601"):
        BlockOrder(folder, 16, seed=3).place(10_000_000)


def test_the_process_dies_with_its_parent(novel, growing, tmp_path):
    code = (
        "import time\n"
        "from gpt3.corpus import blocks\n"
        "from gpt3.corpus.growing import Sizes\n"
        "if __name__ == '__main__':\n"
        f"    blocks.SIZES = {SMALL!r}\n"
        f"    folder = blocks.open_growing([{str(novel)!r}], {str(tmp_path / 'tokenizer')!r}, 0.01)\n"
        "    folder.want(1 << 40)\n"
        "    print(folder.producer.process.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    folder = growing()
    assert exit_code(folder) == 0
    with locked(folder.path / LOCK, ""):  # so that the process does not end of itself
        parent = subprocess.Popen(
            [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert parent.stdout is not None
        assert parent.stderr is not None
        child = int(parent.stdout.readline())
        assert "waiting for it" in parent.stderr.readline()
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        for _ in range(1200):
            try:
                os.kill(child, 0)
            except ProcessLookupError:
                return
            if Path(f"/proc/{child}/stat").exists() and Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":
                return
            time.sleep(0.05)
        pytest.fail("the process is still there")
