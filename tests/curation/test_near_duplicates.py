"""Near-duplicates against plain Python, brute force over all pairs, and datasketch's LSH fed one document after the other."""

import json
import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from documents import corpus, edited, words
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt3.cli import main as cli
from gpt3.corpus.shards import documents as tokens_of
from gpt3.corpus.shards import open_shards
from gpt3.corpus.sources import open_sources
from gpt3.curation import clusters
from gpt3.curation.chunks import read_sources
from gpt3.curation.deduplication import find_duplicates, without_near_duplicates
from gpt3.curation.minhash import signatures
from gpt3.curation.near_duplicates import NearDuplicateOptions, NearDuplicates
from gpt3.curation.shingles import WITHOUT_SPACES, shingle_sets
from gpt3.curation.stages import Engine
from gpt3.errors import InputError

TEXTS = st.text(
    st.sampled_from("aAbBcZ ß é É İ ς Σ σ ,.!-\n\t _ 1٣ 日本語テキ ไทย 🎉 𠀀 ́ a b c d")  # spaces and letters weigh more
    | st.characters(codec="utf-8"),
    max_size=60,
)


def plain_words(text: str) -> list[str]:
    """As the docstring of `gpt3.curation.shingles` says, character by character."""
    found, inside = [], ""
    for c in text:
        word = (not c.isspace() and unicodedata.category(c)[0] not in "PS" and c != "\0") or ord(c) >= 0x20000
        alone = word and (ord(c) >= 0x20000 or any(a <= ord(c) < b for a, b in WITHOUT_SPACES))
        if not word or alone:
            found += [inside] if inside else []
            inside = ""
        if alone:
            found.append(c)
        elif word:
            inside += {"ς": "σ"}.get(c.lower(), c.lower())[0]
    return found + ([inside] if inside else [])


def plain_shingles(text: str, size: int) -> set:
    listed = plain_words(text)
    if not listed:
        return {text}
    if len(listed) < size:  # characters, a space between words
        listed = list(" ".join("".join(one[0] if (one := plain_words(c)) else " " for c in text).split()))
    return {tuple(listed[i : i + size]) for i in range(max(1, len(listed) - size + 1))}


@given(st.lists(TEXTS, min_size=1, max_size=4), st.integers(1, 6))
@settings(max_examples=100, deadline=None)
def test_shingles_are_those_of_plain_python(texts: list[str], size: int) -> None:
    """As many different ones, and as many in common between any two texts."""
    ours, plain = shingle_sets(texts, size), [plain_shingles(text, size) for text in texts]
    assert [len(each) for each in ours] == [len(each) for each in plain]
    for a, other in zip(ours, plain, strict=True):
        for b, another in zip(ours, plain, strict=True):
            assert len(np.intersect1d(a, b)) == len(other & another)


def jaccard(a: str, b: str, size: int = 5) -> float:
    """By sets of plain Python."""
    one, other = plain_shingles(a, size), plain_shingles(b, size)
    return len(one & other) / len(one | other)


def test_signatures_estimate_the_similarity() -> None:
    draw = random.Random(1)
    text = words(draw, 300)
    texts = [
        " ".join(text),
        *(" ".join(edited(draw, text, count)) for count in (0, 2, 5, 10, 20, 40, 80) for _ in range(8)),
    ]
    signed = signatures(texts, 5, 1024)
    exact = np.array([jaccard(texts[0], text) for text in texts])
    estimate = (signed == signed[0]).mean(axis=1)
    assert np.abs(estimate - exact).max() < 4.5 * 0.5 / 32  # 0.5 / sqrt(1024) is the largest deviation
    assert (estimate[exact == 1] == 1).all()


def test_the_kept_set_is_that_of_a_sequential_lsh() -> None:
    """datasketch's index of our signatures, one document after the other; a witness is kept, earlier, and similar."""
    datasketch = pytest.importorskip("datasketch")
    texts = corpus(random.Random(2), 80, 12)
    options = NearDuplicateOptions()
    signed = options.signatures(texts)
    index = datasketch.MinHashLSH(num_perm=112, params=(14, 8))
    sketches = [datasketch.MinHash(num_perm=112, hashvalues=row.astype(np.uint64), scheme="legacy") for row in signed]
    kept: list[int] = []
    for number, sketch in enumerate(sketches):
        if not any(sketches[other].jaccard(sketch) >= np.float32(0.7) for other in index.query(sketch)):
            index.insert(number, sketch)
            kept.append(number)
    witness = NearDuplicates(options)
    witnesses = [witness(text) for text in texts]
    assert [number for number, found in enumerate(witnesses) if found is None] == kept
    assert 0.5 < len(kept) / len(texts) < 0.9
    for number, found in enumerate(witnesses):
        if found is not None:
            assert found < number
            assert found in kept
            assert jaccard(texts[number], texts[found]) > 0.5


def on_disk(tmp_path: Path, texts: list[str], options: NearDuplicateOptions, **more):
    """Verdicts of the stages on disk."""
    path = tmp_path / "texts.jsonl"
    tmp_path.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    chunks, key, _ = read_sources(tmp_path / "work", open_sources(str(path)), Engine(1), 10_000)
    assert len(chunks) > 3
    return find_duplicates(tmp_path / "work", chunks, key, options, Engine(1), **more)


@pytest.mark.parametrize("verify", ["signatures", "exact"])
def test_a_corpus_on_disk_loses_what_the_sequential_rule_drops(tmp_path: Path, verify: str) -> None:
    """Also with so little memory that keys are sorted in many passes and every cluster is judged alone."""
    texts = corpus(random.Random(3), 50, 12)
    options = NearDuplicateOptions(verify=verify)
    one = NearDuplicates(options)
    expected = [-1 if (found := one(text)) is None else found for text in texts]
    for number, memory in enumerate((1 << 28, 5000)):
        found = on_disk(tmp_path / str(number), texts, options, memory=memory)
        assert found.witnesses.tolist() == expected
        assert found.left_out == 0
        assert ((found.similarities > 0.699) == (found.witnesses >= 0)).all()
    if verify == "exact":
        for number in np.flatnonzero(found.witnesses >= 0).tolist():
            similarity = jaccard(texts[number], texts[found.witnesses[number]])
            assert similarity == pytest.approx(found.similarities[number])


def test_recall_and_precision_by_similarity(tmp_path: Path) -> None:
    """With exact comparison nothing below the threshold is dropped, and of pairs above it 1 - (1 - s^8)^14 are found."""
    draw = random.Random(4)
    pairs = []
    for _ in range(250):
        text = words(draw, 200)
        pairs.append((text, edited(draw, text, draw.randrange(1, 16))))
    options = NearDuplicateOptions(verify="exact")
    found, expected = {}, {}
    for a, b in pairs:
        one = NearDuplicates(options)
        one(" ".join(a))
        dropped = one(" ".join(b)) is not None
        similarity = jaccard(" ".join(a), " ".join(b))
        assert not dropped or similarity >= 0.7 - 1e-6
        if similarity >= 0.7:
            bin_ = int(similarity * 10)
            found.setdefault(bin_, []).append(dropped)
            expected.setdefault(bin_, []).append(1 - (1 - similarity**8) ** 14)
    assert len(found) >= 3
    for bin_, hits in found.items():
        chance = np.array(expected[bin_])
        deviation = np.sqrt((chance * (1 - chance)).sum()) + 1
        assert abs(sum(hits) - chance.sum()) < 3.5 * deviation, (bin_, sum(hits), chance.sum())


def test_short_texts_and_scripts_without_spaces() -> None:
    one = NearDuplicates(NearDuplicateOptions())
    long = "人人生而自由在尊严和权利上一律平等他们赋有理性和良心并应以兄弟关系的精神相对待" * 2
    texts = [
        "Hello there",
        "hello, THERE!",
        "Hello where",
        "!!!",
        "!!!",
        "???",
        "",
        long,
        long[:-3] + "火山石",
        "火山石",
    ]
    assert [one(text) for text in texts] == [None, 0, None, None, 3, None, None, None, 7, None]


def test_groups_are_not_compared(tmp_path: Path) -> None:
    one = NearDuplicates(NearDuplicateOptions())
    text = "the same text in two groups is no near-duplicate of the other"
    assert [one(text, group) for group in (1, 2, 1, 2)] == [None, None, 0, 1]
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": text}) + "\n", encoding="utf-8")
    sources = open_sources([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")])
    for across, count in ((True, 1), (False, 2)):
        kept = without_near_duplicates(sources, tmp_path / "cache", NearDuplicateOptions(across=across), 1)
        assert [len(list(part.documents())) for source in kept for part in source.parts()] == [1, count - 1]


def test_a_huge_cluster_is_bounded() -> None:
    """Documents that share a band but are not similar: beyond the bound they are not compared, and that is counted."""
    draw = np.random.default_rng(0)
    signed = draw.integers(0, 2**32, (300, 112), dtype=np.uint32)
    signed[:, :8] = 7
    options = NearDuplicateOptions()
    block = clusters.Block(options.keys(signed), signed)
    parents = np.empty(300, dtype=np.int64)
    clusters.join_buckets([block], parents, 1 << 20)
    assert (parents == 0).all()
    assert clusters.judge([block], parents, 0.7, 1 << 20).left_out == 0
    bounded = clusters.judge([block], parents, 0.7, 1 << 20, most=100)
    assert bounded.left_out == 199  # documents 101 to 299 leave out the rest of one bucket each
    assert (bounded.witnesses == -1).all()


def test_the_papers_rule_has_its_hashes() -> None:
    options = NearDuplicateOptions(rule="paper")
    assert (options.hashes, options.bands, options.rows, options.verify) == (10, 10, 1, "exact")
    with pytest.raises(InputError, match="rule paper has a shingle, bands and rows of its own"):
        NearDuplicateOptions(rule="paper", bands=3)
    one = NearDuplicates(options)
    assert one("the cat sat on the mat") is None
    assert one("on the mat the cat sat") == 0  # the same words
    assert one("a dog ran") is None


def test_prepare_without_near_duplicates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """One option of `gpt3 prepare`: the shards hold the kept documents; a second time everything is there already."""
    monkeypatch.setenv("GPT3_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    texts = corpus(random.Random(5), 10, 5)
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    one = NearDuplicates(NearDuplicateOptions())
    kept = [text for text in texts if one(text) is None]
    command = ["prepare", "--data", str(path), "--out", "shards", "--validation-fraction", "0", "--near-duplicates"]
    assert cli.main(command) == 0
    assert f"{len(texts) - len(kept):,} of {len(texts):,} documents dropped" in capsys.readouterr().err
    folder = open_shards("shards")
    decode = folder.tokenizer().decode
    assert [decode(ids) for ids in tokens_of(folder.split("train"))] == kept
    assert cli.main(command) == 0
    assert cli.main(["prepare", "--data", "shards", "--out", "again", "--near-duplicates"]) == 2
    assert "is a shard folder" in capsys.readouterr().err
