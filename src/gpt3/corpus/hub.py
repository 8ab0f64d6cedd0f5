"""Datasets of the Hugging Face hub as sources: streamed, pinned to one revision, with retries that lose and repeat nothing."""

from __future__ import annotations

import functools
import hashlib
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from gpt3.corpus import parquet
from gpt3.corpus.compression import RATIOS
from gpt3.corpus.documents import PART_BYTES, Part, RecordError, Source
from gpt3.corpus.formats import pick_column
from gpt3.errors import InputError, one_line
from gpt3.progress import say

FINEWEB = "HuggingFaceFW/fineweb"
FINEWEB_CONFIG = "sample-10BT"

ATTEMPTS = 6
"""Tries without any progress before giving up. `datasets` and `huggingface_hub` retry inside each of them too."""

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before the second try, doubled from try to try; and at most."""

PARQUET_RATIO = 1.6
"""Bytes of text in a byte of a parquet file, roughly (measured: 1.6 for novels under snappy)."""

REQUEST_BYTES = 16 * 1024 * 1024
"""Bytes of a column fetched at a time, less where a row group holds less."""

REMEDY = "give local files (--data PATH) or the embedded corpus (--data wiki)"

MANY_FILES = 1000
"""Datasets of more files than this are not cut within files: the files are parts enough."""

T = TypeVar("T")


@dataclass(frozen=True)
class Dataset:
    """One split of one configuration of a dataset, at one revision.

    Attributes:
        repository: ``"owner/name"``.
        revision: the commit's sha, so that all workers and all retries read the same data.
        config: configuration; None where the dataset has but one.
        split: e.g. ``"train"``.
        field: the column that holds the text; "" while it is not known.
        parquet: whether the files are parquet, of which the column is read by itself, by row groups.
    """

    repository: str
    revision: str
    config: str | None
    split: str
    field: str = ""
    parquet: bool = False

    @property
    def name(self) -> str:
        """As it is asked for."""
        return f"hf:{self.repository}:{self.config or ''}:{self.split}"


def parse(spec: str) -> tuple[str, str | None, str, str | None]:
    """Cut ``hf:owner/name[:config][:split][:field]`` or ``fineweb[:config]`` into (repository, config, split, field).

    A part left empty keeps its default: ``hf:owner/name::test`` is the split "test" of the only configuration.
    """
    kind, _, rest = spec.partition(":")
    if kind == "fineweb":
        rest = f"{FINEWEB}:{rest or FINEWEB_CONFIG}"
    repository, *more = rest.split(":")
    if not repository or len(more) > 3 or repository.count("/") > 1:
        raise InputError(f"{spec}: a dataset of the hub is named hf:owner/name[:config][:split][:field]")
    config, split, field = [*more, "", "", ""][:3]
    return repository, config or None, split or "train", field or None


def open_dataset(spec: str, text_field: str | None = None, part_bytes: int = PART_BYTES) -> HubSource:
    """Find a dataset on the hub, its revision, its files and the column of its text.

    Raises:
        InputError: no such dataset, configuration, split or column; no access; no network after all retries.
    """
    repository, config, split, field = parse(spec)
    info = retried(lambda: dataset_info(repository), spec)
    dataset = Dataset(repository, info.sha, config, split)
    dataset, files, text_bytes = retried(lambda: look_up(dataset, field or text_field), spec)
    licence = getattr(info.card_data, "license", None) if info.card_data else None
    return HubSource(spec, dataset, tuple(files), text_bytes, str(licence) if licence else None, part_bytes)


def dataset_info(repository: str, revision: str | None = None) -> Any:
    """The hub's record of a dataset, at a branch or commit (None: main): its commit and card."""
    import huggingface_hub

    return huggingface_hub.HfApi().dataset_info(repository, revision=revision, timeout=30)


def look_up(dataset: Dataset, field: str | None) -> tuple[Dataset, list[tuple[str, int | None]], int | None]:
    """Complete `dataset` by its column; list its files as (address, bytes); and its size where the card tells it."""
    from huggingface_hub import HfFileSystem

    try:
        builder = open_builder(dataset)
        with without_torch():
            stream = builder.as_streaming_dataset(split=dataset.split)
            features = stream.features
            if features is None:  # JSON lines and the like: known from their first records only
                features = stream._resolve_features().features or {}
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        # `datasets` says so when there is no such configuration, split or data; and when a file could not be fetched
        if is_passing(error) or any(name in str(error) for name in ("LocalEntryNotFoundError", "ConnectionError")):
            raise ConnectionError(one_line(error)) from error
        raise InputError(f"{dataset.name}: {one_line(error)}") from None
    strings = [name for name, kind in features.items() if getattr(kind, "dtype", None) in ("string", "large_string")]
    try:
        column = pick_column(list(features), field, strings)
    except RecordError as error:
        raise InputError(f"{dataset.name}: {error.what}") from None
    if column not in strings:
        raise InputError(f"{dataset.name}: column {column!r} is not of strings; those are: {', '.join(strings)}")
    system = HfFileSystem()
    files = [
        (str(address), system.info(str(address)).get("size")) for address in builder.config.data_files[dataset.split]
    ]
    splits = builder.info.splits or {}
    text_bytes = splits[dataset.split].num_bytes if dataset.split in splits else None
    is_parquet = all(address.endswith(".parquet") for address, _ in files)
    return replace(dataset, field=column, parquet=is_parquet), files, text_bytes or None


@functools.lru_cache(maxsize=16)
def open_builder(dataset: Dataset) -> Any:
    """The `datasets` builder of a dataset: one per process, as it asks the hub for the list of files."""
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


def retried(work: Callable[[], T], spec: str, remedy: str = REMEDY) -> T:
    """Do some work on the hub, again after a failure of the network.

    Args:
        spec: what is read, for messages.
        remedy: what to do without the hub.

    Raises:
        InputError: the hub says no, or does not answer at all.
    """
    wait = Waiting(spec, remedy)
    while True:
        try:
            return work()
        except Exception as error:
            wait.after(error)


class Waiting:
    """How often in a row the network failed, and the waits that follow from it."""

    def __init__(self, spec: str, remedy: str = REMEDY) -> None:
        self.spec, self.remedy = spec, remedy
        self.failures = 0

    def after(self, error: Exception) -> None:
        """Wait and return if another try makes sense after this error; else raise it, or what it means to the user."""
        if not is_passing(error):
            meaning = explained(error, self.spec)
            raise meaning from (error.__cause__ if meaning is error else None)
        self.failures += 1
        if self.failures >= ATTEMPTS:
            raise InputError(
                f"{self.spec}: the hub does not answer after {ATTEMPTS} tries ({one_line(error)}); check the network, "
                f"or {self.remedy}"
            ) from None
        seconds = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (self.failures - 1))
        say(f"{self.spec}: {one_line(error)}; next try in {seconds:.0f} s")
        time.sleep(seconds)


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
    # an answer cut off in the middle of a file reaches the file's parser as an end of data; the cause tells
    return error.__cause__ is not None and is_passing(error.__cause__)


def explained(error: Exception, spec: str) -> Exception:
    """What an error that will not pass means to the user; the error itself where it is not the user's."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return InputError(f"{spec}: this dataset asks for consent; accept its terms on the hub and run: hf auth login")
    if isinstance(error, RepositoryNotFoundError):
        return InputError(f"{spec}: no such dataset on the hub (a private one needs: hf auth login)")
    if isinstance(error, OfflineModeIsEnabled):
        return InputError(f"{spec}: the hub is switched off by HF_HUB_OFFLINE; unset it or give local files")
    if isinstance(error, HfHubHTTPError):
        return InputError(f"{spec}: the hub refuses: {one_line(error)}")
    if isinstance(error, RecordError):
        return InputError(f"{spec}: row {error.line}: {error.what}")
    damaged = type(error) is OSError and error.errno is None  # how Arrow speaks of pages it cannot decode
    if damaged or type(error).__module__.split(".")[0] in ("datasets", "pyarrow"):
        return InputError(f"{spec}: its files cannot be read ({one_line(error)})")
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
        """Yield the texts; after a failure of the network go on behind the last one."""
        wait = Waiting(self.name)
        done = 0  # rows, empty ones included
        while True:
            try:
                for text in self.parquet_rows(done) if self.dataset.parquet else self.streamed_rows(done):
                    done += 1
                    wait.failures = 0
                    if text and not text.isspace():
                        yield text
                return
            except Exception as error:
                wait.after(error)

    def parquet_rows(self, done: int) -> Iterator[str | None]:
        """The rows from `done` on, by as many requests as there are row groups; their other columns are not fetched."""
        from huggingface_hub import HfFileSystem

        with HfFileSystem().open(self.address, "rb", cache_type="none") as file:
            table = parquet.open_parquet(file, REQUEST_BYTES)
            groups = table.num_row_groups
            start, stop = (groups * index // self.stretches for index in (self.stretch, self.stretch + 1))
            yield from parquet.read_rows(table, self.dataset.field, start, stop, done)

    def streamed_rows(self, done: int) -> Iterator[str | None]:
        """The rows from `done` on; `datasets` reads the file from its beginning."""
        with without_torch():
            stream = open_builder(self.dataset).as_streaming_dataset(split=self.dataset.split)
            if stream.num_shards != self.files:
                raise InputError(f"{self.name}: the dataset has {stream.num_shards} files now; start again")
            stream = stream.shard(num_shards=self.files, index=self.file, contiguous=True)
            stream = stream.select_columns([self.dataset.field])
        for row in itertools.islice(stream, done, None):
            yield row[self.dataset.field]


@dataclass(frozen=True)
class HubSource(Source):
    """A dataset of the hub.

    Attributes:
        name: the name it was asked for by.
        dataset: what that is.
        files: (address, bytes) of its files.
        text_bytes: its size as its card tells it, or None.
        licence: as its card tells it, or None.
        part_bytes: size of a part.
    """

    name: str
    dataset: Dataset
    files: tuple[tuple[str, int | None], ...]
    text_bytes: int | None
    licence: str | None
    part_bytes: int

    def parts(self) -> list[Part]:
        """A part for each file; for each stretch of row groups of a large parquet file."""
        parts: list[Part] = []
        count = len(self.files)
        for number, (address, size) in enumerate(self.files):
            text = estimate(address, size)
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
        """As `Source.fingerprint`."""
        return hashlib.sha256(
            repr(("hub", 1, sorted(vars(self.dataset).items()), self.part_bytes)).encode()
        ).hexdigest()

    def size_bytes(self) -> int | None:
        """As `Source.size_bytes`."""
        sizes = [part.size for part in self.parts()]
        return self.text_bytes or (None if None in sizes else sum(size or 0 for size in sizes))

    def describe(self) -> dict[str, Any]:
        """As `Source.describe`."""
        return {
            "kind": "hub",
            "spec": self.name,
            "files": len(self.files),
            **{key: value for key, value in vars(self.dataset).items() if key != "parquet"},
            "licence": self.licence,
        }


def estimate(address: str, size: int | None) -> int | None:
    """Bytes of text in a file of the hub."""
    if size is None:
        return None
    suffix = "." + address.rsplit(".", 1)[-1]
    return int(size * (PARQUET_RATIO if suffix == ".parquet" else RATIOS.get(suffix, 1.0)))
