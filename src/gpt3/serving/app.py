"""The server's paths: OpenAI's API, metrics, the API reference, the Playground; and who may ask for them."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from fastapi.routing import APIRoute
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpt3 import __version__
from gpt3.inference.language_model import LanguageModel
from gpt3.serving import openapi
from gpt3.serving.catalog import Catalog
from gpt3.serving.completions import Chat, Completion, TextRequest
from gpt3.serving.host import is_local
from gpt3.serving.options import ServeOptions
from gpt3.serving.origins import Origins, check_own_page
from gpt3.serving.responses import EventStream, finished
from gpt3.serving.schema import SAMPLER, ApiError, Body, ChatBody, CompletionBody, LoadBody, parse, validation_error
from gpt3.serving.worker import ComputeThread, Metrics, Worker

ACCESS = (401, 403)
"""Refusals of a path without a body."""
ASSETS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
"""Media types by file extension."""
OPEN_PATHS = ("/", "/health", "/docs", "/openapi.json", "/favicon.ico")
"""Paths that need no key: the page itself (it asks for the key), and whether the server is up."""
SHORT_BODY = 4096
"""Bytes; a body that is shorter is tokenized on the event loop."""
MOST_DISCARDED = 16 * 1024 * 1024
"""Bytes of a refused body that are read before the response; a client that sends more finds the connection closed."""
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
"""Of every response."""


def assemble(models: Mapping[str, LanguageModel], options: ServeOptions) -> tuple[FastAPI, ComputeThread]:
    """The ASGI application that serves these models under these ids, and its compute thread.

    A request that names no model is for the first one. Without models, requests for texts get status 503 until one is loaded.
    The application's lifespan starts and ends the thread.
    """
    metrics = Metrics()
    compute = ComputeThread(models, options, metrics)
    catalog = Catalog(compute, options)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        compute.start()
        try:
            yield
        finally:  # of a second Ctrl-C, too
            await asyncio.to_thread(compute.close)

    app = FastAPI(title="gpt3", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.router.route_class = JsonRoute
    app.add_middleware(Gate, options=options, metrics=metrics)
    for kind in (ApiError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _error)
    document = app.openapi
    app.openapi = lambda: openapi.corrected(document())  # type: ignore[method-assign]

    def worker_of(name: str | None) -> Worker:
        workers = compute.workers
        if name is not None and name in workers:
            return workers[name]
        if (loading := catalog.loading) is not None and (not workers or name == loading.id):
            message = f"the model {loading.id} is being loaded; try again in a moment"
            raise ApiError(503, message, param="model", code="model_loading", headers={"Retry-After": "5"})
        if not workers:
            message = "no model is loaded yet: choose one in the Playground at /, or by POST /v1/models/load"
            raise ApiError(503, message, param="model", code="no_model")
        if name is None:
            return next(iter(workers.values()))
        known = ", ".join(f"'{other}'" for other in workers)
        others = ", and /v1/models lists those that can be loaded" if options.extensible else ""
        message = f"The model '{str(name)[:80]}' does not exist; this server has {known}{others}"
        raise ApiError(404, message, param="model", code="model_not_found")

    async def respond(kind: type[TextRequest], worker: Worker, body: Any, request: Request) -> Response:
        if is_quick(body, request, worker):
            work = kind(worker.served, body)
        else:
            work = await asyncio.to_thread(kind, worker.served, body)
        if not (work.stream or any(choice.needs_engine for choice in work.choices)):  # it only counts tokens: no wait
            for choice in work.choices:
                choice.advance([])
            return JSONResponse(work.answer())
        worker.submit(work)
        if work.stream:
            return EventStream(work, worker)
        await finished(work, worker, request.receive)
        return JSONResponse(work.answer())

    streamed = "with stream events, closed by data: [DONE]"
    completed = openapi.responses(openapi.COMPLETION, f"the texts; {streamed}", stream=True)
    chatted = openapi.responses(openapi.CHAT_COMPLETION, f"the answers; {streamed}", stream=True)

    @app.post("/v1/completions", summary="Continue text", responses=completed)
    async def completions(body: CompletionBody, request: Request) -> Response:
        return await respond(Completion, worker_of(body.model), body, request)

    @app.post(
        "/v1/engines/{engine:path}/completions", summary="Continue text, at the path of 2020", responses=completed
    )
    async def engine_completions(engine: str, body: CompletionBody, request: Request) -> Response:
        worker_of(body.model)
        return await respond(Completion, worker_of(engine), body, request)

    @app.post("/v1/chat/completions", summary="Answer in a conversation", responses=chatted)
    async def chat_completions(body: ChatBody, request: Request) -> Response:
        return await respond(Chat, worker_of(body.model), body, request)

    listed = openapi.responses(openapi.MODELS, "served ones as data, and those that can be loaded as available", ACCESS)

    @app.get("/v1/models", summary="The models", responses=listed)
    @app.get("/v1/engines", include_in_schema=False)
    async def models_() -> dict[str, Any]:
        available = await asyncio.to_thread(catalog.cards) if options.extensible else []
        data = [worker.served.card for worker in compute.workers.values()]
        return {"object": "list", "data": data, "available": available}

    started = openapi.responses(openapi.LOAD, "it is loaded, or on its way", (400, *ACCESS, 404, 409, 413, 415))

    @app.post("/v1/models/load", summary="Load a model that is available", responses=started)
    async def load(body: LoadBody, request: Request) -> dict[str, str]:
        check_own_page(request.headers)
        return {"id": body.model, "state": await asyncio.to_thread(catalog.load, body.model)}

    one_model = openapi.responses(openapi.MODEL, "the model", (*ACCESS, 404, 503))

    @app.get("/v1/models/{model:path}", summary="One model", responses=one_model)
    @app.get("/v1/engines/{model:path}", include_in_schema=False)
    async def model(model: str) -> dict[str, Any]:
        return worker_of(model).served.card

    healthy = openapi.responses(openapi.HEALTH, "it does", (403,))
    healthy[503] = {**healthy[200], "description": "it is stopping, or has no model yet"}

    @app.get("/health", summary="Whether the server takes requests", responses=healthy)
    async def health() -> JSONResponse:
        names = list(compute.workers)
        status = "stopping" if compute.draining else "ok" if names else "no model"
        return JSONResponse({"status": status, "models": names}, 200 if status == "ok" else 503)

    refused = openapi.responses(None, "", ACCESS)

    @app.get("/metrics", summary="Counters for Prometheus", response_class=PlainTextResponse, responses=refused)
    async def show_metrics() -> PlainTextResponse:
        running = sum(worker.running for worker in compute.workers.values())
        waiting = sum(worker.waiting for worker in compute.workers.values())
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

    return app, compute


def is_quick(body: Body, request: Request, worker: Worker) -> bool:
    """Whether a request is prepared on the event loop: another thread takes longer to wake than its few tokens take."""
    short = int(request.headers.get("content-length", SHORT_BODY)) < SHORT_BODY
    return short and body.response_format is None and not worker.served.tokenizing


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


class JsonRequest(Request):
    """A request whose body `schema.parse` reads."""

    async def json(self) -> Any:
        """The body."""
        return parse(await self.body())


class JsonRoute(APIRoute):
    """A path that gets such requests."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """As APIRoute's."""
        handle = super().get_route_handler()

        async def read(request: Request) -> Response:
            return await handle(JsonRequest(request.scope, request.receive))

        return read


class Gate:
    """ASGI middleware: lets requests in or refuses them, limits their bodies, and adds the headers of security and of CORS.

    A server that only this machine reaches and that has no key refuses requests to other host names, which a foreign web page
    can point here (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, options: ServeOptions, metrics: Metrics) -> None:
        self.app, self.max_body, self.metrics = app, options.max_body, metrics
        self._key = None if options.key is None else options.key.encode()
        self._local = options.loopback and options.key is None
        self._origins = Origins(options.allow_origin)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        # HEAD asks what GET does, and uvicorn leaves out the body. A redirect for a last slash would leave TLS behind a proxy.
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        scope = {**scope, "method": method, "path": scope["path"].rstrip("/") or "/"}

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in (HEADERS | self._origins.headers(sent)).items():
                    headers.setdefault(name, value)
                path = getattr(scope.get("route"), "path_format", None) or "other"
                self.metrics.add("gpt3_requests_total", path=path, status=str(message["status"]))
            await send(message)

        sent = Headers(scope=scope)
        try:
            self._check_host(sent)
            if scope["method"] == "OPTIONS" and "access-control-request-method" in sent:  # comes without a key
                await self._origins.preflight(sent)(scope, receive, answer)
                return
            self._check(scope, sent)
        except ApiError as error:
            await _discard(receive)
            await error.response(scope, receive, answer)
            return
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self.max_body:
                    if message.get("more_body", False):
                        await _discard(receive)
                    reason = f"the body is larger than {self.max_body:,} bytes (--max-body); send less"
                    raise HTTPException(413, reason)  # of what reading a body raises, FastAPI passes on this kind
            return message

        await self.app(scope, limited, answer)

    def _check_host(self, headers: Headers) -> None:
        if self._local and not is_local(headers.get("host", "")):
            message = "this server is for this machine only; ask for it as localhost or 127.0.0.1"
            raise ApiError(403, message, code="host")

    def _check(self, scope: Scope, headers: Headers) -> None:
        path = scope["path"]
        if self._key is not None and path not in OPEN_PATHS and not path.startswith("/playground/"):
            scheme, _, given = headers.get("authorization", "").encode("latin-1").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._key):
                what = "Incorrect API key provided" if given else "You didn't provide an API key"
                message = f"{what}. Send it in a header: Authorization: Bearer YOUR_KEY"
                raise ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        if scope["method"] == "POST":
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":  # also keeps out forms of foreign web pages, which cannot send this type
                kind = kind[:40] or "missing"
                raise ApiError(415, f"the content type is {kind}; send JSON with Content-Type: application/json")


async def _discard(receive: Receive) -> None:
    """Read the rest of a refused body: a client that is busy sending would not see the response."""
    left = MOST_DISCARDED
    while left > 0:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            return
        left -= len(message.get("body", b""))
