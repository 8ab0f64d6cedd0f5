"""Load models, listen at an address, serve, and let running requests finish before the end."""

from __future__ import annotations

import asyncio
import copy
import errno
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from gpt3.errors import InputError
from gpt3.model_folder.locate import RUNS, STARTER, locate, name_of, newest_run
from gpt3.serving.options import ServeOptions

if TYPE_CHECKING:
    from fastapi import FastAPI

    from gpt3.inference.language_model import LanguageModel
    from gpt3.serving.worker import ComputeThread

SECONDS_TO_REPORT = 2.0
"""Time after the grace period in which clients are sent an error that the server stops."""
WARM_UP = " ".join(map(str, range(40)))
"""A prompt of more tokens than engines read together with others': it is read by other kernels than short ones are."""


def load_models(options: ServeOptions) -> dict[str, LanguageModel]:
    """Load the models; by their ids. Without a name or a run the package's own; without that none, if one can be loaded later.

    Raises:
        InputError: no such model, or two of one name.
    """
    if options.extensible and not options.name and newest_run(RUNS) is None and not STARTER.is_dir():
        return {}
    if not options.model:
        try:
            return _load([locate(None, or_starter=True)], options)
        except InputError as error:
            raise InputError(f"{str(error).rstrip('.')}, or name another model: gpt3 serve NAME") from None
    return _load([locate(wanted) for wanted in options.model], options)


def _load(places: Sequence[Path | str], options: ServeOptions) -> dict[str, LanguageModel]:
    """Load models by their places; by their ids."""
    names = options.name or [name_of(place) if isinstance(place, Path) else place for place in places]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two models have the name {name}. Give each its own: --name A --name B")
    return {name: load_model(place, options) for name, place in zip(names, places, strict=True)}


def load_model(place: Path | str, options: ServeOptions) -> LanguageModel:
    """Load a model, of which `place` is the folder or the hub id, and have its kernels compiled.

    Raises:
        InputError: as `gpt3.inference.language_model.load`.
    """
    from gpt3.inference.language_model import load

    model = load(place, device=options.device, dtype=options.dtype, quantize=options.quantize, threads=options.threads)
    model.complete(WARM_UP, max_new_tokens=2)  # kernels are compiled now, not while the first client waits
    return model


def serve(
    app: FastAPI,
    compute: ComputeThread,
    listening: socket.socket,
    options: ServeOptions,
    ready: Callable[[Callable[[], None]], None],
) -> None:
    """Serve at a socket until SIGINT or SIGTERM.

    Args:
        ready: called once the server takes requests, with a function that stops it, from any thread.
    """
    import uvicorn

    class Server(uvicorn.Server):
        """Ends in two steps: requests get time to finish, then an error. A second Ctrl-C skips that time."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            super().handle_exit(sig, frame)
            self._captured_signals.clear()  # uvicorn raises them again at the end: no exit code 0, or a traceback
            self.drain()

        def drain(self) -> None:
            self.should_exit = True
            compute.drain(options.grace)

        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready(self.drain)

    logs: Any = copy.deepcopy(uvicorn.config.LOGGING_CONFIG)
    logs["handlers"]["access"]["stream"] = "ext://sys.stderr"  # standard output is for results
    config = uvicorn.Config(
        app,
        log_config=logs,
        log_level="info" if options.access_log else "warning",
        access_log=options.access_log,
        timeout_graceful_shutdown=max(1, round(options.grace + SECONDS_TO_REPORT)),
        server_header=False,
        lifespan="on",
        ws="none",
        h11_max_incomplete_event_size=64 * 1024,
    )
    asyncio.run(Server(config).serve(sockets=[listening]))


def listen(host: str, port: int) -> socket.socket:
    """A socket at this address.

    Raises:
        InputError: the address is not this machine's, or the port is taken or reserved.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise InputError(f"--host {host} is no address of this machine ({error.strerror}). Use 127.0.0.1") from None
    try:
        dual = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        return socket.create_server(address, family=family, backlog=2048, dualstack_ipv6=dual)
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise InputError(f"--host {host} is no address of this machine. Use 127.0.0.1") from None
        reason = os.strerror(error.errno) if error.errno else str(error)
        fix = "Use another port, or --port 0 for a free one"
        raise InputError(f"--port {port} is not available on {host} ({reason}). {fix}") from None


def address_of(listening: socket.socket) -> str:
    """Where a browser finds it."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_local(host: str) -> bool:
    """Whether a Host header names this machine: what a browser sends, whichever name led it here."""
    name = host.rpartition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
    return name in ("localhost", "[::1]") or (name.startswith("127.") and name.replace(".", "").isdigit())
