"""Rows out of local files and out of data sets of the hub, each with its number for messages."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gpt3.corpus import formats
from gpt3.corpus.compression import open_stream
from gpt3.corpus.documents import RecordError
from gpt3.corpus.file_parts import explained, format_of
from gpt3.corpus.files import find_files
from gpt3.corpus.json_values import JsonValues
from gpt3.errors import InputError, one_line
from gpt3.finetuning.catalogue import CATALOGUE, WIKI_QA, Row

READABLE = ".json .jsonl .ndjson .csv .tsv .parquet, all but .parquet also with .gz .xz .bz2 .zst"
SOURCES = f"{WIKI_QA}, {', '.join(CATALOGUE)} and hf:owner/name"
REMEDY = f"give local files (--data PATH) or the embedded questions (--data {WIKI_QA})"


def file_rows(pattern: str) -> Iterator[tuple[str, Row]]:
    """Rows of a file, of a folder's files or of a pattern's, as (place, row); the place is ``PATH: line N``.

    Raises:
        InputError: nothing there, nothing readable in it, damaged, or not UTF-8; the line is named.
    """
    paths, _ = find_files(pattern, SOURCES)
    paths = [path for path in paths if format_of(path) not in formats.WITHOUT_FIELDS]
    if not paths:
        raise InputError(f"{pattern}: text files hold no conversations; readable are {READABLE}")
    empty = True
    for path in paths:
        unit = "row" if format_of(path) == ".parquet" else "line"
        with explained(path):
            for number, row in read(path):
                empty = False
                if not isinstance(row, Mapping):
                    raise RecordError(number, f"expected an object with a conversation, found {formats.kind_of(row)}")
                yield f"{path}: {unit} {number}", row
    if empty:
        raise InputError(f"{pattern}: no rows in it")


def read(path: Path) -> Iterator[tuple[int, Any]]:
    """(number from 1, row) of one file."""
    kind = format_of(path)
    if kind == ".parquet":
        import pyarrow.parquet

        try:
            batches = pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=1024)
            yield from enumerate(itertools.chain.from_iterable(batch.to_pylist() for batch in batches), 1)
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise RecordError(0, f"not a parquet file ({' '.join(str(error).split())[:150]})") from None
        return
    with open_stream(path) as file:
        if kind == ".json":
            yield from JsonValues(file, formats.RECORD_BYTES)
        elif kind in (".jsonl", ".ndjson"):
            for line, data in enumerate(file, 1):
                data = data.removeprefix(formats.BYTE_ORDER_MARK) if line == 1 else data
                if data.strip():
                    yield line, formats.load_line(data, line)
        else:
            table = formats.csv_rows(file, "\t" if kind == ".tsv" else ",")
            header = next(table, (0, []))[1]
            for line, row in table:
                if row and len(row) != len(header):
                    raise RecordError(line, f"{len(row)} columns where the header has {len(header)}")
                if row:
                    yield line, dict(zip(header, row, strict=True))


def hub_rows(spec: str) -> Iterator[tuple[str, Row]]:
    """Rows of ``hf:OWNER/NAME[:CONFIG][:SPLIT]``, streamed at one revision, as (place, row).

    Failures of the network are waited out; no row is lost or comes twice.

    Raises:
        InputError: no such data set, configuration or split; no access; no network after all tries.
    """
    from gpt3.corpus import hub

    repository, config, split, field = hub.parse(spec)
    if field is not None:
        raise InputError(f"{spec}: conversations have no text column; leave out {':' + field!r}")
    info = hub.retried(lambda: hub.dataset_info(repository), spec, REMEDY)
    dataset = hub.Dataset(repository, info.sha, config, split)
    wait = hub.Waiting(spec, REMEDY)
    done = 0
    while True:
        try:
            with hub.without_torch():
                builder = hub.open_builder(dataset)
                if builder.info.splits is not None and split not in builder.info.splits:
                    raise InputError(f"{spec}: no split {split!r}; there are {', '.join(builder.info.splits)}")
                stream = builder.as_streaming_dataset(split=split)
            for row in itertools.islice(stream, done, None):
                done += 1
                wait.failures = 0
                yield f"{spec}: row {done}", row
            return
        except GeneratorExit:
            raise
        except (ValueError, FileNotFoundError) as error:  # `datasets` on an unknown configuration, split or file
            if isinstance(error, InputError) or hub.is_passing(error):
                wait.after(error)
            else:
                raise InputError(f"{spec}: {one_line(error)}") from None
        except Exception as error:
            wait.after(error)
