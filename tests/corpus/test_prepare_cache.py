"""Preparations in the cache: found again, one for each thing asked for, made once by two who ask at the same time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gpt3.corpus import manifest
from gpt3.corpus.options import PrepareOptions
from gpt3.corpus.prepare import Preparation, cache_folder, prepare_cached
from gpt3.corpus.shards import open_shards
from gpt3.errors import InputError
from gpt3.tokenizer.train import train_tokenizer


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A small tokenizer's folder, with the cache in a folder of this test."""
    monkeypatch.setenv("GPT3_CACHE", str(tmp_path / "cache"))
    train_tokenizer(["all work and no play"] * 5, vocab_size=262).save_pretrained(tmp_path / "own")
    return str(tmp_path / "own")


def write(path, count):
    path.write_text("".join(json.dumps({"text": f"all work {i} and no play"}) + "\n" for i in range(count)))
    return str(path)


def test_a_disk_too_small_for_the_cache_is_told_with_the_caches_remedy(tmp_path, own, monkeypatch):
    import shutil

    usage = shutil.disk_usage(tmp_path)
    for free, what in [(100, "the tokenizer"), (30_000, "the token shards")]:
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: usage._replace(free=free))
        with pytest.raises(InputError, match=rf"no room for {what} in .*cache.*on another disk.*GPT3_CACHE") as caught:
            prepare_cached(write(tmp_path / "a.jsonl", 5000), own)
        assert "--out" not in str(caught.value)


def test_found_again_and_made_anew_when_anything_changes(tmp_path, own, monkeypatch):
    data = write(tmp_path / "a.jsonl", 30)
    first = prepare_cached(data, own)
    assert first.parent == tmp_path / "cache" / "shards"
    assert first.name.startswith("a-")
    made = first.stat().st_mtime_ns
    assert prepare_cached([data], Path(own)) == first
    assert first.stat().st_mtime_ns == made
    train_tokenizer(["all work and no play"] * 5, vocab_size=261).save_pretrained(tmp_path / "other")
    others = [
        prepare_cached(data, str(tmp_path / "other")),
        prepare_cached(data, own, validation_fraction=0.3),
        prepare_cached(data, own, shard_tokens=50),
        prepare_cached(data, own, workers=1),
    ]
    assert others[3] == first  # the number of workers changes nothing
    write(tmp_path / "a.jsonl", 31)
    others[3] = prepare_cached(data, own)
    monkeypatch.setattr(manifest, "VERSION", 2)
    others.append(cache_folder() / "shards" / Preparation(PrepareOptions(data=[data], tokenizer=own)).cache_name())
    assert len({first, *others}) == 6


def test_two_at_once_do_the_work_once(tmp_path, own):
    data = write(tmp_path / "a.jsonl", 20_000)
    code = f"from gpt3.corpus.prepare import prepare_cached; print(prepare_cached({data!r}, {own!r}))"
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    results = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    folders = {Path(out.strip()) for out, _ in results}
    assert len(folders) == 1
    assert open_shards(folders.pop(), verify=True).split("train").documents > 19_000
    assert sum("Using prepared data" in errors for _, errors in results) == 1
    assert len(list((tmp_path / "cache" / "shards").iterdir())) == 1


def test_where_the_cache_is(monkeypatch, tmp_path):
    for variable in ("GPT3_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == tmp_path / ".cache" / "gpt3"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x" / "gpt3"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "gpt3"
    monkeypatch.setattr(sys, "platform", "win32")
    assert cache_folder() == tmp_path / "AppData" / "Local" / "gpt3"
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "l"))
    assert cache_folder() == tmp_path / "l" / "gpt3"
    monkeypatch.setenv("GPT3_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
