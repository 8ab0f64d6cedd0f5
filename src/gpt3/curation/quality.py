"""The stage of quality: a classifier of good against raw text, and a rule that keeps raw text by its score (App. A)."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gpt3.curation import pareto
from gpt3.curation.documents import Documents, Judgment, SourceOptions
from gpt3.curation.stages import place
from gpt3.durable import replacing
from gpt3.options import Options, option
from gpt3.progress import say

Array = np.ndarray[Any, Any]

TRUSTED = "trusted"
CLASSIFIER = "classifier"
REASON = "quality"


@dataclass(frozen=True)
class QualityOptions(Options):
    """The paper's quality filter (App. A): a classifier of good against raw text, and a rule that draws by its score."""

    good: str = TRUSTED
    """The source of good text; trusted: all trusted sources."""
    raw: str = ""
    """The source of raw text. Default: all sources that are not trusted."""
    rule: Literal["pareto", "threshold"] = "pareto"
    """pareto: keep with probability (2 - score)^-alpha; threshold: keep from --at-least on."""
    alpha: float | Literal["match"] = option(9.0, above=0)
    """Of the Pareto rule; match: so that the mean score of what is kept is that of good text."""
    at_least: float = option(0.5, least=0, most=1)
    """Score from which the threshold keeps a document."""
    samples: int = option(20_000, least=10)
    """Documents of each kind to learn from, at most."""

    def good_sources(self, sources: Sequence[SourceOptions]) -> list[bool]:
        """Of each source, whether it is of good text."""
        return [source.name == self.good or (self.good == TRUSTED and source.trusted) for source in sources]

    def raw_sources(self, sources: Sequence[SourceOptions]) -> list[bool]:
        """Of each source, whether it is of raw text."""
        return [source.name == self.raw if self.raw else not source.trusted for source in sources]


def check(quality: QualityOptions, sources: Sequence[SourceOptions]) -> Iterable[str]:
    """What is wrong with the sources for it."""
    names = [source.name for source in sources]
    if quality.good == TRUSTED and not any(source.trusted for source in sources):
        yield "no source is trusted; mark one with `trusted: true`, or name it with `good`"
    if quality.good not in (TRUSTED, *names):
        yield f"good {quality.good!r} is no source; name one of {', '.join(names)}, or trusted"
    if quality.raw and quality.raw not in names:
        yield f"raw {quality.raw!r} is no source; name one of {', '.join(names)}"
    if not quality.raw and all(source.trusted for source in sources):
        yield "all sources are trusted, so there is no raw text"


def judge(documents: Documents, wanted: QualityOptions) -> Judgment:
    """Learn what good text is, show it, and drop raw text by the rule."""
    from gpt3.curation import classifier, features

    is_good, is_raw = wanted.good_sources(documents.sources), wanted.raw_sources(documents.sources)
    good, raw = documents.of(is_good), documents.of(is_raw)
    identity = {
        "before": documents.key, "good": is_good, "raw": is_raw, "samples": wanted.samples,
        "version": [classifier.VERSION, features.VERSION],
    }  # fmt: skip
    model = place(documents.work, CLASSIFIER, identity) / "model"
    if not model.exists():
        say("quality: learning what good text is")
        rows = [documents.sample(which & documents.kept, wanted.samples) for which in (good, raw)]
        classifier.learn(*(list(documents.texts(each)) for each in rows)).save(model)
    learned = classifier.Classifier.load(model)
    scores = np.concatenate([*documents.rows("scores", identity, functools.partial(scores_by, model))])
    candidates = raw & documents.kept
    alpha = wanted.alpha
    if alpha == "match":
        alpha = pareto.matching_alpha(scores[candidates], learned.good_scores)
    if wanted.rule == "pareto":
        stays = pareto.kept(scores, pareto.draws(documents.keys, documents.seed), float(alpha))
    else:
        stays = scores >= wanted.at_least
    share, about = float(stays[candidates].mean()) if candidates.any() else 0.0, learned.about
    say(f"quality: held-out AUC {about.auc:.3f}, correlation of score and length "
        f"{about.correlation_with_length:.2f}, keeps {share:.1%} of raw text")  # fmt: skip
    say(f"quality: good words are {' '.join(about.good_words[:10])}")
    for warning in about.warnings:
        say(f"quality: warning: {warning}")
    with replacing(documents.out / CLASSIFIER) as temporary:
        shutil.copytree(model, temporary)
    edges = np.linspace(0, 1, 21)
    histograms = {n: np.histogram(scores[w], edges)[0].tolist() for n, w in (("good", good), ("raw", raw))}
    report = {"rule": wanted.rule, "alpha": alpha, "share_kept": share, "histograms": histograms}
    rule = [wanted.rule, alpha, wanted.at_least, documents.seed]
    return Judgment({REASON: candidates & ~stays}, [model.parent.name, rule], dataclasses.asdict(about) | report)


@functools.lru_cache(maxsize=1)
def _classifier(model: Path) -> Any:
    from gpt3.curation.classifier import Classifier

    return Classifier.load(model)


def scores_by(model: Path, texts: Sequence[str]) -> Array:
    """The scores that the classifier in a folder gives, (texts,) float64."""
    return np.asarray(_classifier(model).scores(texts))
