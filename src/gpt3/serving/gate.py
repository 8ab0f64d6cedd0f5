"""What every request passes before it is looked at: who asks, what for, how much; and the headers of every answer."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

from gpt3.serving.errors import ApiError
from gpt3.serving.metrics import Metrics

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

OPEN_PATHS = ("/", "/health", "/docs", "/openapi.json", "/favicon.ico")
"""What needs no key: the page itself (it asks for the key), and whether the server lives."""
MOST_SWALLOWED = 16 * 1024 * 1024
"""Bytes of a refused body that are read before the answer; a client that sends more finds the connection closed."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Gate:
    """ASGI middleware.

    Args:
        app: what is behind it.
        key: clients must send; None: nobody is asked.
        max_body: bytes of a request's body.
        local: the server listens on this machine only and has no key: requests that a foreign web page's host name leads here
            (DNS rebinding) are refused.
        metrics: counts the answers.
    """

    def __init__(self, app: Any, key: str | None, max_body: int, local: bool, metrics: Metrics) -> None:
        self.app, self.max_body, self.local, self.metrics = app, max_body, local, metrics
        self._key = None if key is None else key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}

        async def answer(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                known = {name for name, _ in message["headers"]}
                extra = [
                    (name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in known
                ]
                message["headers"] = [*message["headers"], *extra]
                route = scope.get("route")
                path = getattr(route, "path", None) or "other"
                self.metrics.add("gpt3_requests_total", path=path, status=str(message["status"]))
            await send(message)

        try:
            self._check(scope, headers)
        except ApiError as error:
            await _swallow(receive)
            await error.response(scope, receive, answer)
            return
        received = 0

        async def limited() -> MutableMapping[str, Any]:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self.max_body:
                    if message.get("more_body", False):
                        await _swallow(receive)
                    told = f"the body is larger than {self.max_body:,} bytes (--max-body); send less"
                    raise HTTPException(413, told)  # of what reading a body raises, FastAPI passes on this kind
            return message

        await self.app(scope, limited, answer)

    def _check(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        if self.local and not _is_local(headers.get(b"host", b"").decode("latin-1")):
            raise ApiError(
                403, "this server is for this machine only; ask for it as localhost or 127.0.0.1", code="host"
            )
        path = scope["path"]
        if self._key is not None and path not in OPEN_PATHS and not path.startswith("/playground/"):
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._key):
                what = "Incorrect API key provided" if given else "You didn't provide an API key"
                message = f"{what}. Send it in a header: Authorization: Bearer YOUR_KEY"
                raise ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        if scope["method"] == "POST":
            kind = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
            if kind != "application/json":  # also keeps out forms of foreign web pages, which cannot send this type
                raise ApiError(
                    415, f"the content type is {kind[:40] or 'missing'}; send JSON with Content-Type: application/json"
                )


async def _swallow(receive: Receive) -> None:
    """Read what still comes of a refused body: a client that is busy sending would not see the answer."""
    left = MOST_SWALLOWED
    while left > 0:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            return
        left -= len(message.get("body", b""))


def _is_local(host: str) -> bool:
    name = host.rpartition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
    return name in ("localhost", "[::1]") or (name.startswith("127.") and name.replace(".", "").isdigit())
