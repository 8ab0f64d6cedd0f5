"""How a request's answer reaches its client: whole, or as server-sent events while it grows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import orjson
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from gpt3.serving.completions import Delta, TextRequest
from gpt3.serving.schema import ApiError
from gpt3.serving.worker import Worker


@contextmanager
def waiting(work: TextRequest, worker: Worker, receive: Receive) -> Iterator[None]:
    """While a client waits for a request that the worker has: ends it when the client goes away, or when the block is left.

    A client that goes away becomes the request's last event, an ApiError.
    """

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            continue
        work.events.put_nowait(ApiError(499, "the client went away"))

    watching = asyncio.ensure_future(watch())
    try:
        yield
    finally:
        watching.cancel()
        worker.cancel(work)


async def finished(work: TextRequest, worker: Worker, receive: Receive) -> None:
    """Wait until a request is complete.

    Raises:
        ApiError: it was not completed.
    """
    with waiting(work, worker, receive):
        event = await work.events.get()
        if isinstance(event, ApiError):
            raise event


class EventStream(Response):
    """The server-sent events of a streamed answer.

    starlette's own streaming response starts two tasks for each answer and passes each piece through a generator, which takes as
    long as a small model's step.

    Args:
        work: the request, which the worker has.
        worker: ends it when the client goes away.
    """

    media_type = "text/event-stream"

    def __init__(self, work: TextRequest, worker: Worker) -> None:
        self.work, self.worker = work, worker
        self.status_code, self.background = 200, None
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})  # no length: it has no body yet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until the last one."""
        work = self.work
        with waiting(work, self.worker, receive):
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            chunks, ended = work.opening(), False
            while not ended:
                arrived = [await work.events.get()]
                while not work.events.empty():
                    arrived.append(work.events.get_nowait())  # what came in the meantime is sent with it
                for event in arrived:
                    if isinstance(event, Delta):
                        chunks += work.chunks(event)
                    else:
                        chunks += work.closing() if event is None else [event.body]
                        ended = True
                        break
                lines = [b"data: %b\n\n" % orjson.dumps(chunk) for chunk in chunks]
                body = b"".join(lines) + (b"data: [DONE]\n\n" if ended else b"")
                await send({"type": "http.response.body", "body": body, "more_body": not ended})
                chunks = []
