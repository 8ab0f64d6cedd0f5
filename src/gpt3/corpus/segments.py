"""Parts of sources turned into tokens, piece by piece: intermediate files that several processes write and a kill spares.

A part's documents become *segments* of about 32 MB of text. A segment is three files in one folder: ``PART-NUMBER.tokens``
(ids, end-of-text after each document), ``.documents`` (a record for each document) and ``.json`` (the counts), the last
written last: a segment without it does not exist. Nothing in a segment depends on who wrote it, so a new run goes on
behind the last segment of each part, with any number of workers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gpt3 import durable

if TYPE_CHECKING:
    from gpt3.corpus.documents import Part
    from gpt3.tokenizer.encoder import Encoder

SEGMENT_BYTES = 32 << 20
"""A segment is closed after this much text: what a kill costs each worker at most."""
BATCH_BYTES = 4 << 20
"""Text given to the encoder in one call: enough for its threads to share, little enough to forget the memory."""
BATCH_DOCUMENTS = 1 << 14

DOCUMENT = np.dtype([("tokens", "<u8"), ("text_bytes", "<u8"), ("key", "<u8")])
"""A document's record: its tokens, end-of-text included; UTF-8 bytes of its text; its key (see `document_key`)."""


@dataclass(frozen=True)
class Segment:
    """The counts of one segment."""

    part: int
    """Which part, counted through all sources."""
    number: int
    """Which segment of the part, from 0."""
    read: int
    """Documents read from the part, those dropped included."""
    documents: int
    """Documents kept."""
    tokens: int
    """Ids, end-of-text included."""
    text_bytes: int
    """UTF-8 bytes of the kept documents."""
    dropped_empty: int
    """Documents left out because they hold nothing but white space."""
    last: bool
    """Whether the part ends here."""

    @property
    def stem(self) -> str:
        """What the names of its files begin with; sorted, they are in reading order."""
        return f"{self.part:08d}-{self.number:06d}"


def document_key(data: bytes) -> bytes:
    """8 bytes that stand for a text, evenly spread: BLAKE2b of its UTF-8. As a little-endian number they choose its split."""
    return hashlib.blake2b(data, digest_size=8).digest()


def read_segments(folder: Path, part: int | None = None) -> list[Segment]:
    """The finished segments in `folder`, of one part or of all, in reading order."""
    pattern = "*.json" if part is None else f"{part:08d}-*.json"
    return [Segment(**json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob(pattern))]


class Text:
    """Documents of a part, read on demand in batches: keeps what a segment must know about the documents it has read."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = iter(texts)
        self.read = self.dropped_empty = 0
        self.ended = False

    def batch(self) -> tuple[list[str], np.ndarray]:
        """The next kept documents, about `BATCH_BYTES` of them, and their records (tokens still 0). Empty at the end."""
        texts: list[str] = []
        keys: list[bytes] = []
        sizes: list[int] = []
        total = 0
        for text in self._texts:
            self.read += 1
            if not text or text.isspace():
                self.dropped_empty += 1
                continue
            data = text.encode("utf-8")
            texts.append(text)
            keys.append(document_key(data))
            sizes.append(len(data))
            total += len(data)
            if total >= BATCH_BYTES or len(texts) >= BATCH_DOCUMENTS:
                break
        else:
            self.ended = True
        records = np.zeros(len(texts), dtype=DOCUMENT)
        records["text_bytes"] = sizes
        records["key"] = np.frombuffer(b"".join(keys), dtype="<u8")
        return texts, records


class SegmentWriter:
    """Turns parts into segments.

    Args:
        folder: where the segments lie.
        encoder: text to ids.
        dtype: type of a token in the files, ``"<u2"`` or ``"<u4"``.
        end_of_text: the id written behind every document.
        report: told the bytes of text done, every now and then.
    """

    def __init__(
        self, folder: Path, encoder: Encoder, dtype: str, end_of_text: int, report: Callable[[int], None]
    ) -> None:
        self.folder, self.encoder, self.report = folder, encoder, report
        self.dtype, self.end_of_text = dtype, end_of_text

    def write_part(self, part: Part, number: int) -> None:
        """Write the segments of a part that are not there yet; `number` counts parts through all sources.

        Raises:
            InputError: the part cannot be read.
        """
        done = read_segments(self.folder, number)
        if done and done[-1].last:
            return
        text = Text(part.read(sum(segment.read for segment in done)))
        while not text.ended:
            done.append(self._write(text, number, len(done)))

    def _write(self, text: Text, part: int, number: int) -> Segment:
        read, dropped_empty = text.read, text.dropped_empty
        stem = self.folder / f"{part:08d}-{number:06d}"
        records = [np.zeros(0, dtype=DOCUMENT)]
        text_bytes = 0
        with durable.replacing(stem.with_suffix(".tokens")) as temporary, open(temporary, "wb") as file:
            while text_bytes < SEGMENT_BYTES and not text.ended:
                texts, batch = text.batch()
                if texts:
                    tokens = encode(texts, batch, self.encoder, self.end_of_text)
                    file.write(tokens.astype(self.dtype).data)
                    records.append(batch)
                    size = int(batch["text_bytes"].sum())
                    text_bytes += size
                    self.report(size)
        documents = np.concatenate(records)
        durable.write_bytes(stem.with_suffix(".documents"), documents.tobytes())
        segment = Segment(
            part=part,
            number=number,
            read=text.read - read,
            documents=len(documents),
            tokens=int(documents["tokens"].sum()),
            text_bytes=text_bytes,
            dropped_empty=text.dropped_empty - dropped_empty,
            last=text.ended,
        )
        durable.write_text(stem.with_suffix(".json"), json.dumps(dataclasses.asdict(segment)))
        return segment


def encode(texts: list[str], records: np.ndarray, encoder: Encoder, end_of_text: int) -> np.ndarray:
    """Ids of `texts` with end-of-text after each, (tokens,) uint32; fills in the records' ``tokens``."""
    ids, lengths = encoder.encode_batch(texts)
    records["tokens"] = lengths + 1
    ends = np.cumsum(lengths + 1) - 1  # (documents,)
    tokens = np.full(len(ids) + len(texts), end_of_text, dtype=np.uint32)
    keep = np.ones(len(tokens), dtype=bool)
    keep[ends] = False
    tokens[keep] = ids
    return tokens


def clean(folder: Path) -> None:
    """Remove what a killed run left half-written."""
    for path in folder.glob(f"*{durable.TEMPORARY_SUFFIX}"):
        durable.discard(path)


def read_documents(folder: Path, segment: Segment) -> np.ndarray:
    """The records of a segment: (documents,) `DOCUMENT`."""
    return np.fromfile(folder / f"{segment.stem}.documents", dtype=DOCUMENT)
