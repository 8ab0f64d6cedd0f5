"""The server's paths: OpenAI's API, metrics, the reference of the API, the Playground."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from importlib import resources
from typing import Any, NamedTuple

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from gpt3.serving.chat import Chat
from gpt3.serving.completions import Completion
from gpt3.serving.errors import ApiError
from gpt3.serving.gate import Gate
from gpt3.serving.metrics import Metrics
from gpt3.serving.options import ServeOptions
from gpt3.serving.outbox import PendingRequest
from gpt3.serving.reference import (
    CHAT_COMPLETION,
    COMPLETION,
    HEALTH,
    MODEL,
    MODELS,
    answered,
    corrected,
    reference_page,
)
from gpt3.serving.schema import SAMPLER, ChatBody, CompletionBody, validation_error
from gpt3.serving.text_request import Served, TextRequest
from gpt3.serving.worker import ComputeThread, Worker
from gpt3.version import __version__

KEPT = (401, 403)
"""What a path without a body may be refused with."""
ASSETS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
"""Media types by the end of a name."""


class Host(NamedTuple):
    """A served model and what generates its texts."""

    served: Served
    worker: Worker


def create_app(hosts: Sequence[Host], options: ServeOptions, metrics: Metrics, compute: ComputeThread) -> FastAPI:
    """The ASGI application; a request that names no model is for the first one. Its lifespan starts and ends `compute`."""
    workers = [host.worker for host in hosts]
    by_name = {host.served.name: host for host in hosts}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        compute.start()
        yield
        await asyncio.to_thread(compute.close)

    app = FastAPI(
        title="gpt3", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url="/openapi.json"
    )
    app.add_middleware(
        Gate,
        key=options.key,
        max_body=options.max_body,
        local=options.loopback and options.key is None,
        metrics=metrics,
    )
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _internal)

    def host_of(name: str | None) -> Host:
        if name is None:
            return hosts[0]
        if name not in by_name:
            known = ", ".join(f"'{other}'" for other in by_name)
            raise ApiError(
                404,
                f"The model '{str(name)[:80]}' does not exist; this server has {known}",
                param="model",
                code="model_not_found",
            )
        return by_name[name]

    async def respond(kind: type[TextRequest], host: Host, body: Any, request: Request) -> Response:
        work = await asyncio.to_thread(kind, host.served, body)
        stream = bool(body.stream)
        if not (stream or any(text.needs_engine for text in work.texts)):  # it only counts tokens: no reason to wait
            for text in work.texts:
                text.take_piece([])
            return JSONResponse(work.answer())
        pending = PendingRequest(work.texts, stream, options.timeout)
        host.worker.submit(pending)
        if stream:
            return StreamingResponse(
                events(work, pending, host.worker),
                media_type="text/event-stream",
                headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
            )
        await finished(pending, host.worker, request)
        return JSONResponse(work.answer())

    completed = answered(COMPLETION, "the texts; with stream events, closed by data: [DONE]", stream=True)
    chatted = answered(CHAT_COMPLETION, "the answers; with stream events, closed by data: [DONE]", stream=True)

    @app.post("/v1/completions", summary="Continue text", responses=completed)
    async def completions(body: CompletionBody, request: Request) -> Response:
        return await respond(Completion, host_of(body.model), body, request)

    @app.post("/v1/engines/{engine}/completions", summary="Continue text, at the path of 2020", responses=completed)
    async def engine_completions(engine: str, body: CompletionBody, request: Request) -> Response:
        host_of(body.model)
        return await respond(Completion, host_of(engine), body, request)

    @app.post("/v1/chat/completions", summary="Answer in a conversation", responses=chatted)
    async def chat_completions(body: ChatBody, request: Request) -> Response:
        return await respond(Chat, host_of(body.model), body, request)

    def card(served: Served) -> dict[str, Any]:
        return {
            "id": served.name,
            "object": "model",
            "created": served.created,
            "owned_by": "gpt3",
            "context_length": served.context,
            "vocabulary": served.model.vocabulary,
            "chat": served.template is not None,
        }

    @app.get("/v1/models", summary="The models that are served", responses=answered(MODELS, "a list", refusals=KEPT))
    @app.get("/v1/engines", summary="The same, at the path of 2020", include_in_schema=False)
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [card(host.served) for host in hosts]}

    @app.get("/v1/models/{model}", summary="One model", responses=answered(MODEL, "it", refusals=(*KEPT, 404)))
    @app.get("/v1/engines/{model}", include_in_schema=False)
    async def model(model: str) -> dict[str, Any]:
        return card(host_of(model).served)

    healthy = answered(HEALTH, "it does", refusals=(403,))
    healthy[503] = {**healthy[200], "description": "it is stopping"}

    @app.get("/health", summary="Whether the server takes requests", responses=healthy)
    async def health() -> JSONResponse:
        stopping = any(worker.draining for worker in workers)
        state = "stopping" if stopping else "ok"
        return JSONResponse({"status": state, "models": list(by_name)}, 503 if stopping else 200)

    refused = {status: text for status, text in answered({}, "", refusals=KEPT).items() if status in KEPT}

    @app.get("/metrics", summary="Counters for Prometheus", response_class=PlainTextResponse, responses=refused)
    async def show_metrics() -> PlainTextResponse:
        gauges = {
            "gpt3_texts_running": sum(worker.running for worker in workers),
            "gpt3_requests_waiting": sum(worker.waiting for worker in workers),
        }
        return PlainTextResponse(metrics.render(**gauges), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(reference_page(app.openapi()))

    document = app.openapi
    app.openapi = lambda: corrected(document())  # type: ignore[method-assign]

    assets = resources.files("gpt3.serving") / "assets"
    files = {item.name: item.read_bytes() for item in assets.iterdir() if item.name.rpartition(".")[2] in ASSETS}
    fields = CompletionBody.model_json_schema()["properties"]
    files["options.js"] = b"export const OPTIONS = " + orjson.dumps({name: fields[name] for name in SAMPLER}) + b";\n"

    def asset(name: str) -> Response:
        if name not in files:
            raise ApiError(404, f"there is no {name[:40]} here")
        return Response(files[name], media_type=ASSETS[name.rpartition(".")[2]], headers={"Cache-Control": "no-cache"})

    @app.get("/", include_in_schema=False)
    async def playground() -> Response:
        return asset("playground.html")

    @app.get("/playground/{name}", include_in_schema=False)
    async def playground_file(name: str) -> Response:
        return asset(name)

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        return Response(status_code=204)

    return app


async def finished(pending: PendingRequest, worker: Worker, request: Request) -> None:
    """Wait until a request is complete, or its client goes away.

    Raises:
        ApiError: it was not completed.
    """
    end = asyncio.ensure_future(pending.events.get())
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({end, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not end.done():
            raise ApiError(499, "the client went away")
        event = end.result()
        if isinstance(event, ApiError):
            raise event
    finally:
        worker.cancel(pending)
        for task in (end, gone):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


async def events(work: TextRequest, pending: PendingRequest, worker: Worker) -> AsyncIterator[bytes]:
    """The server-sent events of a streamed answer. When the client goes away this is cancelled, and the request with it."""
    try:
        chunks = work.opening()
        going = True
        while going:
            event = await pending.events.get()
            while True:
                if isinstance(event, list):
                    chunks += work.chunks(event)
                else:
                    chunks += work.closing() if event is None else [event.body]
                    going = False
                if not going or pending.events.empty():
                    break
                event = pending.events.get_nowait()  # what came in the meantime goes out with it
            yield b"".join(map(_event, chunks)) + (b"" if going else b"data: [DONE]\n\n")
            chunks = []
    finally:
        worker.cancel(pending)


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"


async def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _api_error(request, validation_error(error.errors()))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        told = ApiError(404, f"there is no {request.url.path[:80]} here; /docs lists what there is")
    elif error.status_code == 405:
        told = ApiError(
            405, f"{request.method} is not for this path; /docs lists what is", headers=dict(error.headers or {})
        )
    else:
        code = "body_too_large" if error.status_code == 413 else None
        told = ApiError(error.status_code, str(error.detail), code=code)
    return await _api_error(request, told)


async def _internal(request: Request, error: Exception) -> Response:
    return await _api_error(request, ApiError(500, f"internal error: {type(error).__name__}"))
