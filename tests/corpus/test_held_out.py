"""Folds: each document is held out in exactly one, of sources and of shard folders alike."""

import hashlib
import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt3.corpus.options import KEYS, PrepareOptions, parse_fold
from gpt3.corpus.prepare import prepare, prepare_cached
from gpt3.corpus.segments import fold_keys, in_split
from gpt3.corpus.shards import documents, open_shards
from gpt3.corpus.sources import open_sources
from gpt3.errors import InputError
from gpt3.tokenizer.train import train_tokenizer

TEXTS = [f"{i}: all wörk and no play 🌨️" + "\n  makes Jack a dull boy" * (i % 5) for i in range(60)] + [
    "0 <|endoftext|> 1"
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with texts, some of them twice, a tokenizer, and a shard folder of them with 20% held out."""
    folder = tmp_path_factory.mktemp("folds")
    lines = (json.dumps({"text": text}) for text in TEXTS + TEXTS[:7])
    (folder / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    train_tokenizer(TEXTS, vocab_size=300).save_pretrained(folder / "own")
    prepare(options(folder, out=str(folder / "shards"), validation_fraction=0.2, shard_tokens=500))
    return folder


def options(folder, **changes):
    return PrepareOptions(**({"data": [str(folder / "a.jsonl")], "tokenizer": str(folder / "own")} | changes))


def texts_of(folder, split):
    backend = folder.tokenizer().backend_tokenizer
    return [backend.decode(ids.tolist(), skip_special_tokens=False) for ids in documents(folder.split(split))]


@given(st.integers(2, 1000), st.integers(0, KEYS - 1), st.data())
def test_every_key_lies_in_exactly_one_fold_of_its_size(folds, key, data):
    ranges = [fold_keys(fold, folds) for fold in range(1, folds + 1)]
    assert (ranges[0].start, ranges[-1].stop) == (0, KEYS)
    assert all(a.stop == b.start for a, b in itertools.pairwise(ranges))
    assert {each.stop - each.start for each in ranges} <= {KEYS // folds, KEYS // folds + 1}
    fold = data.draw(st.integers(0, folds - 1))
    edges = np.array([key, ranges[fold].start, ranges[fold].stop - 1, 0, KEYS - 1], dtype=np.uint64)
    found = sum(in_split(edges, "validation", each).astype(int) for each in ranges)
    assert found.tolist() == [1] * 5
    assert in_split(edges, "validation", ranges[fold]).tolist() == [int(edge) in ranges[fold] for edge in edges]
    assert (in_split(edges, "train", ranges[fold]) ^ in_split(edges, "validation", ranges[fold])).all()


@pytest.mark.parametrize("source", ["a.jsonl", "shards"])
def test_each_document_is_held_out_exactly_once(made, tmp_path, source):
    everything = sorted(TEXTS + TEXTS[:7])
    held_out = []
    for fold in (1, 2, 3):
        asked = options(made, data=[str(made / source)], fold=f"{fold}/3", out=str(tmp_path / f"{fold}"))
        folder = open_shards(prepare(asked), verify=True)
        mine, others = texts_of(folder, "validation"), texts_of(folder, "train")
        assert sorted(mine + others) == everything
        keys = [int.from_bytes(hashlib.blake2b(t.encode(), digest_size=8).digest(), "little") for t in mine]
        limits = [int(getattr(folder.manifest, f"validation_{end}"), 16) for end in ("from", "below")]
        assert all(limits[0] <= key < limits[1] for key in keys)
        assert limits == [2**64 * (fold - 1) // 3, 2**64 * fold // 3]
        held_out += mine
    assert sorted(held_out) == everything


def test_a_shard_folder_prepared_anew_holds_the_same_ids(made, tmp_path):
    again = prepare(options(made, data=[str(made / "shards")], validation_fraction=0.2, out=str(tmp_path / "again")))
    for split in ("train", "validation"):
        ids = [sorted(d.tolist() for d in documents(open_shards(f).split(split))) for f in (again, made / "shards")]
        assert ids[0] == ids[1]


def test_a_shard_folder_whose_text_does_not_come_back_is_refused(made):
    (source,) = open_sources([str(made / "shards")])
    (part, *_) = source.parts()
    part.split.text_bytes = 7
    with pytest.raises(InputError, match="does not give the text back byte for byte"):
        list(part.documents())


def test_folds_in_the_cache_are_apart_and_the_fraction_does_not_matter(made, tmp_path, monkeypatch):
    monkeypatch.setenv("GPT3_CACHE", str(tmp_path))
    data, own = str(made / "a.jsonl"), str(made / "own")
    folders = [prepare_cached(data, own, fold=fold) for fold in (None, "1/3", "2/3", "1/4")]
    assert len(set(folders)) == 4
    assert prepare_cached(data, own, fold="2/3", validation_fraction=0.3) == folders[2]


def test_a_fold_is_not_another_fold(made, tmp_path):
    prepare(options(made, fold="1/3", out=str(tmp_path / "out")))
    with pytest.raises(InputError, match=r"--fold was 1/3, now 2/3"):
        prepare(options(made, fold="2/3", out=str(tmp_path / "out")))
    with pytest.raises(InputError, match="--fold was 1/3, now unset; --validation-fraction was"):
        prepare(options(made, out=str(tmp_path / "out")))


def test_too_few_texts_for_the_folds_and_folds_that_are_none(made, tmp_path):
    (tmp_path / "b.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    empty = []
    for fold in range(1, 6):
        try:
            prepare(options(made, data=[str(tmp_path / "b.jsonl")], fold=f"{fold}/5", out=str(tmp_path / f"{fold}")))
        except InputError as error:
            empty.append(str(error))
    assert len(empty) >= 3
    assert all("has too few different texts for 5 folds" in error for error in empty)
    for wrong in ("0/5", "6/5", "1/1", "2", "a/b", "1/1001", ""):
        with pytest.raises(InputError, match=r"--fold .* must be K/N"):
            parse_fold(wrong)
    with pytest.raises(InputError, match=r"--shard-tokens 0.*--fold '3' must be K/N"):
        options(made, fold="3", shard_tokens=0)
