"""Web pages of other origins that may use the server: the headers of CORS (Fetch standard, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response

from gpt3.serving.schema import ApiError

SECONDS_TO_REMEMBER = "600"
"""Time for which a browser does not ask again."""


class Origins:
    """The origins that may read answers. A page sends the key itself; cookies and the browser's own credentials are not used.

    Args:
        allowed: origins such as https://example.org, or *.
    """

    def __init__(self, allowed: Sequence[str]) -> None:
        self._allowed = {origin.lower() for origin in allowed}

    def _allows(self, origin: str) -> bool:
        return bool(origin) and ("*" in self._allowed or origin.lower() in self._allowed)

    def headers(self, request: Headers) -> dict[str, str]:
        """Of the answer to a request: nothing where no page is allowed anything."""
        origin = request.get("origin", "")
        found = {"vary": "Origin"} if self._allowed else {}
        if self._allows(origin):
            found |= {"access-control-allow-origin": origin, "access-control-expose-headers": "Retry-After"}
        return found

    def preflight(self, request: Headers) -> Response:
        """The answer to a browser that asks before it sends a page's request.

        Raises:
            ApiError: 403, the page's origin is not allowed.
        """
        origin = request.get("origin", "")
        if not self._allows(origin):
            message = f"pages of {origin[:80]} may not use this server; --allow-origin {origin[:80]} allows them"
            raise ApiError(403, message, code="origin")
        return Response(
            status_code=204,
            headers={
                "access-control-allow-methods": "GET, POST",
                "access-control-allow-headers": request.get("access-control-request-headers", "Content-Type"),
                "access-control-max-age": SECONDS_TO_REMEMBER,
            },
        )


def check_own_page(request: Headers) -> None:
    """Of browsers' pages only this server's own may ask for what it does to the server; programs, which send no origin, may.

    Raises:
        ApiError: 403, another origin's page asks, be it allowed to use the models or not.
    """
    site, origin = request.get("sec-fetch-site"), request.get("origin")
    own = site in ("same-origin", "none") if site else origin is None or urlsplit(origin).netloc == request.get("host")
    if not own:
        raise ApiError(403, "only this server's own page may load models, not those of other origins", code="origin")
