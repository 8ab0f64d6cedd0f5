"""One contender of the generation benchmark, in a process of its own: ``python generators.py REQUEST.json`` prints times as JSON.

A contender is a function from the request to a writer: prompts and a number of tokens in, the ids it wrote and when it wrote
them out. Loading is not timed; a few tokens are written before the clock runs. No text ends early, end-of-text or not.
"""

from __future__ import annotations

import concurrent.futures
import json
import math
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

Request = dict[str, Any]
TEMPERATURE, TOP_K = 0.8, 50
WARM_UP = 4
"""Tokens written before the clock runs."""
BANDWIDTH_BYTES = 1 << 29
"""Of the array that is read to measure the memory's speed: beyond any cache."""
GGUF_FORMATS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "q8_0"}


class Written(NamedTuple):
    """What a writer did."""

    tokens: list[list[int]]
    """Ids of each text, prompt left out."""
    first: float
    """Seconds until every text had its first token."""
    total: float
    """Seconds until the last token."""


Writer = Callable[[list[list[int]], int], Written]


def gpt3(request: Request) -> Writer:
    """This package, as `gpt3 generate` runs it: text decoded as it is written."""
    from gpt3 import load
    from gpt3.inference.generation import GenerationRequest
    from gpt3.inference.options import SamplingOptions

    weights = request["weights"]
    plain = "fp32" if weights == "int8" else weights
    model = load(request["model"], device="cpu", dtype=plain, quantize="int8" if weights == "int8" else "none")
    model.ends = set()
    how: dict[str, Any] = {"temperature": TEMPERATURE, "top_k": TOP_K} if request["sampled"] else {"temperature": 0.0}

    def write(prompts: list[list[int]], count: int) -> Written:
        options = SamplingOptions(max_new_tokens=count, seed=request["seed"], **how)
        done = GenerationRequest(model, prompts, options, slots=len(prompts)).complete()
        first, total = max(one.first_token_seconds for one in done), max(one.seconds for one in done)
        return Written([one.tokens for one in done], first, total)

    return write


def transformers(request: Request) -> Writer:
    """transformers' generate on the same model folder, with its dynamic cache, or the static one."""
    from transformers import AutoModelForCausalLM
    from transformers.generation.streamers import BaseStreamer

    import gpt3.model  # noqa: F401  # registers gpt3 with transformers

    model: Any = AutoModelForCausalLM.from_pretrained(request["model"], dtype=torch.float32)
    model.generation_config.eos_token_id = None
    how: dict[str, Any] = {"do_sample": False}
    if request["sampled"]:
        how = {"do_sample": True, "temperature": TEMPERATURE, "top_k": TOP_K, "top_p": 1.0}
    if request["name"] == "transformers-static":
        how["cache_implementation"] = "static"

    class Clock(BaseStreamer):
        """Notes when tokens come; the first that comes is the prompt."""

        def __init__(self) -> None:
            self.stamps: list[float] = []

        def put(self, value: Any) -> None:
            self.stamps.append(time.perf_counter())

        def end(self) -> None:
            pass

    def write(prompts: list[list[int]], count: int) -> Written:
        ids, clock = torch.tensor(prompts), Clock()
        began = time.perf_counter()
        rows = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, pad_token_id=0, streamer=clock, **how
        )
        total = time.perf_counter() - began
        return Written(rows[:, ids.shape[1] :].tolist(), clock.stamps[1] - began, total)

    return write


def nanogpt(request: Request) -> Writer:
    """nanoGPT's generate with the same weights; it has no cache, every layer is dense, and greedy is its top-k of 1."""
    from safetensors.torch import load_file

    sys.path.insert(0, request["nanogpt"])
    from model import GPT, GPTConfig

    shape = json.loads((Path(request["model"]) / "config.json").read_text(encoding="utf-8"))
    config = GPTConfig(
        block_size=shape["max_position_embeddings"], vocab_size=shape["vocab_size"], n_layer=shape["num_hidden_layers"],
        n_head=shape["num_attention_heads"], n_embd=shape["hidden_size"], dropout=0.0, bias=True,
    )  # fmt: skip
    model = GPT(config).eval()
    model.load_state_dict(load_file(Path(request["model"]) / "model.safetensors"), strict=False)
    how = {"temperature": TEMPERATURE, "top_k": TOP_K} if request["sampled"] else {"top_k": 1}
    stamps: list[float] = []
    model.register_forward_hook(lambda *_: stamps.append(time.perf_counter()))

    def write(prompts: list[list[int]], count: int) -> Written:
        stamps.clear()
        ids = torch.tensor(prompts)
        began = time.perf_counter()
        rows = model.generate(ids, count, **how)
        return Written(rows[:, ids.shape[1] :].tolist(), stamps[0] - began, time.perf_counter() - began)

    return write


def llama_cpp(request: Request) -> Writer:
    """llama.cpp's server, in this process through xllamacpp, on a GGUF file; one request a text, all at once.

    The first token's time and the whole are the server's own clock of the prompt and ours of the requests.
    """
    import xllamacpp

    from gpt3.export.llama_cpp import silent

    batch, longest = len(request["prompts"]), max(map(len, request["prompts"])) + request["new_tokens"]
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(Path(request["ggufs"]) / f"{GGUF_FORMATS[request['weights']]}.gguf")
    parameters.n_parallel = batch
    parameters.n_ctx = batch * 256 * math.ceil(longest / 256)  # what it rounds a text's share up to
    parameters.n_gpu_layers = 0
    parameters.fit_params = False
    parameters.verbosity = -1
    parameters.cache_ram_mib = 0
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = request["threads"]
    with silent():
        server = xllamacpp.Server(parameters)
    how: dict[str, Any] = {"temperature": -1.0}  # below 0: greedy
    if request["sampled"]:
        how = {
            "temperature": TEMPERATURE,
            "top_k": TOP_K,
            "samplers": ["top_k", "temperature"],
            "seed": request["seed"],
        }

    def ask(prompt: list[int], count: int) -> dict[str, Any]:
        wishes = {"n_predict": count, "ignore_eos": True, "cache_prompt": False, "return_tokens": True} | how
        body = json.dumps({"prompt": prompt, "repeat_penalty": 1.0} | wishes).encode()
        url = server.listening_address + "/completion"
        with urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"})) as answer:
            found: dict[str, Any] = json.loads(answer.read())
        return found

    def write(prompts: list[list[int]], count: int) -> Written:
        with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
            began = time.perf_counter()
            answers = list(pool.map(lambda prompt: ask(prompt, count), prompts))
            total = time.perf_counter() - began
        first = max(answer["timings"]["prompt_ms"] for answer in answers) / 1000
        return Written([answer["tokens"] for answer in answers], first, total)

    return write


MAKERS: dict[str, Callable[[Request], Writer]] = {
    "gpt3": gpt3,
    "transformers": transformers,
    "transformers-static": transformers,
    "nanogpt": nanogpt,
    "llama.cpp": llama_cpp,
}


def timed_writing(request: Request) -> dict[str, Any]:
    """Load the contender, warm up, write once with the clock running.

    Args:
        request: `name` of the contender, `model` (a folder), `weights` (the format), `prompts` (ids, all of one length),
            `new_tokens`, `sampled`, `seed`, `threads`; `ggufs` (a folder) for llama.cpp, `nanogpt` (a checkout).

    Returns:
        tokens, first, total (see Written), cpu_seconds of the whole, and the process's peak_bytes.
    """
    from gpt3.bench.contenders import peak_bytes

    torch.set_num_threads(request["threads"])
    write = MAKERS[request["name"]](request)
    with torch.inference_mode():
        write(request["prompts"], WARM_UP)
        cpu = time.process_time()
        written = write(request["prompts"], request["new_tokens"])
    lengths = {len(tokens) for tokens in written.tokens}
    if lengths != {request["new_tokens"]}:
        raise SystemExit(f"{request['name']} wrote {sorted(lengths)} tokens, {request['new_tokens']} were asked for")
    spent = time.process_time() - cpu
    return {**written._asdict(), "cpu_seconds": spent, "peak_bytes": peak_bytes(torch.device("cpu"))}


def make_models(request: Request) -> dict[str, Any]:
    """Random weights, the same for all: a model folder, and GGUF files of a dense twin with tanh GELU.

    Args:
        request: `preset`, `seed`, `model` (the folder to make), `ggufs` (another) and `gguf_formats`.
    """
    from gpt3.ladder.presets import preset
    from gpt3.model import GPT3ForCausalLM
    from gpt3.tokenizer.bytelevel import build, wrap
    from gpt3.tokenizer.gpt2 import gpt2_merges

    shape = preset(request["preset"])
    torch.manual_seed(request["seed"])
    model = GPT3ForCausalLM(shape.config())
    tokenizer = wrap(build(gpt2_merges()[: shape.vocab_size - 257]))  # its ids are the bytes, the merges, end-of-text
    model.save_pretrained(request["model"])
    tokenizer.save_pretrained(request["model"])
    if request["gguf_formats"]:
        from gpt3.export.gguf import write_gguf

        dense = shape.config(layer_types=["full_attention"] * shape.n_layers, activation_function="gelu_new")
        twin = GPT3ForCausalLM(dense)
        twin.load_state_dict(model.state_dict())
        for weights in request["gguf_formats"]:
            kind = GGUF_FORMATS[weights]
            write_gguf(twin, tokenizer, Path(request["ggufs"]) / f"{kind}.gguf", dtype=kind)
    return {"parameters": model.num_parameters()}


def machine(request: Request) -> dict[str, Any]:
    """The two roofs: bytes/s of memory read once through, and FLOP/s of plain fp32 matrix products; with the same threads."""
    from gpt3.training.device import gemm_flops

    if request["threads"]:
        torch.set_num_threads(request["threads"])
    data = torch.ones(BANDWIDTH_BYTES // 4)
    best = math.inf
    for _ in range(8):
        start = time.perf_counter()
        data.amax()
        best = min(best, time.perf_counter() - start)
    flops = gemm_flops(torch.device("cpu"), torch.float32, seconds=1.0)
    return {
        "read_bytes_per_s": BANDWIDTH_BYTES / best,
        "gemm_flops": flops,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    # Python puts this file's folder first on the path, where `options` and others would hide modules of the peers.
    sys.path.pop(0)
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    answer = {"machine": machine, "make": make_models}.get(asked["name"], timed_writing)(asked)
    print("\n" + json.dumps(answer))
