"""Clean and dirty are as a plain search over lists of words has them; N is the paper's."""

import gzip
import json
import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt3.cli import main as cli
from gpt3.contamination.overlap import measure
from gpt3.corpus import ngrams
from gpt3.corpus.benchmark_text import TaskExample, is_synthetic, ngram_length, read_examples, text_of
from gpt3.corpus.documents import Part
from gpt3.errors import InputError

SHARED = Path(os.environ.get("GPT3_TASK_FILES", Path(__file__).parents[3] / "shared" / "data"))
"""Real benchmark files, where there are any; docs/contamination.md lists them."""
WORDS = st.sampled_from(["the", "a", "Cat,", "sat.", "on", "mat;", "dog", "ran"])
TEXTS = st.lists(WORDS, max_size=24).map(" ".join)


@dataclass(frozen=True)
class ListPart(Part):
    """Documents at hand."""

    texts: tuple[str, ...]
    name: str = "list"
    size: int | None = None

    def documents(self) -> Iterator[str]:
        yield from self.texts


def plain_words(text: str) -> list[str]:
    return "".join(" " if unicodedata.category(c)[0] in "PS" else c for c in text.lower()).split()


def contains(document: list[str], gram: list[str]) -> bool:
    return any(document[i : i + len(gram)] == gram for i in range(len(document) - len(gram) + 1))


@given(st.lists(TEXTS, min_size=1, max_size=6), st.lists(TEXTS, max_size=6), st.booleans())
@settings(max_examples=80, deadline=None)
def test_verdicts_are_those_of_brute_force(texts: list[str], documents: list[str], synthetic: bool) -> None:
    task = "reversed_words" if synthetic else "task"
    found = measure([TaskExample(task, str(i), text) for i, text in enumerate(texts)], [ListPart(tuple(documents))])
    examples = [plain_words(text) for text in texts]
    lengths = sorted(map(len, examples))
    position = (len(lengths) - 1) * 0.05  # the 5th percentile, interpolated as statisticians do
    low = int(position)
    high = min(low + 1, len(lengths) - 1)
    percentile = int(lengths[low] + (position - low) * (lengths[high] - lengths[low]) + 1e-9)
    n = max(1 if synthetic else 8, min(13, percentile))
    assert found.lengths == {task: n}
    read = [plain_words(document) for document in documents]
    for verdict, example in zip(found.verdicts, examples, strict=True):
        size = n if len(example) >= n else len(example) if len(example) >= 8 and not synthetic else 0
        grams = {tuple(example[i : i + size]) for i in range(len(example) - size + 1)} if size else set()
        hit = {gram: sum(contains(d, list(gram)) for d in read) for gram in grams}
        hit = {gram: count for gram, count in hit.items() if count}
        assert (verdict.n, verdict.words, verdict.collided) == (size, len(example), len(hit))
        assert verdict.clean == (not hit)
        for collision in verdict.collisions:
            gram = tuple(collision.ngram.split(" "))
            assert hit[gram] == collision.documents
            number = int(collision.document.removeprefix("list#"))
            assert contains(read[number], list(gram))
            assert not any(contains(d, list(gram)) for d in read[:number])
            assert plain_words(collision.text) == list(gram)
    assert found.documents == len(documents)
    assert found.text_bytes == sum(len(d.encode()) for d in documents)


def test_scores_give_the_relative_difference_of_figure_4_2() -> None:
    texts = ["one two three four five six seven eight", "eight seven six five four three two one", "a b c d e f g h"]
    examples = [TaskExample("t", str(i), text) for i, text in enumerate(texts)]
    found = measure(examples, [ListPart(("He said: ONE, two three four five six seven-eight!",))])
    (row,) = found.shares({("t", "0"): 1.0, ("t", "1"): 0.0, ("t", "2"): 1.0})
    assert (row.examples, row.dirty, row.clean, row.n) == (3, 1, 2, 8)
    assert (row.all_score, row.dirty_score, row.clean_score) == (2 / 3, 1.0, 0.5)
    assert row.relative_difference == pytest.approx(-0.25)
    (bare,) = found.shares()
    assert bare.all_score is bare.relative_difference is None
    (zero,) = found.shares({("t", str(i)): 0.0 for i in range(3)})
    assert zero.relative_difference is None  # 0 of 0


def test_several_processes_find_the_same(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngrams, "POOL_BYTES", 0)
    path = tmp_path / "a.txt"
    lines = [f"document {i}: the quick brown fox jumps over the lazy dog {i % 3}" for i in range(20)]
    path.write_text("\n<|endoftext|>\n".join(lines))
    from gpt3.corpus.sources import open_sources

    parts = open_sources(str(path), part_bytes=200)[0].parts()
    assert len(parts) > 2
    examples = [TaskExample("t", str(i), f"The quick brown fox jumps over the lazy dog {i}.") for i in range(4)]
    alone, many = measure(examples, parts, workers=1), measure(examples, parts, workers=2)
    assert alone.verdicts == many.verdicts
    assert (alone.documents, alone.text_bytes) == (many.documents, many.text_bytes)
    assert [[c.documents for c in v.collisions] for v in alone.verdicts] == [[7], [7], [6], []]


PAPER_N = {
    "arc_easy": 11, "arc_challenge": 12, "piqa": 8, "boolq": 13, "triviaqa_subset": 10, "hellaswag_val": 13,
    "winogrande": 13, "lambada_openai": 13, "gpt3_synthetic/cycle_letters_in_word": 2,
    "gpt3_synthetic/mid_word_1_anagrams": 2, "gpt3_synthetic/mid_word_2_anagrams": 2,
    "gpt3_synthetic/random_insertion_in_word": 7, "gpt3_synthetic/reversed_words": 2,
}  # fmt: skip
"""Brown et al. 2020, Table C.1."""


@pytest.mark.parametrize("name", PAPER_N)
def test_n_is_that_of_table_c1_on_the_real_files(name: str) -> None:
    path = SHARED / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip("the benchmark files are not here")
    from gpt3.corpus.ngrams import words

    task = path.name.split(".")[0]
    lengths = [len(words(example.text)) for example in read_examples(task, path)]
    assert ngram_length(lengths, synthetic=is_synthetic(task)) == PAPER_N[name]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"query": "Question: Who?", "choices": ["me", "you"], "gold": 1}, "Question: Who?\nAnswer:\nyou"),
        ({"ctx": "He sat", "endings": ["down", "up"], "label": "0"}, "He sat\ndown"),
        ({"context_options": ["A so A", "A so B"], "continuation": "ran.", "gold": 1}, "A so B\nran."),
        ({"question": "Who?", "choices": ["me", "you"], "answer": 0}, "Who?\nme"),
        ({"context": "\nxu =", "completion": " ux"}, "\nxu =\n ux"),
        ({"context": "Q: x\n\nA:", "answer": "y", "aliases": ["z"]}, "Q: x\n\nA:\ny"),
        ({"text": "the end", "context": "the", "last_word": "end"}, "the end"),
    ],
)
def test_rows_become_prompt_and_right_answer(row: dict[str, object], text: str) -> None:
    assert text_of(row) == text


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"[1]", "line 2: expected an object with fields"),
        (b"{", "line 2: "),
        (b'{"a": 1}', "line 2: fields a are of no known layout"),
        (b'{"query": "q", "choices": ["a"], "gold": 3}', "line 2: its right answer is not among its choices"),
        (b'{"text": 3}', "line 2: text must be texts"),
    ],
)
def test_a_bad_row_is_named(line: bytes, what: str, tmp_path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text": "fine"}\n' + line + b"\n")
    with pytest.raises(InputError, match=what):
        list(read_examples("x", path))


def write_task(folder: Path) -> None:
    rows = [
        {"id": "seen", "text": "the ship sailed out of the harbour at dawn with all hands"},
        {"id": "new", "text": "nobody has ever written these particular words down before today"},
    ]
    folder.mkdir()
    (folder / "tale_a.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))


def test_the_command_prints_a_table_and_writes_who_collided_where(
    tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_task(tmp_path / "tasks")
    Path("text.jsonl").write_text('{"text": "x"}\n{"text": "Then: the ship sailed out of the harbour at dawn!"}\n')
    Path("scores.jsonl").write_text(
        '{"task": "tale_a", "id": "seen", "score": 1}\n{"task": "tale_a", "id": "new", "score": 0.5}\n'
    )
    asked = "contamination --data text.jsonl --data-dir tasks --tasks tale --scores scores.jsonl --out out"
    words = asked.split()
    assert cli.main(words) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == [
        "task",
        "N",
        "examples",
        "dirty",
        "clean",
        "clean",
        "%",
        *["all", "dirty", "clean", "rel.", "diff."],
    ]
    assert row.split() == ["tale_a", "10", "2", "0", "2", "100.0", "0.75", "-", "0.75", "+0.0%"]
    Path("text.jsonl").write_text('{"text": "x"}\n{"text": "The ship sailed out of the harbour at dawn -- with all"}\n')
    assert cli.main(words) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[3:] == ["1", "1", "50.0", "0.75", "1", "0.5", "-33.3%"]
    seen, new = map(json.loads, Path("out/examples.jsonl").read_text().splitlines())
    assert (seen["clean"], new["clean"], seen["n"]) == (False, True, 10)
    assert seen["collisions"][0] == {
        "ngram": "the ship sailed out of the harbour at dawn with",
        "documents": 1,
        "document": "text.jsonl#1",
        "text": "The ship sailed out of the harbour at dawn -- with",
    }
    assert json.loads(Path("out/contamination.json").read_text())["tasks"][0]["relative_difference"] == -1 / 3
    Path("out/examples.jsonl").write_text('{"text": "mine"}\n')
    assert cli.main(words) == 2
    assert "examples.jsonl exists, and gpt3 did not write it" in capsys.readouterr().err
    assert cli.main([*words, "--overwrite"]) == 0
    assert len(Path("out/examples.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "needles"),
    [
        ("--data text.txt --data-dir tasks --tasks nil", ["--tasks nil", "tale_a"]),
        ("--data text.txt --data-dir none", ["--data-dir none", "no such folder"]),
        ("--data text.txt --data-dir tasks --scores bad.jsonl", ["bad.jsonl", "line 1"]),
        ("--data text.txt --data-dir tasks --scores other.jsonl", ["other.jsonl", "none of these examples"]),
        ("--data-dir tasks", ["--data"]),
        ("--model nil --data-dir tasks", ["--model nil", "--data"]),
        ("--model nil --data text.txt --data-dir tasks", ["--model", "--data"]),
    ],
)
def test_bad_input_is_one_line(
    words: str, needles: list[str], tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_task(tmp_path / "tasks")
    Path("text.txt").write_text("some text")
    Path("bad.jsonl").write_text('{"task": "tale_a"}\n')
    Path("other.jsonl").write_text('{"task": "other", "id": "seen", "score": 1}\n')
    assert cli.main(["contamination", *words.split()]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert all(needle in error for needle in needles), error


def test_a_run_is_known_by_the_text_it_trains_on(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held-out documents are not read; data that changed since is refused."""
    import yaml

    from gpt3.contamination.overlap import find_run, parts_of_run
    from gpt3.corpus.prepare import prepare_cached
    from gpt3.corpus.shards import open_shards
    from gpt3.tokenizer.train import train_tokenizer

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPT3_CACHE", str(tmp_path / "cache"))
    texts = [f"Document {i} of a small corpus." for i in range(40)]
    Path("text.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    train_tokenizer(texts, 300).save_pretrained("tokenizer")
    shards = open_shards(prepare_cached("text.jsonl", "tokenizer", validation_fraction=0.25))
    run = tmp_path / "runs" / "a"
    (run / "model").mkdir(parents=True)
    config = {"data": ["text.jsonl"], "tokenizer": "tokenizer", "validation_fraction": 0.25, "model": "17M"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    row = {"name": "text.jsonl", "tokens": shards.manifest.splits["train"].tokens}
    (run / "data.json").write_text(json.dumps({"sources": [row]}))
    for model in (None, "a", "runs/a", str(run / "model")):
        assert find_run(model).resolve() == run
    read = [text for part in parts_of_run(run) for text in part.read()]
    assert len(read) == shards.manifest.splits["train"].documents < 40
    assert set(read) < set(texts)
    (run / "data.json").write_text(json.dumps({"sources": [row | {"tokens": 7}]}))
    with pytest.raises(InputError, match="has changed since"):
        parts_of_run(run)
    (run / "data.json").unlink()
    with pytest.raises(InputError, match=r"cannot be read"):
        parts_of_run(run)
