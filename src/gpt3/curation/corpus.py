"""A recipe carried out: sources read once, verdicts next to their documents, what is kept as shards, and a report of it all."""

from __future__ import annotations

import dataclasses
import glob
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
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
from gpt3.corpus.page_parser import check_parser
from gpt3.corpus.prepare import Preparation
from gpt3.corpus.shards import open_shards
from gpt3.corpus.skipped import Skipped, add
from gpt3.corpus.sources import open_sources
from gpt3.curation.chunks import KeptPart, KeptSource, read_sources
from gpt3.curation.deduplication import write_kept
from gpt3.curation.documents import Documents, SourceOptions
from gpt3.curation.engines import SCHEDULER
from gpt3.curation.funnel import write_funnel
from gpt3.curation.parsed import ParsedSource
from gpt3.curation.recipe import STAGES, Recipe
from gpt3.curation.selected import ByShare, SelectedSource
from gpt3.curation.stages import Engine, digest
from gpt3.durable import TEMPORARY_SUFFIX, discard, replacing, write_text
from gpt3.errors import InputError
from gpt3.work_folder import LOCK, check_out, locked_folder

WORK, SHARDS, MIXTURE, DROPPED = "work", "shards", "mixture.yaml", "dropped"
MOST_LOST = 0.9
"""Share of a source's documents whose loss stops the work, unless it is accepted."""
SAMPLES, SHOWN = 20, 600
"""Documents of each reason in the folder of what is dropped; characters of each on the page."""

Array = np.ndarray[Any, Any]


class Corpus:
    """The work of one recipe in one folder.

    Args:
        recipe: what to do.
        out: the folder.
        opening: opens what shares the work.
        memory: bytes that comparing documents may take in one process.
        sample: share of the documents to read, by a hash of their text.
        accept_loss: whether a source may lose nearly everything.
    """

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        opening: AbstractContextManager[Engine],
        memory: int,
        sample: float = 1.0,
        accept_loss: bool = False,
    ) -> None:
        self.recipe, self.out, self.opening, self.memory = recipe, out, opening, memory
        self.sample, self.accept_loss = sample, accept_loss
        self.work = out / WORK
        self.opened = [open_sources(source.data, tokenizer=recipe.tokenizer) for source in recipe.sources]
        if recipe.html != Recipe.html:
            check_parser(recipe.html)
            self.opened = [[ParsedSource(each.name, each, recipe.html) for each in sources] for sources in self.opened]
        if sample < 1:
            share = ByShare(sample)
            self.opened = [[SelectedSource(each.name, each, share) for each in sources] for sources in self.opened]

    def run(self) -> None:
        """Make everything that is not there yet.

        Raises:
            InputError: a source cannot be read, or loses nearly everything; the folder holds something else.
        """
        if not (self.out / WORK).exists():
            check_out(self.out, overwrite=False, kind=(LOCK, SCHEDULER))
        with locked_folder(self.out):
            self._tidy()
            with self.opening as self.engine:
                self._run()
            self._tidy()  # what workers left that were killed, while others did their work

    def _tidy(self) -> None:
        """Remove what killed processes were writing."""
        for left in [*self.work.rglob(f"*{TEMPORARY_SUFFIX}"), *(self.out / SHARDS).glob(f"*/*{TEMPORARY_SUFFIX}")]:
            discard(left)

    def plan(self) -> list[list[str]]:
        """What would be read and done, in rows."""
        recipe, rows = self.recipe, [["source", "MB of text", "files in parts", "weight", "filters"]]
        for source, opened in zip(recipe.sources, self.opened, strict=True):
            sizes = [each.size_bytes() for each in opened]
            size = "unknown" if None in sizes else f"{sum(s or 0 for s in sizes) * self.sample / 1e6:,.1f}"
            parts = sum(len(each.parts()) for each in opened)
            stages = [name for name in recipe.stages if STAGES[name].trusted or not source.trusted]
            stages += ["decontaminate"] * bool(recipe.decontaminate)
            rows.append([source.name, size, f"{parts:,}", f"{source.weight:g}", ", ".join(stages) or "none"])
        return rows

    def _run(self) -> None:
        documents = self._read()
        report: dict[str, Any] = {}
        for name, stage in STAGES.items():
            if name in self.recipe.stages:
                judgment = stage.judge(documents, self.recipe.stages[name])
                documents.follow(name, judgment, None if stage.trusted else documents.trusted)
                if judgment.report is not None:
                    report[name] = judgment.report
            elif stage.makes:
                discard(self.out / stage.makes)  # of an earlier recipe
        self._check_loss(documents)
        parts = write_kept(self.work, documents.chunks, documents.kept, documents.key)
        samples = self._samples(documents)
        write_funnel(self.out, documents, self._shards(documents, parts), report, samples)

    def _read(self) -> Documents:
        flat: list[Source] = [source for sources in self.opened for source in sources]
        owners = [number for number, sources in enumerate(self.opened) for _ in sources]
        read, inputs, skips = read_sources(self.work, flat, self.engine)
        chunks = [dataclasses.replace(chunk, source=owners[chunk.source]) for chunk in read]
        found = {chunk.source for chunk in chunks}
        for number, source in enumerate(self.recipe.sources):
            if number not in found:
                raise InputError(f"source {source.name} holds no documents. Leave it out, or name other data.")
        skipped: list[dict[str, Skipped]] = [{} for _ in self.recipe.sources]
        for owner, found_of in zip(owners, skips, strict=True):
            add(skipped[owner], found_of)
        return Documents(
            self.recipe.sources,
            chunks,
            inputs,
            self.work,
            self.out,
            self.engine,
            self.memory,
            self.recipe.seed,
            skipped,
        )

    def _check_loss(self, documents: Documents) -> None:
        for number, source in enumerate(self.recipe.sources):
            mine = documents.codes[documents.owners == number]
            lost = float((mine != 0).mean())
            if lost == 1:
                raise InputError(f"source {source.name}: nothing of it is kept ({_most(mine, documents.reasons)})")
            if lost > MOST_LOST and not self.accept_loss:
                raise InputError(
                    f"source {source.name} loses {lost:.1%} of its documents ({_most(mine, documents.reasons)}). Change the "
                    "recipe, or give --accept-loss."
                )

    def _samples(self, documents: Documents) -> dict[str, list[str]]:
        """Write samples of what is dropped; the beginnings of some texts, by reason."""
        import pyarrow

        shown: dict[str, list[str]] = {}
        with replacing(self.out / DROPPED) as temporary:
            temporary.mkdir()
            for code, reason in enumerate(documents.reasons):
                rows = documents.sample(documents.codes == code, SAMPLES)
                if not len(rows):
                    continue
                texts = list(documents.texts(rows))
                shown[reason] = [text[:SHOWN] for text in texts[:5]]
                if not code:
                    continue
                file = temporary / f"{slug(reason)}.jsonl.zst"
                with pyarrow.CompressedOutputStream(pyarrow.OSFile(str(file), "wb"), "zstd") as stream:
                    for row, text in zip(rows.tolist(), texts, strict=True):
                        line: dict[str, Any] = {
                            "source": self.recipe.sources[documents.owners[row]].name,
                            "document": int(documents.places[row]),
                            "reason": reason,
                            "text": text,
                        }
                        stream.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        return shown

    def _shards(self, documents: Documents, parts: Sequence[KeptPart]) -> dict[str, Any]:
        """A shard folder for each source, and the mixture; what each holds."""
        recipe, wrapped, key = self.recipe, list[Part](parts), documents.key
        if recipe.decontaminate:
            files = find_tasks(expanded(recipe.decontaminate), None)
            index = index_benchmarks(
                example.text for name, path in files.items() for example in read_examples(name, path)
            )
            key = digest({"before": key, "benchmarks": fingerprint(index), "most": MOST_DOCUMENTS})
            folder = self.work / f"benchmarks-{key}"
            prepare_folder(folder, index, parts, self.engine.executor or self.engine.workers)
            wrapped = [CleanPart(part.name, part.size, part, folder) for part in parts]
        made: dict[str, Any] = {}
        for number, source in enumerate(recipe.sources):
            mine = tuple(part for chunk, part in zip(documents.chunks, wrapped, strict=True) if chunk.source == number)
            about: dict[str, Any] = {
                "kind": "corpus",
                "spec": " ".join(source.data),
                "licence": None,
                "funnel": documents.funnel(number),
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
        preparation = Preparation(options, sources=[kept], executor=self.engine.executor)
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
