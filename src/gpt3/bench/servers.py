"""One contender of the serving benchmark, in a process of its own: ``python servers.py REQUEST.json``.

A server prints its address and serves until its standard input ends; a contender without HTTP writes the clients' texts itself
and prints times as JSON. Greedy; no text ends early, end-of-text or not. Loading and a first short writing are not timed.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch

from gpt3.bench.generators import GGUF_FORMATS, WARM_UP
from gpt3.threads import in_passing_thread

Request = dict[str, Any]
ALONE = 4
"""Texts that are written one after another, at most; their pace does not depend on how many."""


def load_gpt3(request: Request) -> Any:
    """This package's model, which goes on past end-of-text."""
    from gpt3 import load

    int8 = request["weights"] == "int8"
    model = load(request["model"], device="cpu", dtype="fp32", quantize="int8" if int8 else "none")
    model.ends = set()
    return model


def server(request: Request) -> None:
    """`gpt3 serve`, with a slot for each client."""
    from gpt3.serving.host import address_of, assemble, listen, serve
    from gpt3.serving.options import ServeOptions

    model = in_passing_thread(lambda: load_gpt3(request))
    options = ServeOptions(port=0, slots=request["clients"], queue=2 * request["clients"], grace=0.0)
    listening = listen(options.host, options.port)
    app, workers = assemble({"bench": model}, options)
    serve(app, workers, listening, options, lambda: print(address_of(listening), flush=True))


def llama_server(request: Request) -> None:
    """llama.cpp's server through xllamacpp, with a slot for each client."""
    import xllamacpp

    from gpt3.export.llama_cpp import silent

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(Path(request["ggufs"]) / f"{GGUF_FORMATS[request['weights']]}.gguf")
    parameters.n_parallel = request["clients"]
    parameters.n_ctx = (
        request["clients"] * 256 * math.ceil(request["longest"] / 256)
    )  # it rounds a text's share up to that
    parameters.n_gpu_layers = 0
    parameters.fit_params = False
    parameters.verbosity = -1
    parameters.cache_ram_mib = 0
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = request["threads"]
    with silent():
        running = xllamacpp.Server(parameters)
    print(running.listening_address, flush=True)
    threading.Event().wait()


def engine(request: Request) -> dict[str, Any]:
    """The decode loop with the same texts and no server around it; `one-at-a-time`: in one slot."""
    from gpt3.inference.decoding import Decoder
    from gpt3.inference.options import SamplingOptions
    from gpt3.inference.row import Row
    from gpt3.serving.options import ServeOptions

    model = load_gpt3(request)
    alone = request["name"] == "one-at-a-time"
    slots = 1 if alone else request["clients"]
    decoder = Decoder(model.engine, slots, model.engine.context, prompt_tokens=ServeOptions().prompt_tokens)
    options = SamplingOptions(temperature=0.0)

    def write(prompts: list[list[int]], count: int) -> dict[str, Any]:
        firsts: dict[Row, float] = {}
        rows = []
        for number, ids in enumerate(prompts):
            rows.append(Row(ids, options, seed=0, number=number, ends=set(), vocabulary=model.vocabulary))
        began, spent = time.perf_counter(), time.process_time()
        for row in rows:
            decoder.join(row)
        while decoder.rows or decoder.waiting:
            stepped = decoder.step()
            now = time.perf_counter() - began
            for row, _ in stepped:
                firsts.setdefault(row, now)
                if len(row.tokens) - request["prompt"] == count:
                    decoder.leave(row)
        tokens = [len(row.tokens) - request["prompt"] for row in rows]
        return {
            "firsts": [firsts[row] for row in rows],
            "total": time.perf_counter() - began,
            "cpu_seconds": time.process_time() - spent,
            "tokens": tokens,
        }

    write(request["warm"], WARM_UP)
    return write(request["prompts"][: ALONE if alone else None], request["new_tokens"])


def transformers(request: Request) -> dict[str, Any]:
    """transformers' continuous batching of the same model folder."""
    from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

    import gpt3.model  # noqa: F401  # registers gpt3 with transformers

    model: Any = AutoModelForCausalLM.from_pretrained(request["model"], dtype=torch.float32)
    page = 32
    pages = math.ceil((request["prompt"] + request["new_tokens"]) / page) + 1
    config = ContinuousBatchingConfig(
        page_size=page, num_blocks=4 * pages * request["clients"], max_batch_tokens=512, allow_block_sharing=False
    )
    greedy = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=request["new_tokens"])
    manager = model.init_continuous_batching(generation_config=greedy, continuous_batching_config=config)
    manager.start()

    def write(prompts: list[list[int]], count: int) -> dict[str, Any]:
        began, spent = time.perf_counter(), time.process_time()
        names = [manager.add_request(ids, max_new_tokens=count, streaming=True) for ids in prompts]
        firsts: dict[str, float] = {}
        lengths: dict[str, int] = {}
        while len(lengths) < len(names):
            answer = manager.get_result(timeout=60)
            if answer is None or answer.error:
                raise SystemExit(f"continuous batching failed: {answer and answer.error}")
            if answer.generated_tokens:
                firsts.setdefault(answer.request_id, time.perf_counter() - began)
            if answer.is_finished():
                lengths[answer.request_id] = len(answer.generated_tokens)
        return {
            "firsts": [firsts[name] for name in names],
            "total": time.perf_counter() - began,
            "cpu_seconds": time.process_time() - spent,
            "tokens": list(lengths.values()),
        }

    write(request["warm"], WARM_UP)
    found = write(request["prompts"], request["new_tokens"])
    manager.stop(block=True)
    return found


SERVERS = {"server": server, "llama.cpp": llama_server}
IN_PROCESS = {"engine": engine, "one-at-a-time": engine, "transformers": transformers}


def end_with_standard_input() -> None:
    """Whoever started this process holds its standard input open as long as it wants a server."""

    def wait() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def main(request: Request) -> None:
    """Serve, or write and print times.

    Args:
        request: `name` of the contender, `model` (a folder), `weights` (the format), `clients`, `prompt` (tokens), `prompts` and
            `warm` (lists of ids), `new_tokens`, `longest` (tokens of prompt and text that a slot must hold), `threads`;
            `ggufs` (a folder) for llama.cpp.
    """
    torch.set_num_threads(request["threads"])
    if request["name"] in SERVERS:
        end_with_standard_input()
        SERVERS[request["name"]](request)
    else:
        with torch.inference_mode():
            found = IN_PROCESS[request["name"]](request)
        print("\n" + json.dumps({**found, "idle": [], "busy": []}))


if __name__ == "__main__":
    # Python puts this file's folder first on the path, where `options` and others would hide modules of the peers.
    sys.path.pop(0)
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
