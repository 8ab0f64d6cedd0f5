"""CORS: which web pages may use the server, by the Fetch standard."""

import urllib.request
from urllib.error import HTTPError

import pytest
from live_server import serving

from gpt3.errors import InputError
from gpt3.serving.options import ServeOptions

PAGE, OTHER = "https://app.example", "https://evil.example"
READ = "access-control-allow-origin"


@pytest.fixture(scope="module")
def server(language_model):
    with serving(language_model, allow_origin=[PAGE], api_key="secret") as live:
        yield live


def preflight(live, origin: str, headers: str = "authorization,content-type,x-stainless-os"):
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": headers}
    request = urllib.request.Request(live.url + "/v1/completions", headers=asked, method="OPTIONS")
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.headers
    except HTTPError as error:
        return error.code, error.headers


def test_a_browser_that_asks_before_a_request_is_told_without_a_key(server) -> None:
    status, headers = preflight(server, PAGE)
    assert status == 204
    assert headers[READ] == PAGE
    assert headers["access-control-allow-headers"] == "authorization,content-type,x-stainless-os"
    assert set(headers["access-control-allow-methods"].split(", ")) == {"GET", "POST"}
    status, headers = preflight(server, OTHER)
    assert status == 403
    assert headers[READ] is None


def test_every_answer_to_an_allowed_page_can_be_read_there_and_no_other(server) -> None:
    key = {"Authorization": "Bearer secret"}
    body = {"prompt": "The", "max_tokens": 2, "stream": True}
    for sent, headers, status in ((body, key, 200), ({"n": 0}, key, 400), (body, {}, 401)):
        answer = server.ask("/v1/completions", sent, {"Origin": PAGE, **headers})
        assert (answer[0], answer[2][READ]) == (status, PAGE)
        answer = server.ask("/v1/completions", sent, {"Origin": OTHER, **headers})
        assert (answer[0], answer[2][READ]) == (status, None)
        assert answer[2]["vary"] == "Origin"  # a cache keeps them apart
        assert answer[2]["access-control-allow-credentials"] is None
    assert server.ask("/v1/models", headers=key)[2][READ] is None


def test_no_page_may_by_default_and_all_with_a_star(live, language_model) -> None:
    assert preflight(live, PAGE)[0] == 403
    headers = live.ask("/v1/models", headers={"Origin": PAGE})[2]
    assert (headers[READ], headers["vary"]) == (None, None)
    with serving(language_model, allow_origin=["*"]) as open_to_all:
        assert preflight(open_to_all, OTHER)[1][READ] == OTHER
        foreign = {"Host": "evil.example", "Origin": OTHER}  # a name that points here (DNS rebinding) is still refused
        assert open_to_all.ask("/v1/models", headers=foreign)[0] == 403


@pytest.mark.parametrize("origin", ["app.example", "https://app.example/", "https://a.example,https://b.example", ""])
def test_what_no_browser_sends_is_refused_at_the_start(origin: str) -> None:
    with pytest.raises(InputError, match="is not an origin"):
        ServeOptions(allow_origin=[origin])
    ServeOptions(allow_origin=["http://localhost:3000", "https://[::1]", "app://obsidian.md", "*"])
