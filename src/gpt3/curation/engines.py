"""What shares the work of `gpt3 corpus`: processes of this machine, or an executor's workers on any number of machines.

The stages submit tasks over files to a `concurrent.futures.Executor` (`gpt3.corpus.pool.share`). A task may be done again, or by
two workers at once: it writes the same bytes. Another engine is one function, a context manager that takes `Settings` and yields
such an executor, and its line in `ENGINES`. It also says what its own errors mean, as `RunError`.
"""

from __future__ import annotations

import contextlib
import pkgutil
import ssl
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from gpt3.curation.stages import Engine
from gpt3.errors import InputError, one_line
from gpt3.options import is_loopback

ENGINES = {
    "processes": "gpt3.curation.engines:processes",
    "dask": "gpt3.curation.dask_cluster:executor",
}
"""By name: a function of `Settings`, a context manager that yields an executor, or None for processes of this machine."""
SCHEDULER = "scheduler.json"
"""The file in the corpus folder that says where workers join."""


@dataclass(frozen=True)
class Tls:
    """Files in PEM format by which machines know each other, the same for all of them."""

    certificate: str
    key: str
    authority: str


@dataclass(frozen=True)
class Settings:
    """What an engine may need to know."""

    out: Path
    """The corpus folder."""
    workers: int
    """Processes to start here."""
    memory: int
    """Bytes, for each worker."""
    address: str = ""
    """``HOST:PORT`` of a scheduler that is there; empty: start one."""
    host: str = "127.0.0.1"
    """Where to listen."""
    tls: Tls | None = None


@contextlib.contextmanager
def open_engine(name: str, settings: Settings) -> Iterator[Engine]:
    """The engine that ``--engine`` names.

    Raises:
        InputError: it cannot be reached, or its extra is missing.
        RunError: it fails while it works.
    """
    with pkgutil.resolve_name(ENGINES[name.partition("://")[0]])(settings) as executor:
        yield Engine(max(1, settings.workers), executor)


@contextlib.contextmanager
def processes(settings: Settings) -> Iterator[Executor | None]:
    """The default: see `gpt3.corpus.pool.share`."""
    yield None


def engine_errors(engine: str, host: str, workers: int | None, tls: bool) -> Iterator[str]:
    """What is wrong with the options of an engine.

    Args:
        engine: ``--engine``.
        host: ``--host``.
        workers: ``--workers``.
        tls: whether files for TLS are given.
    """
    name, separator, address = engine.partition("://")
    place, _, port = address.rpartition(":")
    if name not in ENGINES or (name == "processes" and separator):
        yield f"--engine {engine} is unknown. Use {', '.join(ENGINES)}, or dask://HOST:PORT"
    elif separator and not (place and port.isdecimal()):
        yield f"--engine {engine} has no port. Use dask://HOST:PORT"
    elif name == "processes" and (workers == 0 or tls or host != "127.0.0.1"):
        yield "--workers 0, --host and --tls-… are for --engine dask. Add it"
    elif not tls:
        for option, where in (("--engine", place.strip("[]")), ("--host", host)):
            if where and not is_loopback(where):
                given = f"{option} {engine if option == '--engine' else host}"
                yield f"{given} is open to other machines, and what comes there is run. Use --tls-cert, --tls-key and --tls-ca"


def tls_errors(certificate: str | None, key: str | None, authority: str | None) -> Iterator[str]:
    """What is wrong with ``--tls-cert``, ``--tls-key`` and ``--tls-ca``."""
    given = {"--tls-cert": certificate, "--tls-key": key, "--tls-ca": authority}
    if any(given.values()) and (missing := [name for name, value in given.items() if not value]):
        yield f"{', '.join(name for name in given if given[name])} without {', '.join(missing)}. Give all three"
    for name, value in given.items():
        if value and not Path(value).is_file():
            yield f"{name} {value}: no such file"


def read_tls(certificate: str | None, key: str | None, authority: str | None) -> Tls | None:
    """The files, if they are given.

    Raises:
        InputError: they are no certificate with its key, or no authority's.
    """
    if not (certificate and key and authority):
        return None
    try:
        ssl.create_default_context(cafile=authority).load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        raise InputError(
            f"--tls-cert {certificate}, --tls-key {key} and --tls-ca {authority} cannot be used ({one_line(error)}). "
            "Give a certificate, its key and its authority in PEM format."
        ) from None
    return Tls(*(str(Path(name).absolute()) for name in (certificate, key, authority)))
