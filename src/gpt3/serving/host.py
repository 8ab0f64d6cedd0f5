"""Load models, listen at an address, serve, and let running requests finish before the end."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from gpt3.errors import InputError
from gpt3.model_folder.locate import locate
from gpt3.serving.options import ServeOptions

if TYPE_CHECKING:
    from fastapi import FastAPI

    from gpt3.inference.language_model import LanguageModel
    from gpt3.serving.worker import Worker

SECONDS_TO_REPORT = 2.0
"""Time after the grace period in which clients are sent an error that the server stops."""


def load_models(options: ServeOptions) -> dict[str, LanguageModel]:
    """Load the models; by their ids.

    Raises:
        InputError: no such model, or two of one name.
    """
    from gpt3.inference.language_model import load

    places = [locate(wanted) for wanted in options.model] or [locate(None)]
    names = options.name or [name_of(place) for place in places]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two models have the name {name}. Give each its own: --name A --name B")
    models: dict[str, LanguageModel] = {}
    for name, place in zip(names, places, strict=True):
        models[name] = load(place, device=options.device, dtype=options.dtype, quantize=options.quantize)
        models[name].complete("a", max_new_tokens=2)  # kernels are compiled now, not while the first client waits
    return models


def serve(
    app: FastAPI,
    workers: Sequence[Worker],
    listening: socket.socket,
    options: ServeOptions,
    ready: Callable[[], None] = lambda: None,
    stop: threading.Event | None = None,
) -> None:
    """Serve at a socket until SIGINT or SIGTERM, or, in a thread other than the main one, until `stop` is set."""
    import uvicorn

    def drain() -> None:
        for worker in workers:
            worker.drain(options.grace)

    class Server(uvicorn.Server):
        """Ends in two steps: requests get time to finish, then an error. A second Ctrl-C ends it at once."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            drain()
            super().handle_exit(sig, frame)

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            main = threading.current_thread() is threading.main_thread()
            kinds = (signal.SIGINT, signal.SIGTERM) if main else ()
            before = {kind: signal.signal(kind, self.handle_exit) for kind in kinds}
            try:
                yield
            finally:
                for kind, handler in before.items():
                    signal.signal(kind, handler)

        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready()

        async def on_tick(self, counter: int) -> bool:
            if stop is not None and stop.is_set() and not self.should_exit:
                drain()
                self.should_exit = True
            return await super().on_tick(counter)

    config = uvicorn.Config(
        app,
        log_level="info" if options.access_log else "warning",
        access_log=options.access_log,
        timeout_graceful_shutdown=max(1, round(options.grace + SECONDS_TO_REPORT)),
        server_header=False,
        lifespan="on",
        ws="none",
        h11_max_incomplete_event_size=64 * 1024,
    )
    if options.access_log:  # standard output is for results
        config.configure_logging()
    asyncio.run(Server(config).serve(sockets=[listening]))


def listen(host: str, port: int) -> socket.socket:
    """A socket at this address.

    Raises:
        InputError: the address is not this machine's, or the port is taken or reserved.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(
            f"--host {host} is no address of this machine ({error.strerror or error}). Use 127.0.0.1"
        ) from None
    if sys.platform != "win32":  # there it would let two servers share a port
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise InputError(
            f"--host {host} --port {port} is not available ({error.strerror}). Use another port, or --port 0 for a free one"
        ) from None
    return listening


def name_of(place: str | Path) -> str:
    """A model's id: its run's or folder's name; a hub id as it is."""
    if isinstance(place, str) and not Path(place).exists():
        return place
    path = Path(place).resolve()
    for part in (path, *path.parents):
        if part.name not in ("model", "adapter", "checkpoints", ""):
            return part.name
    return "gpt3"


def address_of(listening: socket.socket) -> str:
    """Where a browser finds it."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
