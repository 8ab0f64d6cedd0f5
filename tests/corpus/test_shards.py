"""The shard folder: what is written is read, across shards, by memory map; what is wrong is named."""

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt3.corpus import manifest
from gpt3.corpus.manifest import Manifest, Split, token_dtype
from gpt3.corpus.shards import ShardWriter, TokenSplit, documents, open_shards, shard_name
from gpt3.errors import InputError


def write_folder(path, shards, vocab_size=1000, validation=()):
    """A shard folder of given documents: a list of shards, each a list of documents, each a list of ids."""
    path.mkdir(exist_ok=True)
    dtype = token_dtype(vocab_size)
    splits = {}
    for split, content in (("train", shards), ("validation", validation)):
        written = []
        for number, shard in enumerate(content):
            writer = ShardWriter(path, shard_name(split, number), dtype)
            for document in shard:
                writer.append(np.array(document), np.array([len(document)]), text_bytes=2 * len(document))
            written.append(writer.close())
        splits[split] = Split.of(written)
    Manifest(
        dtype=dtype,
        vocab_size=vocab_size,
        end_of_text=0,
        tokenizer_sha256="00",
        validation_fraction=0.0,
        validation_below="0" * 16,
        splits=splits,
        sources=[],
        preparation={},
        created_by="test",
    ).write(path)
    return path


def change_manifest(path, change):
    content = json.loads((path / "manifest.json").read_text())
    change(content)
    (path / "manifest.json").write_text(json.dumps(content))


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "data", [[[5, 6, 0], [7, 0]], [[8, 9, 10, 0]]], validation=[[[1, 0]]])


shard_lists = st.lists(
    st.lists(st.lists(st.integers(1, 99_999), max_size=20).map(lambda d: [*d, 0]), min_size=1, max_size=8), max_size=5
)


@settings(deadline=None, max_examples=40)
@given(shard_lists, st.sampled_from([100_000, 1 << 16, 300]), st.data())
def test_what_is_written_is_read(tmp_path_factory, shards, vocab_size, data):
    shards = [[[i % vocab_size for i in document] for document in shard] for shard in shards]
    path = write_folder(tmp_path_factory.mktemp("shards"), shards, vocab_size)
    split = open_shards(path, verify=True).split("train")
    flat = [i for shard in shards for document in shard for i in document]
    assert len(split) == len(flat)
    assert split.text_bytes == 2 * len(flat)
    start = data.draw(st.integers(0, len(flat)))
    stop = data.draw(st.integers(start, len(flat)))
    tokens = split.read(start, stop)
    assert tokens.dtype == np.int64
    assert tokens.tolist() == flat[start:stop]
    everything = [document for shard in shards for document in shard]
    assert split.documents == len(everything)
    assert split.document_ends().tolist() == np.cumsum([len(document) for document in everything]).tolist()
    assert [document.tolist() for document in documents(split)] == [document[:-1] for document in everything]


def test_numpy_alone_reads_it_whatever_the_machine(folder):
    content = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    shard = content["splits"]["train"]["shards"][0]
    assert np.memmap(folder / shard["file"], dtype=content["dtype"], mode="r").tolist() == [5, 6, 0, 7, 0]
    assert (folder / "train-00000.bin").read_bytes() == bytes([5, 0, 6, 0, 0, 0, 7, 0, 0, 0])  # little-endian
    assert (folder / "train-00000.idx").read_bytes() == bytes([3, *[0] * 7, 5, *[0] * 7])


def test_a_folder_below_home_is_opened(folder, monkeypatch):
    monkeypatch.setattr(Path, "expanduser", lambda path: folder.parent / str(path).removeprefix("~/"))
    assert open_shards("~/data", verify=True).split("train").read(0, 3).tolist() == [5, 6, 0]


def test_wide_vocabularies_take_four_bytes(tmp_path):
    assert [token_dtype(n) for n in (300, 65_536, 65_537)] == ["<u2", "<u2", "<u4"]
    folder = write_folder(tmp_path / "wide", [[[65_536, 0]]], vocab_size=65_537)
    assert (folder / "train-00000.bin").read_bytes() == bytes([0, 0, 1, 0, 0, 0, 0, 0])
    assert open_shards(folder).split("train").read(0, 2).tolist() == [65_536, 0]


def test_a_split_travels_to_another_process_without_its_tokens(tmp_path):
    split = open_shards(write_folder(tmp_path / "data", [[[*range(1, 500)] * 100 + [0]]])).split("train")
    split.read(0, 10)
    pickled = pickle.dumps(split)
    assert len(pickled) < 2000
    np.testing.assert_array_equal(pickle.loads(pickled).read(100, 200), split.read(100, 200))


def test_reading_outside_the_split_is_an_error(folder):
    split = open_shards(folder).split("train")
    assert split.read(9, 9).tolist() == []
    for start, stop in ((0, 10), (-1, 3), (5, 4)):
        with pytest.raises(IndexError):
            split.read(start, stop)


def test_a_folder_that_is_none_is_refused(tmp_path, folder):
    for path in (tmp_path, tmp_path / "nowhere", folder / "train-00000.bin"):
        with pytest.raises(InputError, match="not a shard folder"):
            open_shards(path)
    with pytest.raises(InputError, match=r"no split 'test'.*train, validation"):
        open_shards(folder).split("test")


@pytest.mark.parametrize("name", ["train-00001.bin", "train-00000.idx", "validation-00000.bin"])
def test_a_missing_or_cut_file_is_named(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1])
    with pytest.raises(InputError, match=f"{name} is cut short: {len(content) - 1} bytes.*says {len(content)}"):
        open_shards(folder)
    (folder / name).write_bytes(content + b"\0")
    with pytest.raises(InputError, match=f"{name} is too long"):
        open_shards(folder)
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        open_shards(folder)


@pytest.mark.parametrize("name", ["train-00001.bin", "train-00000.idx", "validation-00000.bin"])
def test_one_changed_byte_is_found_when_asked_to_verify(folder, name):
    open_shards(folder, verify=True)
    content = bytearray((folder / name).read_bytes())
    content[1] ^= 1
    (folder / name).write_bytes(content)
    open_shards(folder)
    with pytest.raises(InputError, match=f"{name} is damaged"):
        open_shards(folder, verify=True)


def test_an_id_outside_the_vocabulary_is_named_with_its_place(folder):
    change_manifest(folder, lambda m: m.update(vocab_size=9))
    with pytest.raises(InputError, match=r"train-00001\.bin: token 9 at position 1 .*vocabulary of 9 ids"):
        open_shards(folder)


def test_an_id_outside_the_vocabulary_is_never_read(folder):
    (folder / "train-00000.bin").write_bytes(np.array([5, 6, 0, 1000, 0], "<u2").tobytes())
    split = open_shards(folder).split("train")
    assert split.read(0, 3).tolist() == [5, 6, 0]
    with pytest.raises(InputError, match=r"train-00000\.bin: token 1000 at position 3"):
        split.read(2, 5)
    with pytest.raises(InputError, match=r"train-00000\.bin"):
        open_shards(folder, verify=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(dtype=">u2"), "'>u2' cannot be read; shards are little-endian"),
        (lambda m: m.update(dtype="float32"), "'float32' cannot be read"),
        (lambda m: m.update(vocab_size=65_537), "65,537 ids does not fit"),
        (lambda m: m.update(end_of_text=1000), "end-of-text id 1000 is outside"),
        (lambda m: m.update(format="other"), "not the manifest of a shard folder"),
        (lambda m: m.update(version=2), "version 2, this program reads version 1"),
        (lambda m: m.pop("splits"), "damaged .*'splits'"),
        (lambda m: m["splits"]["train"].update(tokens=3), "contradict"),
        (lambda m: m["splits"]["train"]["shards"][0].pop("sha256"), "damaged .*sha256"),
    ],
)
def test_a_wrong_manifest_is_refused(folder, change, message):
    change_manifest(folder, change)
    with pytest.raises(InputError, match=message):
        open_shards(folder)


def test_a_manifest_that_is_no_json_is_refused(folder):
    (folder / "manifest.json").write_bytes(b"\xff{")
    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        open_shards(folder)


def test_the_manifest_is_read_as_it_was_written(folder):
    content = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert content.pop("format") == manifest.FORMAT
    assert content.pop("version") == manifest.VERSION
    assert json.loads(json.dumps(dataclasses.asdict(manifest.read_manifest(folder)))) == content


@settings(deadline=None, max_examples=20)
@given(contents=st.lists(shard_lists, min_size=1, max_size=4), data=st.data())
def test_joined_splits_read_as_one(tmp_path_factory, contents, data):
    path = tmp_path_factory.mktemp("joined")
    folders = [write_folder(path / str(n), content, vocab_size=100_000) for n, content in enumerate(contents)]
    joined = TokenSplit.joined([open_shards(folder).split("train") for folder in folders])
    documents_of_all = [document for content in contents for shard in content for document in shard]
    whole = [token for document in documents_of_all for token in document]
    stop = data.draw(st.integers(0, len(whole)))
    start = data.draw(st.integers(0, stop))
    assert len(joined) == len(whole)
    assert joined.read(start, stop).tolist() == whole[start:stop]
    assert [document.tolist() for document in documents(joined)] == [document[:-1] for document in documents_of_all]
    assert (joined.documents, joined.text_bytes) == (len(documents_of_all), 2 * len(whole))
