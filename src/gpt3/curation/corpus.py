"""A recipe carried out: sources read once, verdicts next to their documents, what is kept as shards, and a report of it all."""

from __future__ import annotations

import dataclasses
import glob
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpt3.corpus.benchmark_text import (
    MOST_DOCUMENTS,
    CleanPart,
    find_tasks,
    fingerprint,
    index_benchmarks,
    prepare_folder,
    read_examples,
)
from gpt3.corpus.documents import Part, Source
from gpt3.corpus.options import PrepareOptions
from gpt3.corpus.prepare import Preparation
from gpt3.corpus.shards import open_shards
from gpt3.corpus.sources import open_sources
from gpt3.curation import heuristics, language, pareto, statistics
from gpt3.curation.chunks import Chunk, KeptPart, KeptSource, over_chunks, read_sources
from gpt3.curation.deduplication import Duplicates, find_duplicates, write_kept
from gpt3.curation.funnel import write_funnel
from gpt3.curation.recipe import TRUSTED, Recipe, SourceOptions
from gpt3.curation.selected import ByShare, SelectedSource
from gpt3.curation.stages import Engine, digest, place
from gpt3.curation.verdicts import RowWriter, ScoreWriter, Verdicts, texts_of
from gpt3.durable import TEMPORARY_SUFFIX, discard, replacing, write_text
from gpt3.errors import InputError
from gpt3.progress import say
from gpt3.work_folder import LOCK, check_out, locked_folder

WORK, SHARDS, MIXTURE, DUPLICATES, DROPPED, CLASSIFIER = (
    "work", "shards", "mixture.yaml", "duplicates.parquet", "dropped", "classifier",
)  # fmt: skip
MOST_LOST = 0.9
"""Share of a source's documents whose loss stops the work, unless it is accepted."""
SAMPLES, SHOWN = 20, 600
"""Documents of each reason in the folder of what is dropped; characters of each on the page."""
NEAR, QUALITY = "near-duplicate", "quality"

Array = np.ndarray[Any, Any]


class Corpus:
    """The work of one recipe in one folder.

    Args:
        recipe: what to do.
        out: the folder.
        engine: shares the work.
        memory: bytes that comparing documents may take in one process.
        sample: share of the documents to read, by a hash of their text.
        accept_loss: whether a source may lose nearly everything.
    """

    def __init__(
        self, recipe: Recipe, out: Path, engine: Engine, memory: int, sample: float = 1.0, accept_loss: bool = False
    ) -> None:
        self.recipe, self.out, self.engine, self.memory = recipe, out, engine, memory
        self.sample, self.accept_loss = sample, accept_loss
        self.work = out / WORK
        self.opened = [open_sources(source.data, tokenizer=recipe.tokenizer) for source in recipe.sources]
        if sample < 1:
            share = ByShare(sample)
            self.opened = [[SelectedSource(each.name, each, share) for each in sources] for sources in self.opened]

    def run(self) -> None:
        """Make everything that is not there yet.

        Raises:
            InputError: a source cannot be read, or loses nearly everything; the folder holds something else.
        """
        if not (self.out / WORK).exists():
            check_out(self.out, overwrite=False, kind=(LOCK,))
        with locked_folder(self.out):
            for left in [*self.work.rglob(f"*{TEMPORARY_SUFFIX}"), *(self.out / SHARDS).glob(f"*/*{TEMPORARY_SUFFIX}")]:
                discard(left)
            self._run()

    def plan(self) -> list[list[str]]:
        """What would be read and done, in rows."""
        recipe, rows = self.recipe, [["source", "MB of text", "files in parts", "weight", "filters"]]
        for source, opened in zip(recipe.sources, self.opened, strict=True):
            sizes = [each.size_bytes() for each in opened]
            size = "unknown" if None in sizes else f"{sum(s or 0 for s in sizes) * self.sample / 1e6:,.1f}"
            parts = sum(len(each.parts()) for each in opened)
            stages = [name for name, on in (("heuristics", recipe.heuristics), ("quality", recipe.quality)) if on]
            stages = [] if source.trusted else stages
            stages += ["near-duplicates"] * (recipe.near_duplicates is not None) + ["decontaminate"] * bool(
                recipe.decontaminate
            )
            rows.append([source.name, size, f"{parts:,}", f"{source.weight:g}", ", ".join(stages) or "none"])
        return rows

    def _run(self) -> None:
        flat: list[Source] = [source for sources in self.opened for source in sources]
        owners = [number for number, sources in enumerate(self.opened) for _ in sources]
        read, inputs = read_sources(self.work, flat, self.engine)
        chunks = [dataclasses.replace(chunk, source=owners[chunk.source]) for chunk in read]
        trusted = np.repeat([self.recipe.sources[c.source].trusted for c in chunks], [c.documents for c in chunks])
        sizes, keys = (
            np.concatenate([np.zeros(0, np.uint64), *map(what, chunks)]) for what in (Chunk.sizes, Chunk.keys)
        )
        verdicts = Verdicts(["kept"], np.zeros(len(trusted), dtype=np.int16), digest({"inputs": inputs}))
        extra: dict[str, Any] = {}
        if self.recipe.language:
            self._language(chunks, inputs, trusted, verdicts)
        if self.recipe.heuristics:
            self._heuristics(chunks, inputs, trusted, verdicts)
        if self.recipe.quality:
            extra["quality"] = self._quality(chunks, inputs, keys, verdicts)
        duplicates = self._near_duplicates(chunks, inputs, verdicts) if self.recipe.near_duplicates else None
        self._check_loss(chunks, verdicts)
        parts = write_kept(self.work, chunks, [verdicts.codes == 0], verdicts.key)
        samples = self._outputs(chunks, verdicts, duplicates, keys)
        shards = self._shards(chunks, parts, verdicts)
        write_funnel(
            self.out, [source.name for source in self.recipe.sources], chunks, verdicts.reasons, verdicts.codes, sizes,
            duplicates, shards, extra, samples,
        )  # fmt: skip

    def _language(self, chunks: Sequence[Chunk], inputs: str, trusted: Array, verdicts: Verdicts) -> None:
        wanted = self.recipe.language
        assert wanted is not None
        folder = place(self.work, "languages", {"inputs": inputs, "version": language.VERSION})
        over_chunks(folder, RowWriter, (language.languages,), chunks, [".npy"], self.engine, "languages")
        found = np.concatenate([np.load(folder / f"{c.name}.npy") for c in chunks])
        kept = np.isin(found["language"], [code.encode() for code in wanted.keep])
        verdicts.drop(~kept & ~trusted, "other language")
        verdicts.drop((found["probability"] < wanted.at_least) & ~trusted, "language unsure")
        verdicts.key = digest({"before": verdicts.key, "keep": wanted.keep, "at_least": wanted.at_least})

    def _heuristics(self, chunks: Sequence[Chunk], inputs: str, trusted: Array, verdicts: Verdicts) -> None:
        folder = place(self.work, "figures", {"inputs": inputs, "version": statistics.VERSION})
        over_chunks(folder, RowWriter, (statistics.measure,), chunks, [".npy"], self.engine, "figures")
        rules = self.recipe.heuristics
        broken = np.concatenate([heuristics.broken(rules, np.load(folder / f"{c.name}.npy")) for c in chunks])
        for number, rule in enumerate(rules):
            verdicts.drop((broken == number) & ~trusted, rule.name)
        verdicts.key = digest({"before": verdicts.key, "rules": [rule.name for rule in rules]})

    def _quality(self, chunks: Sequence[Chunk], inputs: str, keys: Array, verdicts: Verdicts) -> dict[str, Any]:
        """Learn, show, apply."""
        from gpt3.curation import classifier, features

        wanted = self.recipe.quality
        assert wanted is not None
        sources = self.recipe.sources
        is_good = [s.name == wanted.good or (wanted.good == TRUSTED and s.trusted) for s in sources]
        is_raw = [s.name == wanted.raw if wanted.raw else not s.trusted for s in sources]
        counts = [c.documents for c in chunks]
        good, raw = (np.repeat([which[c.source] for c in chunks], counts) for which in (is_good, is_raw))
        identity = {
            "before": verdicts.key, "good": is_good, "raw": is_raw, "samples": wanted.samples,
            "version": [classifier.VERSION, features.VERSION],
        }  # fmt: skip
        model = place(self.work, CLASSIFIER, identity) / "model"
        if not model.exists():
            say("quality: learning what good text is")
            texts = [self._chosen(chunks, keys, which & (verdicts.codes == 0), wanted.samples) for which in (good, raw)]
            classifier.learn(*texts).save(model)
        learned = classifier.Classifier.load(model)
        folder = place(self.work, "scores", identity | {"inputs": inputs})
        over_chunks(folder, ScoreWriter, (model,), chunks, [".npy"], self.engine, "scores")
        scores = np.concatenate([np.load(folder / f"{c.name}.npy") for c in chunks])
        candidates = raw & (verdicts.codes == 0)
        alpha = wanted.alpha
        if alpha == "match":
            alpha = pareto.matching_alpha(scores[candidates], learned.good_scores)
        if wanted.rule == "pareto":
            stays = pareto.kept(scores, pareto.draws(keys, self.recipe.seed), float(alpha))
        else:
            stays = scores >= wanted.at_least
        share = float(stays[candidates].mean()) if candidates.any() else 0.0
        about = dataclasses.asdict(learned.about)
        say(f"quality: held-out AUC {learned.about.auc:.3f}, correlation of score and length "
            f"{learned.about.correlation_with_length:.2f}, keeps {share:.1%} of raw text")  # fmt: skip
        say(f"quality: good words are {' '.join(learned.about.good_words[:10])}")
        for warning in learned.about.warnings:
            say(f"quality: warning: {warning}")
        verdicts.drop(candidates & ~stays, QUALITY)
        rule = [wanted.rule, alpha, wanted.at_least, self.recipe.seed]
        verdicts.key = digest({"before": verdicts.key, "model": model.parent.name, "rule": rule})
        with replacing(self.out / CLASSIFIER) as temporary:
            shutil.copytree(model, temporary)
        edges = np.linspace(0, 1, 21)
        histograms = {n: np.histogram(scores[w], edges)[0].tolist() for n, w in (("good", good), ("raw", raw))}
        return about | {"rule": wanted.rule, "alpha": alpha, "share_kept": share, "histograms": histograms}

    def _chosen(self, chunks: Sequence[Chunk], keys: Array, which: Array, most: int) -> list[str]:
        """The texts of the documents of the smallest keys, in the order of the keys."""
        (rows,) = np.nonzero(which)
        rows = rows[np.argsort(keys[rows], kind="stable")[:most]]
        return list(texts_of(chunks, rows))

    def _near_duplicates(self, chunks: Sequence[Chunk], inputs: str, verdicts: Verdicts) -> Duplicates:
        ends = np.cumsum([c.documents for c in chunks])
        alive = [verdicts.codes[end - c.documents : end] == 0 for c, end in zip(chunks, ends, strict=True)]
        options = self.recipe.near_duplicates
        assert options is not None
        inputs = digest({"inputs": inputs, "owners": [c.source for c in chunks]})
        if options.rule == "paper":
            say(
                "near_duplicates: the paper's rule compares every two documents with a word's hash in common, up to a bound"
            )
        found = find_duplicates(self.work, chunks, inputs, options, self.engine, alive, verdicts.key, self.memory)
        if found.left_out:
            say(
                f"near_duplicates: {found.left_out:,} comparisons left out in huge clusters; some near-duplicates may remain"
            )
        verdicts.drop(found.dropped, NEAR)
        verdicts.key = digest({"before": verdicts.key, "near_duplicates": found.key})
        return found

    def _check_loss(self, chunks: Sequence[Chunk], verdicts: Verdicts) -> None:
        owners = np.repeat([c.source for c in chunks], [c.documents for c in chunks])
        for number, source in enumerate(self.recipe.sources):
            mine = verdicts.codes[owners == number]
            lost = float((mine != 0).mean()) if len(mine) else 1.0
            if lost == 1:
                raise InputError(f"source {source.name}: nothing of it is kept ({_most(mine, verdicts.reasons)})")
            if lost > MOST_LOST and not self.accept_loss:
                raise InputError(
                    f"source {source.name} loses {lost:.1%} of its documents ({_most(mine, verdicts.reasons)}). Change the "
                    "recipe, or give --accept-loss."
                )

    def _outputs(
        self, chunks: Sequence[Chunk], verdicts: Verdicts, duplicates: Duplicates | None, keys: Array
    ) -> dict[str, list[str]]:
        """duplicates.parquet and samples of what is dropped; the beginnings of some, by reason."""
        import pyarrow
        import pyarrow.parquet

        counts = [c.documents for c in chunks]
        owners = np.repeat([c.source for c in chunks], counts)
        names = np.array([source.name for source in self.recipe.sources])
        first = np.searchsorted(owners, np.arange(len(names)))  # sources are in order
        numbers = np.arange(len(owners)) - first[owners] if len(owners) else owners
        if duplicates is not None:
            (dropped,) = np.nonzero(verdicts.codes == verdicts.reasons.index(NEAR))
            kept = duplicates.witnesses[dropped]
            table = pyarrow.table(
                {
                    "dropped_source": names[owners[dropped]], "dropped_document": numbers[dropped],
                    "kept_source": names[owners[kept]], "kept_document": numbers[kept],
                    "similarity": duplicates.similarities[dropped],
                }
            )  # fmt: skip
            with replacing(self.out / DUPLICATES) as temporary:
                pyarrow.parquet.write_table(table, temporary)
        shown: dict[str, list[str]] = {}
        with replacing(self.out / DROPPED) as temporary:
            temporary.mkdir()
            for code, reason in enumerate(verdicts.reasons):
                (rows,) = np.nonzero(verdicts.codes == code)
                rows = rows[np.argsort(keys[rows], kind="stable")[:SAMPLES]]
                shown[reason] = [text[:SHOWN] for text in texts_of(chunks, rows[:5])]
                if not code or not len(rows):
                    continue
                file = temporary / f"{slug(reason)}.jsonl.zst"
                with pyarrow.CompressedOutputStream(pyarrow.OSFile(str(file), "wb"), "zstd") as stream:
                    for row, text in zip(rows.tolist(), texts_of(chunks, rows), strict=True):
                        line: dict[str, Any] = {
                            "source": names[owners[row]],
                            "document": int(numbers[row]),
                            "reason": reason,
                        }
                        stream.write(json.dumps({**line, "text": text}, ensure_ascii=False).encode() + b"\n")
        return {reason: texts for reason, texts in shown.items() if texts}

    def _shards(self, chunks: Sequence[Chunk], parts: Sequence[KeptPart], verdicts: Verdicts) -> dict[str, Any]:
        """A shard folder for each source, and the mixture; what each holds."""
        recipe, wrapped, key = self.recipe, list[Part](parts), verdicts.key
        if recipe.decontaminate:
            files = find_tasks(expanded(recipe.decontaminate), None)
            index = index_benchmarks(
                example.text for name, path in files.items() for example in read_examples(name, path)
            )
            key = digest({"before": key, "benchmarks": fingerprint(index), "most": MOST_DOCUMENTS})
            folder = self.work / f"benchmarks-{key}"
            prepare_folder(folder, index, parts, self.engine.workers)
            wrapped = [CleanPart(part.name, part.size, part, folder) for part in parts]
        made: dict[str, Any] = {}
        for number, source in enumerate(recipe.sources):
            mine = tuple(part for chunk, part in zip(chunks, wrapped, strict=True) if chunk.source == number)
            about: dict[str, Any] = {
                "kind": "corpus",
                "spec": " ".join(source.data),
                "licence": None,
                "of": [s.describe() for s in self.opened[number]],
            }
            kept = KeptSource(source.name, f"{key}-{number}", mine, about)
            made[source.name] = self._prepare(source, kept)
        lines = [
            {"name": s.name, "data": (self.out / SHARDS / s.name).as_posix(), "weight": s.weight}
            for s in recipe.sources
        ]
        write_text(self.out / MIXTURE, "".join(f"- {json.dumps(line)}\n" for line in lines))
        return made

    def _prepare(self, source: SourceOptions, kept: KeptSource) -> dict[str, Any]:
        out, recipe = self.out / SHARDS / source.name, self.recipe
        options = PrepareOptions(
            [source.name], out=str(out), tokenizer=recipe.tokenizer, validation_fraction=recipe.validation_fraction,
            workers=self.engine.workers,
        )  # fmt: skip
        preparation = Preparation(options, sources=[kept])
        same = {**preparation.identity}
        working = out.with_name(f"{out.name}.preparing") / "preparation.json"
        if out.exists() and open_shards(out).manifest.preparation != same:
            discard(out)  # of an earlier recipe
        if working.exists() and json.loads(working.read_text(encoding="utf-8")) != same:
            discard(working.parent)
        preparation.run(out)
        splits = open_shards(out).manifest.splits.values()
        return {name: sum(getattr(split, name) for split in splits) for name in ("documents", "text_bytes", "tokens")}


def slug(reason: str) -> str:
    """A reason as a file's name."""
    named = reason.replace("<", "-below-").replace(">", "-above-")
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in named)


def expanded(patterns: Sequence[str]) -> list[str]:
    """The files that paths and patterns name.

    Raises:
        InputError: a pattern matches none.
    """
    found: list[str] = []
    for pattern in patterns:
        matches = sorted(glob.glob(pattern)) if glob.has_magic(pattern) else [pattern]  # noqa: PTH207
        if not matches:
            raise InputError(f"decontaminate: {pattern} matches no file")
        found += matches
    return found


def _most(codes: Array, reasons: Sequence[str]) -> str:
    """The reasons that cost most."""
    counts = np.bincount(codes, minlength=len(reasons))[1:]
    order = np.argsort(-counts, kind="stable")[:3]
    return ", ".join(f"{reasons[i + 1]} {counts[i]:,}" for i in order if counts[i]) or "it holds no documents"
