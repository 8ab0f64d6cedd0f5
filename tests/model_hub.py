"""A Hugging Face hub on 127.0.0.1: as much of it as publishing and reading a model asks for, with git-lfs for large files."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from loopback_hub import HubServer, send

MODEL = r"/api/models/([^/]+/[^/]+)"


class ModelHub(HubServer):
    """Serves repositories, name → path → content.

    Attributes:
        private: the repositories that are private.
        others: repositories of other kinds, as (kind, name), such as ("datasets", "me/demo").
        refuse: (method, path) → a status to answer, or None to serve.
        commits: the files that each commit added and deleted.
        sent: the sha256 of each large file that was uploaded.
        reads_configurations: whether a model's record has the content of its config.json.
    """

    def __init__(self, token: str | None = None) -> None:
        super().__init__()
        self.token = token
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.others: set[tuple[str, str]] = set()
        self.refuse: Callable[[str, str], int | None] = lambda method, path: None
        self.commits: list[dict[str, list[str]]] = []
        self.objects: dict[str, bytes] = {}
        self.sent: list[str] = []
        self.reads_configurations = True

    def answer(self, request: BaseHTTPRequestHandler, path: str, body: bytes) -> None:
        """Answer one request, or refuse it."""
        status, content = self.refuse(request.command, path), b"refused"
        if self.token and "/objects/" not in path and request.headers.get("Authorization") != f"Bearer {self.token}":
            status = 401
        if status is None:
            status, content = self.found(request.command, path, body)
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = {"X-Repo-Commit": "0" * 40, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
        if status == 404:
            kind = "RepoNotFound" if re.fullmatch(r"/api/\w+/[^/]+/[^/]+", path) else "EntryNotFound"
            headers["X-Error-Code"] = kind
        send(request, status, data, headers)

    def found(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if path == "/api/repos/create":
            wish = json.loads(body)
            name = f"{wish.get('organization') or 'me'}/{wish['name']}"
            self.files.setdefault(name, {})
            self.private |= {name} if wish.get("visibility") == "private" or wish.get("private") else set()
            return 200, {"url": f"{self.endpoint}/{name}", "id": name, "name": name}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if match := re.fullmatch(rf"{MODEL}/preupload/main", path):
            modes = {True: "lfs", False: "regular"}
            names = [file["path"] for file in json.loads(body)["files"]]
            return 200, {
                "files": [
                    {"path": n, "uploadMode": modes[n.endswith((".safetensors", ".gguf"))], "shouldIgnore": False}
                    for n in names
                ]
            }
        if path.endswith("/info/lfs/objects/batch"):
            objects = [self.wanted(item) for item in json.loads(body)["objects"]]
            return 200, {"transfer": "basic", "objects": objects}
        if match := re.fullmatch(r"/objects/(\w+)", path):
            self.objects[match[1]] = body
            self.sent.append(match[1])
            return 200, b""
        if match := re.fullmatch(rf"{MODEL}/commit/main", path):
            return self.commit(match[1], [json.loads(line) for line in body.splitlines()])
        if match := re.fullmatch(rf"{MODEL}/settings", path):
            self.private -= {match[1]}
            return 200, {}
        if (match := re.fullmatch(rf"{MODEL}(/revision/main)?", path)) and match[1] in self.files:
            files = self.files[match[1]]
            config = json.loads(files["config.json"]) if "config.json" in files and self.reads_configurations else None
            siblings = [{"rfilename": name} for name in files]
            private = match[1] in self.private
            return 200, {"id": match[1], "sha": "0" * 40, "siblings": siblings, "config": config, "private": private}
        if (match := re.fullmatch(r"/api/(datasets|spaces)/([^/]+/[^/]+)", path)) and match.groups() in self.others:
            return 200, {"id": match[2], "sha": "0" * 40, "siblings": []}
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            data = self.files.get(match[1], {}).get(match[2])
            return (404, b"") if data is None else (200, data)
        return 404, b""

    def wanted(self, item: dict[str, Any]) -> dict[str, Any]:
        """What git-lfs is to do with an object: upload it, unless it is here."""
        upload = {"upload": {"href": f"{self.endpoint}/objects/{item['oid']}"}}
        return item if item["oid"] in self.objects else {**item, "actions": upload}

    def commit(self, name: str, entries: list[dict[str, Any]]) -> tuple[int, Any]:
        added, deleted = {}, []
        for entry in entries:
            value = entry["value"]
            if entry["key"] == "file":
                added[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                added[value["path"]] = self.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                deleted.append(value["path"])
        self.files[name] = {k: v for k, v in self.files[name].items() if k not in deleted} | added
        self.commits.append({"added": sorted(added), "deleted": deleted})
        return 200, {"commitUrl": f"{self.endpoint}/{name}/commit/1", "commitOid": "0" * 40, "success": True}
