"""Access: who may ask, with which key and how large a body; and the security headers of every response."""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpt3.serving.metrics import Metrics
from gpt3.serving.options import ServeOptions
from gpt3.serving.schema import ApiError

OPEN_PATHS = ("/", "/health", "/docs", "/openapi.json", "/favicon.ico")
"""Paths that need no key: the page itself (it asks for the key), and whether the server is up."""
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


class Gate:
    """ASGI middleware.

    A server that only this machine reaches and that has no key refuses requests to other host names, which a foreign web page
    can point here (DNS rebinding).

    Args:
        app: handles the requests that pass.
        options: key, largest body, and address.
        metrics: counts the responses.
    """

    def __init__(self, app: ASGIApp, options: ServeOptions, metrics: Metrics) -> None:
        self.app, self.max_body, self.metrics = app, options.max_body, metrics
        self._key = None if options.key is None else options.key.encode()
        self._local = options.loopback and options.key is None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                path = getattr(scope.get("route"), "path", None) or "other"
                self.metrics.add("gpt3_requests_total", path=path, status=str(message["status"]))
            await send(message)

        try:
            self._check(scope, Headers(scope=scope))
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

    def _check(self, scope: Scope, headers: Headers) -> None:
        if self._local and not _is_local(headers.get("host", "")):
            raise ApiError(
                403, "this server is for this machine only; ask for it as localhost or 127.0.0.1", code="host"
            )
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
                raise ApiError(
                    415, f"the content type is {kind[:40] or 'missing'}; send JSON with Content-Type: application/json"
                )


async def _discard(receive: Receive) -> None:
    """Read the rest of a refused body: a client that is busy sending would not see the response."""
    left = MOST_DISCARDED
    while left > 0:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            return
        left -= len(message.get("body", b""))


def _is_local(host: str) -> bool:
    name = host.rpartition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
    return name in ("localhost", "[::1]") or (name.startswith("127.") and name.replace(".", "").isdigit())
