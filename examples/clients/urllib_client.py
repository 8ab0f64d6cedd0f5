"""A model served by ``gpt3 serve``, asked with Python's standard library: one answer, then a stream.

usage: python urllib_client.py ["Your prompt"]   (GPT3_URL: the server; GPT3_API_KEY: its key, if it has one)
"""

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPResponse

URL = os.environ.get("GPT3_URL", "http://127.0.0.1:8000")
KEY = os.environ.get("GPT3_API_KEY", "none")


def post(path: str, body: dict) -> HTTPResponse:
    """The response to a JSON body."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    return urllib.request.urlopen(urllib.request.Request(URL + path, json.dumps(body).encode(), headers), timeout=600)


def complete(prompt: str, **options: object) -> str:
    """The model's continuation of a prompt."""
    with post("/v1/completions", {"prompt": prompt, **options}) as response:
        return json.load(response)["choices"][0]["text"]


def stream(prompt: str, **options: object) -> Iterator[str]:
    """The same in pieces, as they are generated."""
    with post("/v1/completions", {"prompt": prompt, "stream": True, **options}) as response:
        for line in response:
            data = line.decode().removeprefix("data: ").strip()
            if data == "[DONE]":
                return
            if data:
                event = json.loads(data)
                if "error" in event:  # after the first piece an error is an event, too
                    raise RuntimeError(event["error"]["message"])
                yield "".join(choice["text"] for choice in event["choices"])


if __name__ == "__main__":
    prompt = sys.argv[1] if len(sys.argv) > 1 else "The sea was"
    options = {"max_tokens": 20, "temperature": 0.7, "seed": 1}  # with a seed both have the same text
    try:
        print(prompt + complete(prompt, **options))
        print(prompt, end="")
        for piece in stream(prompt, **options):
            print(piece, end="", flush=True)
        print()
    except urllib.error.HTTPError as error:
        sys.exit(json.load(error)["error"]["message"])
