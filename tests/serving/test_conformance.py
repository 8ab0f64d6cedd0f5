"""The OpenAPI document and the server agree: schemathesis sends what the document allows and what it forbids (-m slow)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from live_server import TEMPLATE, serving


def test_the_document_tells_what_is_answered(live) -> None:
    """Statuses the server never gives are not in it, and every answer's shape is."""
    document = live.ask("/openapi.json")[1]
    assert "422" not in json.dumps(document["paths"])
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["responses"]["200"]["content"], path
    answers = document["paths"]["/v1/completions"]["post"]["responses"]
    assert set(answers["200"]["content"]) == {"application/json", "text/event-stream"}
    error = answers["400"]["content"]["application/json"]["schema"]["properties"]["error"]
    assert set(live.ask("/v1/completions", {"n": 0})[1]["error"]) == set(error["required"])


@pytest.mark.slow
def test_schemathesis_finds_no_answer_that_the_document_does_not_know(language_model, tmp_path: Path) -> None:
    here = str(Path(sys.executable).parent)
    command = shutil.which("schemathesis", path=f"{here}{os.pathsep}{os.environ['PATH']}")
    if command is None:
        pytest.skip("needs schemathesis: pip install schemathesis")
    language_model.tokenizer.chat_template = TEMPLATE
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    try:
        with serving(language_model, max_samples=8) as live:
            options = [f"{live.url}/openapi.json", "--checks", f"{checks},negative_data_rejection", "--seed", "1"]
            options += [
                "--max-examples",
                "60",
                "--phases",
                "examples,coverage,fuzzing",
                "--generation-database",
                "none",
            ]
            options += ["--request-timeout", "90"]  # the first one may wait until kernels are compiled
            done = subprocess.run([command, "run", *options], capture_output=True, text=True, timeout=900, cwd=tmp_path)
            assert live.worker.running == live.worker.waiting == 0
    finally:
        language_model.tokenizer.chat_template = None
    assert done.returncode == 0, done.stdout[-6000:]
