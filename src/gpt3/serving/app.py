"""The server's paths: OpenAI's API, metrics, the API reference, the Playground."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from gpt3 import __version__
from gpt3.inference.language_model import LanguageModel
from gpt3.serving import openapi
from gpt3.serving.completions import Chat, Completion, TextRequest
from gpt3.serving.gate import Gate
from gpt3.serving.metrics import Metrics
from gpt3.serving.options import ServeOptions
from gpt3.serving.schema import SAMPLER, ApiError, ChatBody, CompletionBody, validation_error
from gpt3.serving.texts import Delta, ServedModel
from gpt3.serving.worker import ComputeThread, PendingRequest, Worker

ACCESS = (401, 403)
"""Refusals of a path without a body."""
ASSETS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
"""Media types by file extension."""


def assemble(models: Mapping[str, LanguageModel], options: ServeOptions) -> tuple[FastAPI, list[Worker]]:
    """The application that serves these models under these ids, and one worker per model."""
    metrics, condition = Metrics(), threading.Condition()
    served = [ServedModel(model, name, options.max_samples) for name, model in models.items()]
    workers = [Worker(each, options, metrics, condition) for each in served]
    return create_app(workers, options, metrics, ComputeThread(workers, condition)), workers


def create_app(workers: Sequence[Worker], options: ServeOptions, metrics: Metrics, compute: ComputeThread) -> FastAPI:
    """The ASGI application; a request that names no model is for the first one. Its lifespan starts and ends `compute`."""
    by_name = {worker.served.name: worker for worker in workers}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        compute.start()
        yield
        await asyncio.to_thread(compute.close)

    app = FastAPI(title="gpt3", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(Gate, options=options, metrics=metrics)
    for kind in (ApiError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _error)
    document = app.openapi
    app.openapi = lambda: openapi.corrected(document())  # type: ignore[method-assign]

    def worker_of(name: str | None) -> Worker:
        if name is None:
            return workers[0]
        if name not in by_name:
            known = ", ".join(f"'{other}'" for other in by_name)
            message = f"The model '{str(name)[:80]}' does not exist; this server has {known}"
            raise ApiError(404, message, param="model", code="model_not_found")
        return by_name[name]

    async def respond(kind: type[TextRequest], worker: Worker, body: Any, request: Request) -> Response:
        work = await asyncio.to_thread(kind, worker.served, body)
        if not (
            body.stream or any(choice.needs_engine for choice in work.choices)
        ):  # it only counts tokens: no waiting
            for choice in work.choices:
                choice.advance([])
            return JSONResponse(work.answer())
        pending = PendingRequest(work.choices, bool(body.stream), options.timeout)
        worker.submit(pending)
        if pending.stream:
            headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
            return StreamingResponse(events(work, pending, worker), media_type="text/event-stream", headers=headers)
        await finished(pending, worker, request)
        return JSONResponse(work.answer())

    streamed = "with stream events, closed by data: [DONE]"
    completed = openapi.responses(openapi.COMPLETION, f"the texts; {streamed}", stream=True)
    chatted = openapi.responses(openapi.CHAT_COMPLETION, f"the answers; {streamed}", stream=True)

    @app.post("/v1/completions", summary="Continue text", responses=completed)
    async def completions(body: CompletionBody, request: Request) -> Response:
        return await respond(Completion, worker_of(body.model), body, request)

    @app.post("/v1/engines/{engine}/completions", summary="Continue text, at the path of 2020", responses=completed)
    async def engine_completions(engine: str, body: CompletionBody, request: Request) -> Response:
        worker_of(body.model)
        return await respond(Completion, worker_of(engine), body, request)

    @app.post("/v1/chat/completions", summary="Answer in a conversation", responses=chatted)
    async def chat_completions(body: ChatBody, request: Request) -> Response:
        return await respond(Chat, worker_of(body.model), body, request)

    @app.get("/v1/models", summary="The served models", responses=openapi.responses(openapi.MODELS, "a list", ACCESS))
    @app.get("/v1/engines", include_in_schema=False)
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [worker.served.card for worker in workers]}

    one = openapi.responses(openapi.MODEL, "the model", (*ACCESS, 404))

    @app.get("/v1/models/{model}", summary="One model", responses=one)
    @app.get("/v1/engines/{model}", include_in_schema=False)
    async def model(model: str) -> dict[str, Any]:
        return worker_of(model).served.card

    healthy = openapi.responses(openapi.HEALTH, "it does", (403,))
    healthy[503] = {**healthy[200], "description": "it is stopping"}

    @app.get("/health", summary="Whether the server takes requests", responses=healthy)
    async def health() -> JSONResponse:
        stopping = any(worker.draining for worker in workers)
        return JSONResponse(
            {"status": "stopping" if stopping else "ok", "models": list(by_name)}, 503 if stopping else 200
        )

    refused = openapi.responses(None, "", ACCESS)

    @app.get("/metrics", summary="Counters for Prometheus", response_class=PlainTextResponse, responses=refused)
    async def show_metrics() -> PlainTextResponse:
        running, waiting = (sum(getattr(worker, name) for worker in workers) for name in ("running", "waiting"))
        text = metrics.render(gpt3_texts_running=running, gpt3_requests_waiting=waiting)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(openapi.reference_page(app.openapi()))

    assets = resources.files("gpt3.serving") / "assets"
    files = {item.name: item.read_bytes() for item in assets.iterdir() if item.name.rpartition(".")[2] in ASSETS}
    fields = CompletionBody.model_json_schema()["properties"]
    files["options.js"] = b"export const OPTIONS = " + orjson.dumps({name: fields[name] for name in SAMPLER}) + b";\n"

    @app.get("/playground/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        if name not in files:
            raise ApiError(404, f"{name[:40]} does not exist")
        return Response(files[name], media_type=ASSETS[name.rpartition(".")[2]], headers={"Cache-Control": "no-cache"})

    @app.get("/", include_in_schema=False)
    async def playground() -> Response:
        return await asset("playground.html")

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
        event = end.result() if end.done() else ApiError(499, "the client went away")
        if isinstance(event, ApiError):
            raise event
    finally:
        worker.cancel(pending)
        end.cancel()
        gone.cancel()
        await asyncio.gather(end, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


async def events(work: TextRequest, pending: PendingRequest, worker: Worker) -> AsyncIterator[bytes]:
    """The server-sent events of a streamed answer. When the client goes away this is cancelled, and the request with it."""
    try:
        chunks, ended = work.opening(), False
        while not ended:
            arrived = [await pending.events.get()]
            while not pending.events.empty():
                arrived.append(pending.events.get_nowait())  # what came in the meantime is sent with it
            for event in arrived:
                if isinstance(event, Delta):
                    chunks += work.chunks(event)
                else:
                    chunks += work.closing() if event is None else [event.body]
                    ended = True
            lines = [b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks]
            yield b"".join(lines) + (b"data: [DONE]\n\n" if ended else b"")
            chunks = []
    finally:
        worker.cancel(pending)


async def _error(request: Request, error: Exception) -> Response:
    """Any exception as OpenAI's error object."""
    if isinstance(error, RequestValidationError):
        error = validation_error(error.errors())
    elif isinstance(error, HTTPException):
        status, message = error.status_code, str(error.detail)
        if status == 404:
            message = f"{request.url.path[:80]} does not exist; /docs lists the paths"
        elif status == 405:
            message = f"{request.method} is not allowed here; /docs lists the methods of each path"
        code = "body_too_large" if status == 413 else None
        error = ApiError(status, message, code=code, headers=dict(error.headers or {}))
    elif not isinstance(error, ApiError):
        error = ApiError(500, f"internal error: {type(error).__name__}")
    return error.response
