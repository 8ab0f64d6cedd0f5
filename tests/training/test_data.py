"""Named validation sets and a mixture's data: prepared with the run's tokenizer, every document scored, mistakes named."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from gpt3.corpus.mixture import Mixture
from gpt3.corpus.shards import documents
from gpt3.corpus.sources import open_sources
from gpt3.errors import InputError
from gpt3.tokenizer.train import train_tokenizer
from gpt3.training import named_sets
from gpt3.training.data import TrainingData, cached_tokenizer, open_data
from gpt3.training.named_sets import parse_val, set_rows, trained_on, val_sets, warning
from gpt3.training.plan import shape_of
from gpt3.training.run import train


def jsonl(path: Path, texts) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return str(path)


@pytest.fixture
def shards(tiny):
    options = tiny()
    return open_data(options, shape_of(options)).shards[0]


def test_sets_are_prepared_whole_and_shard_folders_taken_as_they_are(tiny, shards, tmp_path: Path) -> None:
    texts = [f"Letter {i}.\n\nDear reader," for i in range(9)]
    mine = jsonl(tmp_path / "mine.jsonl", texts)
    sets = val_sets([f"mine={mine}", f"own-run={shards.path}"], shards)
    assert list(sets) == ["mine", "own-run"]
    backend = shards.tokenizer().backend_tokenizer
    assert [backend.decode(ids.tolist()) for ids in documents(sets["mine"])] == texts
    assert (sets["own-run"].name, len(sets["own-run"])) == ("validation", len(shards.split("validation")))
    folder = sets["mine"].shards[0][0]  # prepared with nothing held out: its train split is what is scored
    again = val_sets([f"again={folder}"], shards)["again"]
    assert (again.name, len(again)) == ("train", len(sets["mine"]))


def test_validation_documents_that_are_trained_on_are_counted(tiny, shards, text_file, tmp_path, monkeypatch) -> None:
    """As a set of texts says, duplicates among the validation documents included; and none in the run's own split."""
    backend = shards.tokenizer().backend_tokenizer
    train = shards.split("train")
    texts = [backend.decode(ids.tolist()) for ids in documents(train)]
    new = ["A text of its own.", texts[0] + ".", texts[1][:-1]]
    copies = jsonl(tmp_path / "copies.jsonl", [texts[3], *new, texts[-1], texts[3]])
    fresh = jsonl(tmp_path / "fresh.jsonl", new)
    sets = val_sets([f"copies={copies}", f"fresh={fresh}", f"own={shards.path}"], shards)
    assert trained_on(sets, [train]) == {"copies": 3, "fresh": 0, "own": 0}
    rows = set_rows(sets, [train])
    assert rows[0] == {"name": "copies", "tokens": len(sets["copies"]), "documents": 6, "trained_on": 3}
    said = "3 of the 6 documents of --val copies are also in the training text, word for word"
    assert warning(rows) == f"warning: {said}"
    assert warning(rows[1:]) is None
    monkeypatch.setattr(named_sets, "MOST_SEARCHED", len(train) - 1)
    assert trained_on(sets, [train]) is None
    assert warning(set_rows(sets, [train])) is None


def test_a_run_warns_of_them_and_writes_it_down(tiny, text_file, tmp_path, capsys) -> None:
    texts = [json.loads(line)["text"] for line in text_file.read_text(encoding="utf-8").splitlines()]
    mine = jsonl(tmp_path / "mine.jsonl", [*texts, "Another."])
    result = train(tiny(val=[f"mine={mine}"], steps=1))
    content = json.loads((result.folder / "data.json").read_text(encoding="utf-8"))
    (row,), count = content["validation"], content["sources"][0]["documents"]
    assert count < len(texts)  # the run's own held-out documents are not trained on
    assert (row["name"], row["documents"], row["trained_on"]) == ("mine", 101, count)
    said = f"{count} of the 101 documents of --val mine are also in the training text"
    assert capsys.readouterr().err.count(said) == 1


def test_a_set_of_another_tokenizer_is_refused(tiny, shards) -> None:
    options = tiny(tokenizer="own:310")
    other = open_data(options, shape_of(options)).shards[0]
    with pytest.raises(InputError, match=r"of the run, for --val other=.* is not the tokenizer that made the shards"):
        val_sets([f"other={other.path}"], shards)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (["wiki"], "--val 'wiki' must be NAME=SOURCE"),
        (["a="], "--val 'a=' must be NAME=SOURCE"),
        (["A/b=x"], "the name 'A/b' may hold"),
        (["a=x", "a=y"], "--val 'a=y': a is the name of x already"),
    ],
)
def test_specs_that_say_nothing_are_named(specs, message) -> None:
    with pytest.raises(InputError, match=message):
        parse_val(specs)


def open_mixture(options, path: Path) -> TrainingData:
    options = dataclasses.replace(options, data=["wiki"], mixture=str(path))
    return open_data(options, shape_of(options))


@pytest.fixture
def mixture_file(tmp_path: Path, text_file: Path) -> Path:
    letters = jsonl(tmp_path / "letters.jsonl", [f"Letter {i}. " + "Dear reader, it rains. " * 9 for i in range(40)])
    path = tmp_path / "mixture.yaml"
    path.write_text(
        f"- {{name: wiki, data: '{text_file}', weight: 3}}\n- {{name: letters, data: ['{letters}'], weight: 1}}"
    )
    return path


def test_a_mixture_has_one_tokenizer_and_says_what_it_gives(tiny, mixture_file: Path) -> None:
    data = open_mixture(tiny(), mixture_file)
    assert len({folder.manifest.tokenizer_sha256 for folder in data.shards}) == 1
    vocabulary = data.tokenizer.get_vocab()
    assert "Ġreader" in vocabulary  # trained on both sources
    mixture = data.mixture(32, seed=1)
    assert isinstance(mixture, Mixture)
    assert mixture.batch(range(6)).shape == (6, 33)
    described = data.sources(mixture, 4 * mixture.block)
    assert [(s["name"], s["weight"], s["share"]) for s in described] == [("wiki", 0.75, 0.75), ("letters", 0.25, 0.25)]
    letters = data.shards[1].split("train")
    assert described[1] == {
        "name": "letters", "tokens": len(letters), "documents": letters.documents, "weight": 0.25, "share": 0.25,
        "epochs": mixture.block / (len(letters) // 32),
    }  # fmt: skip
    assert json.loads(json.dumps(described)) == described
    assert data.tokens == sum(s["tokens"] for s in described)
    held_out, named = data.held_out, data.validation
    assert named.pop("") is held_out
    assert list(named) == ["wiki", "letters"]
    whole = np.concatenate([split.read(0, len(split)) for split in named.values()])
    np.testing.assert_array_equal(held_out.read(0, len(held_out)), whole)


def test_a_mixture_of_shard_folders_takes_their_tokenizer_and_refuses_two(tiny, shards, mixture_file: Path) -> None:
    other = tiny(tokenizer="own:310")
    another = open_data(other, shape_of(other)).shards[0]
    text = f"- {{name: a, data: '{shards.path}', weight: 1}}\n- {{name: b, data: wiki, weight: 1}}"
    mixture_file.write_text(text.replace("data: wiki", f"data: '{mixture_file.parent / 'letters.jsonl'}'"))
    with pytest.raises(InputError, match=r"--tokenizer own:310 is for text: the shards in .* have one. Leave it out"):
        open_mixture(other, mixture_file)
    data = open_mixture(tiny(tokenizer=None), mixture_file)
    assert data.shards[0].path == shards.path
    assert data.shards[1].manifest.tokenizer_sha256 == shards.manifest.tokenizer_sha256
    mixture_file.write_text(text.replace("data: wiki", f"data: '{another.path}'"))
    with pytest.raises(InputError, match="is not the tokenizer that made the shards"):
        open_mixture(tiny(tokenizer=None), mixture_file)


def test_a_source_too_short_for_a_window_is_named(tiny, mixture_file: Path) -> None:
    data = open_mixture(tiny(), mixture_file)
    with pytest.raises(InputError, match="source letters of the mixture: split 'train' has"):
        data.mixture(20_000, seed=1)


def test_a_sampled_tokenizer_is_trained_on_the_same_share_of_each_document(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GPT3_CACHE", str(tmp_path / "cache"))
    texts = ["abcd" * 200 + "wxyz" * 200, "efgh" * 100 + "wxyz" * 100]  # the second halves would decide the merges
    (tmp_path / "own.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    sources = open_sources(str(tmp_path / "own.jsonl"))
    size = sum(source.size_bytes() or 0 for source in sources)
    whole, half, more = (cached_tokenizer(sources, 262, sample=sample) for sample in (None, size // 2, size))
    assert whole == more != half

    def merges(folder: Path) -> object:
        return json.loads((folder / "tokenizer.json").read_text())["model"]["merges"]

    expected = train_tokenizer([text[: len(text) // 2] for text in texts], 262)
    assert merges(half) == json.loads(expected.backend_tokenizer.to_str())["model"]["merges"] != merges(whole)
