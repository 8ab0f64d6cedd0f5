"""Errors as OpenAI's API gives them: an HTTP status and one JSON object."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response


class ApiError(Exception):
    """An answer that is no success.

    Args:
        status: of HTTP.
        message: one line: what is wrong, which value, what to do.
        param: the field it is about.
        code: a word that programs can compare.
        headers: more of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.headers = status, message, param, code, headers or {}

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        kind = "invalid_request_error"
        if self.status == 429:
            kind = "rate_limit_error"
        elif self.status >= 500:
            kind = "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def response(self) -> Response:
        """The answer. In ASCII: what it quotes of a request may be no text."""
        return Response(json.dumps(self.body), self.status, self.headers, "application/json")


def bad(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """A request that cannot be carried out as it is: 400."""
    return ApiError(400, message, param=param, code=code)
