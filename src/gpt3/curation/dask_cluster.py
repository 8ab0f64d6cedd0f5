"""Dask distributed as an engine: a scheduler in the command's own process or elsewhere, and workers on any number of machines.

Its connections carry pickled functions of this package, which is why nobody else may reach them: they are on this machine's
loopback address, or under TLS in which both sides show a certificate. Documents stay in files; tasks and results are names and
counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Executor
from pathlib import Path
from typing import Any

from gpt3.curation.engines import SCHEDULER, Settings, Tls
from gpt3.durable import discard, write_text
from gpt3.errors import InputError, RunError, require
from gpt3.options import is_loopback
from gpt3.progress import say

EXTRA = "cluster"
SECONDS = 10
"""To wait for an answer to a connection."""
POLL_SECONDS = 1.0
CONFIG = {
    "distributed.comm.timeouts.connect": f"{SECONDS}s",
    "distributed.scheduler.allowed-failures": 9,  # workers that die with the same task; a task that only waited there counts, too
    "distributed.worker.memory.target": False,  # its own data are names and counts: to write them to disk frees nothing
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,  # a paused worker would wait forever for memory that no task frees
    "distributed.worker.memory.terminate": 0.95,
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "critical",
}
NO_PAGES = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
"""There is an HTTP server in any case, without pages (see `CONFIG`) and without TLS."""
KEPT = "what is done is kept: run the same command again"


@contextlib.contextmanager
def executor(settings: Settings) -> Iterator[Executor]:
    """An executor, as soon as there is a worker.

    Raises:
        InputError: the extra is missing, or there is no such scheduler.
        RunError: the scheduler is gone, or a task ends its workers again and again.
    """
    distributed: Any = require("distributed", extra=EXTRA, purpose="--engine dask")
    import dask

    silence()
    with dask.config.set(CONFIG), (_connected if settings.address else _started)(settings) as client:
        try:
            if not client.scheduler_info()["workers"]:
                say(f"Waiting for a worker: {_join(settings)}")
                client.wait_for_workers(1)
            yield client.get_executor(pure=False)
        except distributed.KilledWorker:
            remedy = f"{KEPT}, with more --memory or fewer --workers"
            raise RunError(
                f"worker after worker was killed at the same work (often: out of memory); {remedy}"
            ) from None
        except CancelledError:
            raise RunError(f"the scheduler is gone; {KEPT}, with a scheduler that is there") from None


def _join(settings: Settings) -> str:
    """The command by which a worker joins."""
    return f"dask worker {settings.address}" if settings.address else f"gpt3 corpus worker {settings.out}"


def silence() -> None:
    """No log of Dask and of what it is made of: an error becomes one line of ours."""
    mine = [
        name for name in logging.root.manager.loggerDict if name.startswith("distributed")
    ]  # each has its own level
    for name in (*mine, "tornado.application", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def security(tls: Tls | None) -> Any:
    """Dask's settings: every connection encrypted, and both sides known; or none of that."""
    from distributed import Security

    if tls is None:
        return Security(require_encryption=False)
    roles = ("scheduler", "worker", "client")
    files = {f"tls_{role}_cert": tls.certificate for role in roles} | {f"tls_{role}_key": tls.key for role in roles}
    return Security(require_encryption=True, tls_ca_file=tls.authority, **files)


@contextlib.contextmanager
def _connected(settings: Settings) -> Iterator[Any]:
    """A client of a scheduler that is there."""
    from distributed import Client

    address = f"{'tls' if settings.tls else 'tcp'}://{settings.address}"
    try:
        client = Client(address, security=security(settings.tls), set_as_default=False, timeout=SECONDS)
    except (OSError, TimeoutError):
        raise InputError(
            f"--engine dask://{settings.address}: no scheduler answers there. Start one with `dask scheduler`, or check --tls-…"
        ) from None
    with client:
        yield client


@contextlib.contextmanager
def _started(settings: Settings) -> Iterator[Any]:
    """A client of a scheduler in this process, with workers here and a file by which others join."""
    from distributed import Client, Nanny, Scheduler, SpecCluster

    secure, file = security(settings.tls), settings.out / SCHEDULER
    protocol = "tls://" if settings.tls else "tcp://"
    place = {"host": settings.host, "protocol": protocol, "security": secure, **NO_PAGES}
    with tempfile.TemporaryDirectory(prefix="gpt3-corpus-", ignore_cleanup_errors=True) as scratch:
        local = {
            number: {"cls": Nanny, "options": place | nanny_options(settings.memory, Path(scratch, str(number)))}
            for number in range(settings.workers)
        }
        try:
            cluster = SpecCluster(
                workers=local, scheduler={"cls": Scheduler, "options": place | {"port": 0}}, security=secure,
                silence_logs=logging.CRITICAL,
            )  # fmt: skip
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"--host {settings.host}: cannot listen there ({error}). Use an address of this machine."
            ) from None
        with cluster, Client(cluster, security=secure, set_as_default=False) as client:
            write_text(file, json.dumps({"address": cluster.scheduler_address}))
            try:
                yield client
            finally:
                discard(file)  # before the scheduler ends, so that workers know why


def nanny_options(memory: int, scratch: Path) -> dict[str, Any]:
    """Of a worker, which is a process with one thread and a second one that starts it again where it dies or takes too much.

    Args:
        memory: bytes that it may take.
        scratch: a folder for its temporary files alone, which is made.
    """
    scratch.mkdir(parents=True)
    return {"nthreads": 1, "memory_limit": memory, "local_directory": str(scratch), "env": {"TMPDIR": str(scratch)}}


def work(out: Path, workers: int, memory: int, tls: Tls | None, wait: float) -> None:
    """Work for the command that makes the corpus `out`, until it ends; wait for it before, and where it is killed.

    Args:
        workers: processes to start here.
        memory: bytes, for each.
        wait: seconds to wait for a scheduler.

    Raises:
        InputError: the extra is missing, or the scheduler's address and the files for TLS do not fit together.
        RunError: there was no scheduler for so long.
    """
    require("distributed", extra=EXTRA, purpose="gpt3 corpus worker")
    import dask

    silence()
    file, until, said = out / SCHEDULER, time.monotonic() + wait, False
    with dask.config.set(CONFIG):
        while True:
            address = _address(file, tls)
            if address and asyncio.run(_work_for(address, workers, memory, tls)):
                if not file.exists():
                    return
                until, said = time.monotonic() + wait, False
            if time.monotonic() > until:
                raise RunError(
                    f"no scheduler in {file} for {wait:g} s. Start gpt3 corpus RECIPE --out {out} --engine dask, or give "
                    "more --wait."
                )
            if not said:
                say(f"Waiting up to {wait:g} s for a scheduler in {file}")
                said = True
            time.sleep(POLL_SECONDS)


def _address(file: Path, tls: Tls | None) -> str | None:
    """Where a scheduler is said to be."""
    try:
        address = str(json.loads(file.read_text(encoding="utf-8"))["address"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    protocol = address.partition("://")[0]
    if (protocol == "tls") != (tls is not None):
        given = "is not" if tls else "is"
        raise InputError(f"{file}: {address} {given} under TLS. Give --tls-cert, --tls-key and --tls-ca here as there.")
    if tls is None and not is_loopback(host_of(address)):
        raise InputError(
            f"{file}: {address} is another machine, without TLS. Start both with --tls-cert, --tls-key and --tls-ca."
        )
    return address


def host_of(address: str) -> str:
    """``PROTOCOL://HOST:PORT`` without the others."""
    return address.partition("://")[2].rpartition(":")[0].strip("[]")


async def _work_for(address: str, workers: int, memory: int, tls: Tls | None) -> bool:
    """Work until the scheduler ends. False: it does not answer."""
    from distributed import Nanny
    from distributed.utils import get_ip

    place = {
        "host": get_ip(host_of(address)),
        "security": security(tls),
        **NO_PAGES,
    }  # where the scheduler reaches it, and no other
    with tempfile.TemporaryDirectory(prefix="gpt3-corpus-", ignore_cleanup_errors=True) as scratch:
        options = [nanny_options(memory, Path(scratch, str(number))) for number in range(workers)]
        nannies = [Nanny(address, **place, **each) for each in options]
        try:
            await asyncio.gather(*nannies)
        except (
            OSError,
            RuntimeError,
            asyncio.TimeoutError,
        ):  # the second is what a nanny raises for all that fails at its start
            return False
        else:
            await asyncio.gather(*(nanny.finished() for nanny in nannies))
            return True
        finally:
            await asyncio.gather(*(nanny.close(timeout=SECONDS) for nanny in nannies), return_exceptions=True)
