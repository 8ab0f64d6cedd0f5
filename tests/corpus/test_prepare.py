"""Documents to shards: every document is there once, in order, on the side its text's hash says, whoever did the work."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt3.cli.prepare import run
from gpt3.corpus import prepare as preparation
from gpt3.corpus import segments
from gpt3.corpus.options import PrepareOptions
from gpt3.corpus.prepare import prepare
from gpt3.corpus.shards import documents, open_shards
from gpt3.curation.options import CuratedOptions
from gpt3.errors import InputError
from gpt3.tokenizer.loading import load_tokenizer
from gpt3.tokenizer.train import train_tokenizer

TEXTS = [
    "It was the best of times, it was the worst of times.",
    "Call me Ishmael. Some years ago, never mind how long precisely, I thought I would sail about a little.",
    "Où sont les neiges d'antan? 🌨️",
    "  two spaces,\n\nnew lines\tand tabs \n",
    "It is spelled <|endoftext|> here, and stays text.",
    "x" * 700,
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """The folder of a small tokenizer."""
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TEXTS * 3, vocab_size=350).save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Many batches and segments out of little text."""
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 1500)
    monkeypatch.setattr(segments, "BATCH_BYTES", 400)


def write_jsonl(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return str(path)


def many(count, seed=0):
    rng = np.random.default_rng(seed)
    return [f"{i} " + TEXTS[rng.integers(len(TEXTS))][: rng.integers(1, 200)] for i in range(count)]


def contents(folder):
    """Every file of a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def key(text):
    """The key of a document as docs/data.md tells it."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")


def read_back(folder, split):
    """The texts of a split, decoded one id at a time by the tokenizers library."""
    shards = open_shards(folder, verify=True)
    backend = shards.tokenizer().backend_tokenizer
    return [backend.decode(ids.tolist(), skip_special_tokens=False) for ids in documents(shards.split(split))]


@settings(deadline=None, max_examples=15)
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=300), min_size=1, max_size=40),
    fraction=st.sampled_from([0.0, 0.005, 0.3, 0.9]),
    shard_tokens=st.sampled_from([1, 50, 400, 10**6]),
)
def test_shards_hold_the_documents_in_order(tmp_path_factory, tokenizer, texts, fraction, shard_tokens):
    tmp_path = tmp_path_factory.mktemp("prepare")
    kept = [text for text in texts if text.strip()]
    options = PrepareOptions(
        data=[write_jsonl(tmp_path / "a.jsonl", texts)],
        out=str(tmp_path / "out"),
        tokenizer=tokenizer,
        validation_fraction=fraction,
        shard_tokens=shard_tokens,
    )
    if not kept:
        with pytest.raises(InputError, match="no documents"):
            prepare(options)
        return
    folder = prepare(options)
    train, validation = read_back(folder, "train"), read_back(folder, "validation")
    limit = int(open_shards(folder).manifest.validation_below, 16)
    assert train == [text for text in kept if key(text) >= limit]
    assert validation == [text for text in kept if key(text) < limit]
    assert train
    assert bool(validation) == (len(set(kept)) > 1 and fraction > 0)
    opened = open_shards(folder)
    for name, expected in (("train", train), ("validation", validation)):
        split = opened.split(name)
        assert split.text_bytes == sum(len(text.encode("utf-8")) for text in expected)
        for _, shard in split.shards:
            assert shard.tokens <= shard_tokens or shard.documents == 1
        ends = split.document_ends()
        assert all(split.read(end - 1, end)[0] == opened.end_of_text for end in ends)
    assert {path.name for path in tmp_path.iterdir()} == {"a.jsonl", "out"}  # nothing is left beside it


def test_ids_are_the_tokenizers_own(tmp_path):
    texts = many(300)
    folder = prepare(
        PrepareOptions(data=[write_jsonl(tmp_path / "a.jsonl", texts)], out=str(tmp_path / "o"), validation_fraction=0)
    )
    shards = open_shards(folder)
    gpt2 = load_tokenizer("gpt2")
    expected = [i for text in texts for i in [*gpt2(text, split_special_tokens=True)["input_ids"], 50256]]
    assert shards.split("train").read(0, len(shards.split("train"))).tolist() == expected
    assert (shards.vocab_size, shards.end_of_text, shards.manifest.dtype) == (50257, 50256, "<u2")


def test_the_held_out_share_is_what_was_asked_for(tmp_path, tokenizer, monkeypatch):
    monkeypatch.undo()
    texts = many(4000)
    folder = prepare(
        PrepareOptions(
            data=[write_jsonl(tmp_path / "a.jsonl", texts)],
            out=str(tmp_path / "o"),
            tokenizer=tokenizer,
            validation_fraction=0.1,
        )
    )
    held_out = open_shards(folder).split("validation").documents
    assert 300 < held_out < 500  # 400 expected, standard deviation 19


def test_equal_texts_never_fall_on_both_sides(tmp_path, tokenizer):
    texts = [text for text in many(60) for _ in range(3)]
    np.random.default_rng(1).shuffle(texts)
    folder = prepare(
        PrepareOptions(
            data=[write_jsonl(tmp_path / "a.jsonl", texts)],
            out=str(tmp_path / "o"),
            tokenizer=tokenizer,
            validation_fraction=0.3,
        )
    )
    train, validation = read_back(folder, "train"), read_back(folder, "validation")
    assert len(train) + len(validation) == 180
    assert not set(train) & set(validation)


@pytest.mark.parametrize("workers", [3, pytest.param(2, marks=pytest.mark.slow)])
def test_workers_do_not_change_a_byte(tmp_path, tokenizer, monkeypatch, workers):
    data = [write_jsonl(tmp_path / f"{i}.jsonl", many(150, seed=i)) for i in range(5)]
    options = PrepareOptions(
        data=data, out=str(tmp_path / "alone"), tokenizer=tokenizer, validation_fraction=0.1,
        shard_tokens=5000, workers=1,
    )  # fmt: skip
    alone = contents(prepare(options))
    monkeypatch.setattr(preparation, "POOL_BYTES", 0)
    used = []
    monkeypatch.setattr(
        preparation,
        "share",
        lambda *a, whole=preparation.share: (used.append(a[3]), whole(*a)),
    )
    assert contents(prepare(dataclasses.replace(options, out=str(tmp_path / "shared"), workers=workers))) == alone
    assert used == [workers]
    assert len([name for name in alone if name.startswith("train")]) > 4


def test_a_mixture_is_counted_by_source(tmp_path, tokenizer):
    first = write_jsonl(tmp_path / "a.jsonl", many(50))
    second = write_jsonl(tmp_path / "b.jsonl", [text + "!" for text in many(80)])
    folder = prepare(
        PrepareOptions(data=[first, second], out=str(tmp_path / "o"), tokenizer=tokenizer, validation_fraction=0.2)
    )
    manifest = open_shards(folder).manifest
    assert [source["name"] for source in manifest.sources] == [first, second]
    both = [
        sum(source["splits"][split]["documents"] for split in ("train", "validation")) for source in manifest.sources
    ]
    assert both == [50, 80]
    for split, whole in manifest.splits.items():
        for count in ("tokens", "documents", "text_bytes"):
            assert sum(source["splits"][split][count] for source in manifest.sources) == getattr(whole, count) > 0


def test_a_reader_that_gives_empty_documents_has_them_counted():
    ((texts, records, read, last),) = segments.batches(["a", "", " \n", "b"], 100)
    assert (texts, len(records), read, last) == (["a", "b"], 2, 4, True)


def test_a_finished_preparation_is_not_repeated(tmp_path, tokenizer, capsys, monkeypatch):
    options = CuratedOptions(
        data=[write_jsonl(tmp_path / "a.jsonl", many(20))], out=str(tmp_path / "o"), tokenizer=tokenizer
    )
    before = contents(prepare(options))
    monkeypatch.setattr(preparation.Preparation, "_make", None)
    assert contents(prepare(options)) == before
    assert "Using prepared data" in capsys.readouterr().err
    run(options)
    assert "20 documents" not in capsys.readouterr().out.splitlines()[0]


def test_another_preparation_in_the_way_is_refused_and_named(tmp_path, tokenizer):
    data = write_jsonl(tmp_path / "a.jsonl", many(20))
    other = write_jsonl(tmp_path / "other.jsonl", many(30))
    options = PrepareOptions(data=[data], out=str(tmp_path / "o"), tokenizer=tokenizer)
    before = contents(prepare(options))
    for change, message in [
        ({"validation_fraction": 0.5}, "prepared with other options: --validation-fraction was 0.005, now 0.5"),
        ({"shard_tokens": 77}, "--shard-tokens was 100000000, now 77"),
        ({"tokenizer": "gpt2"}, r"--tokenizer was \w{12}, now \w{12}"),
        ({"data": [other]}, r"--data was \S*a\.jsonl, now \S*other\.jsonl"),
    ]:
        with pytest.raises(InputError, match=message):
            prepare(dataclasses.replace(options, **change))
    write_jsonl(tmp_path / "a.jsonl", many(21))
    with pytest.raises(InputError, match=r"a\.jsonl has changed since"):
        prepare(options)
    assert contents(tmp_path / "o") == before


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_something_else_at_out_is_left_alone(tmp_path, tokenizer, kind):
    out = tmp_path / "o"
    if kind == "folder":
        out.mkdir()
    mine = out if kind == "file" else out / "letter.txt"
    mine.write_text("dear")
    with pytest.raises(InputError, match=r"--out \S*o exists and is not a shard folder"):
        prepare(PrepareOptions(data=[write_jsonl(tmp_path / "a.jsonl", many(5))], out=str(out), tokenizer=tokenizer))
    assert mine.read_text() == "dear"


def test_an_empty_folder_at_out_is_used(tmp_path, tokenizer):
    (tmp_path / "o").mkdir()
    folder = prepare(
        PrepareOptions(data=[write_jsonl(tmp_path / "a.jsonl", many(5))], out=str(tmp_path / "o"), tokenizer=tokenizer)
    )
    assert open_shards(folder).split("train").documents == 4


@pytest.mark.parametrize(("free", "what"), [(100, "the tokenizer"), (40_000, "the token shards")])
def test_a_disk_too_small_is_seen_ahead(tmp_path, tokenizer, monkeypatch, free, what):
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free))
    with pytest.raises(InputError, match=f"no room for {what} in"):
        prepare(
            PrepareOptions(
                data=[write_jsonl(tmp_path / "a.jsonl", many(5000))], out=str(tmp_path / "o"), tokenizer=tokenizer
            )
        )
    assert not (tmp_path / "o").exists()


def test_all_wrong_options_are_told_at_once():
    with pytest.raises(InputError, match=r"--validation-fraction 1\.5.*--shard-tokens 0.*--workers 0.*--data is empty"):
        PrepareOptions(data=[], validation_fraction=1.5, shard_tokens=0, workers=0)


def test_the_tokenizer_beside_the_shards_must_be_theirs(tmp_path, tokenizer):
    folder = prepare(
        PrepareOptions(data=[write_jsonl(tmp_path / "a.jsonl", many(5))], out=str(tmp_path / "o"), tokenizer=tokenizer)
    )
    shards = open_shards(folder)
    shards.check_tokenizer(load_tokenizer(tokenizer), "mine")
    with pytest.raises(InputError, match=r"^mine \(50,257 ids.*not the tokenizer that made the shards.*350 ids"):
        shards.check_tokenizer(load_tokenizer("gpt2"), "mine")
    load_tokenizer("gpt2").save_pretrained(folder / "tokenizer")
    with pytest.raises(InputError, match="not the tokenizer that made the shards"):
        open_shards(folder).tokenizer()


def test_neither_options_nor_shards_nor_workers_import_torch():
    code = (
        "import sys; from gpt3.corpus.options import PrepareOptions; heavy = {'numpy', 'transformers'} & set(sys.modules);"
        "import gpt3.corpus.pool, gpt3.corpus.prepare, gpt3.corpus.mixture;"
        "from gpt3.tokenizer.encoder import Encoder; from gpt3.tokenizer.loading import load_tokenizer;"
        "Encoder(load_tokenizer('gpt2')).encode_batch(['a']);"
        "print(heavy, 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set() False"


def test_wiki_is_whole(tmp_path, monkeypatch, tokenizer):
    monkeypatch.undo()  # real sizes of segments
    folder = prepare(PrepareOptions(data=["wiki"], out=str(tmp_path / "wiki"), tokenizer=tokenizer))
    counts = open_shards(folder, verify=True).manifest.splits
    assert counts["train"].documents + counts["validation"].documents > 9000
    assert counts["validation"].documents > 20
    assert Path(folder) == tmp_path / "wiki"
