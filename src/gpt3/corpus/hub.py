"""Datasets of the Hugging Face Hub as sources: streamed, pinned to one revision, with retries that lose and repeat nothing."""

from __future__ import annotations

import functools
import hashlib
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from gpt3.corpus.documents import Part, Source, not_blank
from gpt3.corpus.formats import STRING, RecordError, pick_field
from gpt3.corpus.records import PARQUET, RATIOS, Row, open_parquet, parquet_records
from gpt3.errors import InputError, one_line
from gpt3.progress import say

FINEWEB = "HuggingFaceFW/fineweb"
FINEWEB_CONFIG = "sample-10BT"

ATTEMPTS = 6
"""Tries without any progress before giving up. `datasets` and `huggingface_hub` retry inside each of them, too."""

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before the second try, doubled from try to try; and at most."""

PARQUET_RATIO = 1.6
"""Bytes of text in a byte of a parquet file, roughly (measured: 1.6 for novels under snappy)."""

REQUEST_BYTES = 16 * 1024 * 1024
"""Bytes of a column fetched at a time, less if a row group holds less."""

REMEDY = "give local files (--data PATH)"

MANY_FILES = 1000
"""Datasets of more files than this are not cut within files: the files are parts enough."""

T = TypeVar("T")


@dataclass(frozen=True)
class Dataset:
    """One split of one configuration of a dataset, at one revision.

    Attributes:
        repository: ``"owner/name"``.
        revision: the commit's sha, so that all workers and all retries read the same data.
        config: configuration; None if the dataset has only one.
        split: e.g. ``"train"``.
        field: the column that holds the text; "" while it is not known.
        parquet: whether the files are parquet, of which the column alone is read, by row groups.
    """

    repository: str
    revision: str
    config: str | None
    split: str
    field: str = ""
    parquet: bool = False

    def stream(self, columns: Sequence[str] | None = None) -> Any:
        """The rows as an iterable of `datasets`, with all columns or some."""
        with without_torch():
            stream = open_builder(self).as_streaming_dataset(split=self.split)
            return stream if columns is None else stream.select_columns(list(columns))


def parse(spec: str) -> tuple[str, str | None, str, str | None]:
    """Cut ``hf:owner/name[:config][:split][:field]`` or ``fineweb[:config]`` into (repository, config, split, field).

    A part left empty keeps its default: ``hf:owner/name::test`` is the split "test" of the only configuration.
    """
    kind, _, rest = spec.partition(":")
    if kind == "fineweb":
        rest = f"{FINEWEB}:{rest or FINEWEB_CONFIG}"
    repository, *more = rest.split(":")
    if not repository or len(more) > 3 or repository.count("/") > 1:
        raise InputError(f"{spec}: a dataset of the Hub is named hf:owner/name[:config][:split][:field]")
    config, split, field = [*more, "", "", ""][:3]
    return repository, config or None, split or "train", field or None


def open_dataset(spec: str, part_bytes: int) -> HubSource:
    """Find a dataset on the Hub, its revision, its files and the column of its text.

    Raises:
        InputError: no such dataset, configuration, split or column; no access; no network after all retries.
    """
    repository, config, split, field = parse(spec)
    info = retried(lambda: dataset_info(repository), spec)
    dataset = Dataset(repository, info.sha, config, split)
    dataset, files = retried(lambda: _look_up(dataset, field), spec)
    licence = getattr(info.card_data, "license", None) if info.card_data else None
    return HubSource(spec, dataset, tuple(files), str(licence) if licence else None, part_bytes)


def read_rows(spec: str) -> Iterator[tuple[str, Row]]:
    """The rows of ``hf:OWNER/NAME[:CONFIG][:SPLIT]``, streamed at one revision, as (place, row).

    Raises:
        InputError: no such dataset, configuration or split; no access; no network after all retries.
    """
    repository, config, split, field = parse(spec)
    if field is not None:
        raise InputError(f"{spec}: all columns of the rows are read; leave out {':' + field!r}")
    dataset = Dataset(repository, retried(lambda: dataset_info(repository), spec).sha, config, split)

    for number, row in enumerate(resuming(lambda done: itertools.islice(dataset.stream(), done, None), spec), 1):
        yield f"{spec}: row {number}", row


def dataset_info(repository: str, revision: str | None = None) -> Any:
    """The Hub's record of a dataset, at a branch or commit (None: main): its commit and card."""
    import huggingface_hub

    return huggingface_hub.HfApi().dataset_info(repository, revision=revision, timeout=30)


def _look_up(dataset: Dataset, field: str | None) -> tuple[Dataset, list[tuple[str, int | None]]]:
    """Complete `dataset` by its column, and list its files as (address, bytes)."""
    from huggingface_hub import HfFileSystem

    stream = dataset.stream()
    features = stream.features
    if features is None:  # JSON lines and the like: known from their first records only
        with without_torch():
            features = stream._resolve_features().features or {}
    kinds = {name: str(getattr(kind, "dtype", type(kind).__name__)) for name, kind in features.items()}
    column = pick_field(
        {n: STRING if k in ("string", "large_string") else k for n, k in kinds.items()},
        field,
        spec="hf:OWNER/NAME:CONFIG:SPLIT:",
    )
    system = HfFileSystem()
    addresses = [str(address) for address in open_builder(dataset).config.data_files[dataset.split]]
    files = [(address, system.info(address).get("size")) for address in addresses]
    return replace(dataset, field=column, parquet=all(each.endswith(PARQUET) for each in addresses)), files


@functools.lru_cache(maxsize=16)
def open_builder(dataset: Dataset) -> Any:
    """The `datasets` builder of a dataset: one per process, as it asks the Hub for the list of files."""
    import datasets

    return datasets.load_dataset_builder(dataset.repository, dataset.config, revision=dataset.revision)


@contextmanager
def without_torch() -> Iterator[None]:
    """Keep `datasets` from importing torch for every stream it makes: seconds and hundreds of megabytes in each worker."""
    import datasets

    available = datasets.config.TORCH_AVAILABLE
    datasets.config.TORCH_AVAILABLE = "torch" in sys.modules
    try:
        yield
    finally:
        datasets.config.TORCH_AVAILABLE = available


# ---- what can go wrong


def resuming(read: Callable[[int], Iterator[T]], spec: str, remedy: str = REMEDY) -> Iterator[T]:
    """Yield what `read` yields; after a failure of the network wait, and continue after the last item.

    Args:
        read: yields the items but for the first N.
        spec: what is read, for messages.
        remedy: what to do without the Hub.

    Raises:
        InputError: the Hub refuses, or does not answer at all.
    """
    done = failures = 0
    while True:
        try:
            for item in read(done):
                done, failures = done + 1, 0
                yield item
            return
        except Exception as error:
            if not is_passing(error):
                meaning = explained(error, spec)
                raise meaning from (error.__cause__ if meaning is error else None)
            failures += 1
            if failures >= ATTEMPTS:
                raise InputError(
                    f"{spec}: the Hub does not answer after {ATTEMPTS} tries ({one_line(error)}); check the network, or {remedy}"
                ) from None
            seconds = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (failures - 1))
            say(f"{spec}: {one_line(error)}; next try in {seconds:.0f} s")
            time.sleep(seconds)


def retried(work: Callable[[], T], spec: str, remedy: str = REMEDY) -> T:
    """Do some work on the Hub, again after a failure of the network; see `resuming`."""
    return next(resuming(lambda _: iter([work()]), spec, remedy))


def is_passing(error: BaseException) -> bool:
    """Whether an error is the network's or the server's, and may be gone at the next try."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    if isinstance(error, (InputError, OfflineModeIsEnabled)):
        return False
    if isinstance(error, HfHubHTTPError):
        status = getattr(error.response, "status_code", None)
        return status is None or status in (408, 425, 429) or status >= 500
    if isinstance(error, (ConnectionError, TimeoutError, LocalEntryNotFoundError)):
        return True
    library = type(error).__module__.split(".")[0]
    if library in ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "aiohttp"):
        return True
    # as `datasets` passes them on
    if any(name in str(error) for name in ("LocalEntryNotFoundError", "ConnectionError")):
        return True
    # an answer cut off in the middle of a file reaches the file's parser as an end of data; the cause tells
    return error.__cause__ is not None and is_passing(error.__cause__)


def explained(error: Exception, spec: str) -> Exception:
    """What an error that will not pass means to the user; the error itself if it is not the user's."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    meanings: list[tuple[type[Exception], str]] = [
        (GatedRepoError, "this dataset asks for consent; accept its terms on the Hub and run: hf auth login"),
        (RepositoryNotFoundError, "no such dataset on the Hub (a private one needs: hf auth login)"),
        (OfflineModeIsEnabled, f"HF_HUB_OFFLINE turns the Hub off; unset it or {REMEDY}"),
        (HfHubHTTPError, f"the Hub refuses: {one_line(error)}"),
    ]
    for kind, meaning in meanings:
        if isinstance(error, kind):
            return InputError(f"{spec}: {meaning}")
    if isinstance(error, RecordError):
        return InputError(f"{spec}: {f'row {error.line}: ' if error.line else ''}{error.what}")
    damaged = type(error) is OSError and error.errno is None  # how Arrow reports pages it cannot decode
    if damaged or type(error).__module__.split(".")[0] in ("datasets", "pyarrow"):
        return InputError(f"{spec}: its files cannot be read ({one_line(error)})")
    # how `datasets` tells of an unknown configuration, split or file
    if isinstance(error, (ValueError, FileNotFoundError, RuntimeError)) and not isinstance(error, InputError):
        return InputError(f"{spec}: {one_line(error)}")
    return error


# ---- the source and its parts


@dataclass(frozen=True)
class HubPart(Part):
    """A file of a dataset, or a stretch of a parquet file.

    Attributes:
        dataset: which.
        address: the file.
        file, files: its number in the dataset, and how many there are.
        stretch, stretches: number of the stretch of row groups, and in how many the file is cut.
    """

    name: str
    size: int | None
    dataset: Dataset
    address: str
    file: int
    files: int
    stretch: int
    stretches: int

    def documents(self) -> Iterator[str]:
        """Yield the texts; after a failure of the network continue after the last one."""
        yield from not_blank(resuming(self._parquet if self.dataset.parquet else self._streamed, self.name))

    def _parquet(self, done: int) -> Iterator[str | None]:
        """The texts from row `done` on, one request for each row group; other columns are not fetched."""
        from huggingface_hub import HfFileSystem

        with HfFileSystem().open(self.address, "rb", cache_type="none") as file:
            table = open_parquet(file, REQUEST_BYTES)
            start, stop = (table.num_row_groups * n // self.stretches for n in (self.stretch, self.stretch + 1))
            yield from (text for _, text in parquet_records(table, self.dataset.field, start, stop, done))

    def _streamed(self, done: int) -> Iterator[str | None]:
        """The texts from row `done` on; `datasets` reads the file from its beginning."""
        with without_torch():
            stream = self.dataset.stream()
            if stream.num_shards != self.files:
                raise InputError(f"{self.name}: the dataset has {stream.num_shards} files now; start again")
            stream = stream.shard(num_shards=self.files, index=self.file, contiguous=True)
            stream = stream.select_columns([self.dataset.field])
        for row in itertools.islice(stream, done, None):
            yield row[self.dataset.field]


@dataclass(frozen=True)
class HubSource(Source):
    """A dataset of the Hub.

    Attributes:
        name: the name given.
        dataset: what that is.
        files: (address, bytes) of its files.
        licence: as its card tells it, or None.
        part_bytes: size of a part.
    """

    name: str
    dataset: Dataset
    files: tuple[tuple[str, int | None], ...]
    licence: str | None
    part_bytes: int

    def parts(self) -> list[Part]:
        """A part for each file; for each stretch of row groups of a large parquet file."""
        parts: list[Part] = []
        count = len(self.files)
        for number, (address, size) in enumerate(self.files):
            suffix = "." + address.rsplit(".", 1)[-1]
            ratio = PARQUET_RATIO if suffix == PARQUET else RATIOS.get(suffix, 1.0)
            text = None if size is None else int(size * ratio)
            stretches = 1
            if self.dataset.parquet and text and count <= MANY_FILES:
                stretches = -(-text // self.part_bytes)
            for index in range(stretches):
                name = f"{self.name} file {number + 1}/{count}"
                name += f" stretch {index + 1}/{stretches}" if stretches > 1 else ""
                share = None if text is None else text // stretches
                parts.append(HubPart(name, share, self.dataset, address, number, count, index, stretches))
        return parts

    def fingerprint(self) -> str:
        """Of repository, revision, configuration, split and column."""
        identity = ("hub", 1, sorted(vars(self.dataset).items()), self.part_bytes)
        return hashlib.sha256(repr(identity).encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """The dataset, its revision and licence."""
        return {
            "kind": "hub",
            "spec": self.name,
            "files": len(self.files),
            **{key: value for key, value in vars(self.dataset).items() if key != "parquet"},
            "licence": self.licence,
        }
