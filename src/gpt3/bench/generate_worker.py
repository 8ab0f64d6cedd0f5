"""The worker of `gpt3 bench generate` and `gpt3 bench serve`: one system generates, or serves, in a process of its own.

A system is a function from the request to a function that generates: from prompts and a number of tokens to an answer with the
ids and the seconds to first and last token. Loading and a short warm-up are not timed. No sequence ends early: EOS is a token
like any other.
"""

from __future__ import annotations

import concurrent.futures
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from gpt3.bench.generate import GGUF_FORMATS
from gpt3.bench.harness import Request, answer_request, call, load_model
from gpt3.bench.train_worker import peak_bytes, synchronize
from gpt3.device import in_passing_thread
from gpt3.export.llama_cpp import LlamaCpp
from gpt3.inference.decoding import Decoder
from gpt3.inference.generation import GenerationRequest
from gpt3.inference.options import SamplingOptions
from gpt3.serving import host
from gpt3.serving.options import ServeOptions

if TYPE_CHECKING:
    from gpt3.export.llama_cpp import LlamaCpp

CLIENTS = str(Path(__file__).with_name("serve.py"))
TEMPERATURE, TOP_K = 0.8, 50
WARM_UP = 4
"""Tokens generated before the clock starts."""

Answer = dict[str, Any]
Generate = Callable[[list[list[int]], int], Answer]


def sampling(request: Request) -> dict[str, Any]:
    """Temperature and top-k if the request is sampled, else nothing."""
    return {"temperature": TEMPERATURE, "top_k": TOP_K} if request.get("sampled") else {}


def device_of(request: Request) -> str:
    """Where the system computes."""
    return str(request.get("device", "cpu"))


def dtype_of(request: Request) -> torch.dtype:
    """The format of a peer's weights."""
    return torch.bfloat16 if request.get("weights") == "bf16" else torch.float32


def gpt3(request: Request) -> Generate:
    """This package, as `gpt3 generate` runs it: text is decoded as it is generated, in a slot per prompt or in `slots`."""

    model = load_model(request["model"], request["weights"], device_of(request))
    how = sampling(request) or {"temperature": 0.0}
    slots = request.get("slots", len(request["prompts"]))
    capacity = len(request["prompts"][0]) + max(request["new_tokens"], WARM_UP)

    def generate(prompts: list[list[int]], count: int) -> Answer:
        options = SamplingOptions(max_new_tokens=count, seed=request["seed"], **how)
        decoder = Decoder(model.engine, slots, capacity, prompt_tokens=request.get("prompt_tokens"))
        done = GenerationRequest(model, prompts, options, decoder=decoder).complete()
        return {
            "tokens": [one.tokens for one in done],
            "firsts": [one.first_token_seconds for one in done],
            "total": max(one.seconds for one in done),
        }

    return generate


def clocked(model: torch.nn.Module, generate: Callable[[torch.Tensor, int], torch.Tensor]) -> Generate:
    """A model's own `generate`, from ids (B, T) and a count to ids (B, T + count); its first forward pass gives all firsts."""
    stamps: list[float] = []
    device = next(model.parameters()).device

    def stamp(*_: object) -> None:
        if not stamps:
            synchronize(device)
            stamps.append(time.perf_counter())

    model.register_forward_hook(stamp)

    def timed(prompts: list[list[int]], count: int) -> Answer:
        stamps.clear()
        ids = torch.tensor(prompts, device=device)
        began = time.perf_counter()
        rows = generate(ids, count)
        synchronize(device)
        total = time.perf_counter() - began
        return {"tokens": rows[:, ids.shape[1] :].tolist(), "firsts": [stamps[0] - began], "total": total}

    return timed


def transformers(request: Request) -> Generate:
    """transformers' generate on the same model folder, with its dynamic cache or the static one."""
    model = load_transformers(request)
    model.generation_config.eos_token_id = None
    how = {"do_sample": request["sampled"], "pad_token_id": 0, **sampling(request)}
    if request["name"] == "transformers-static":
        how["cache_implementation"] = "static"

    def generate(ids: torch.Tensor, count: int) -> torch.Tensor:
        return model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, **how)

    return clocked(model, generate)


def load_transformers(request: Request) -> Any:
    """The model folder through transformers' AutoModelForCausalLM."""
    from transformers import AutoModelForCausalLM

    import gpt3.model  # noqa: F401  # registers gpt3 with transformers

    model: Any = AutoModelForCausalLM.from_pretrained(request["model"], dtype=dtype_of(request))
    return model.to(device_of(request))


def nanogpt(request: Request) -> Generate:
    """nanoGPT's generate with the same weights. It has no cache, all layers are dense, and greedy is its top-k of 1."""

    sys.path.insert(0, request["nanogpt"])
    from model import GPT, GPTConfig

    model = GPT(GPTConfig(**request["shape"], dropout=0.0, bias=True)).eval()
    model.load_state_dict(load_file(Path(request["model"]) / "model.safetensors"), strict=False)
    model.to(device_of(request), dtype_of(request))
    return clocked(model, lambda ids, count: model.generate(ids, count, **(sampling(request) or {"top_k": 1})))


def load_llama(request: Request, slots: int, context: int) -> LlamaCpp:
    """llama.cpp's server on a GGUF file, with room for `context` tokens in each slot."""

    path = Path(request["ggufs"]) / f"{GGUF_FORMATS[request['weights']]}.gguf"
    return LlamaCpp(path, context=context, slots=slots, threads=request["threads"], exact=False)


def llama_cpp(request: Request) -> Generate:
    """llama.cpp's server in this process; one request per sequence, all at once.

    The first token's time is the server's own clock of the prompt, the total ours of the requests.
    """
    prompts = request["prompts"]
    llama = load_llama(request, len(prompts), max(map(len, prompts)) + request["new_tokens"])
    how = {"ignore_eos": True, "cache_prompt": False, "return_tokens": True, **sampling(request)}
    if request["sampled"]:
        how |= {"samplers": ["top_k", "temperature"], "seed": request["seed"]}

    def generate(prompts: list[list[int]], count: int) -> Answer:
        with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
            began = time.perf_counter()
            answers = list(pool.map(lambda prompt: llama.complete(prompt, n_predict=count, **how), prompts))
            total = time.perf_counter() - began
        firsts = [answer["timings"]["prompt_ms"] / 1000 for answer in answers]
        return {"tokens": [answer["tokens"] for answer in answers], "firsts": firsts, "total": total}

    return generate


def continuous_batching(request: Request) -> Generate:
    """transformers' continuous batching of the same model folder, as `gpt3 bench serve` measures it."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    page, prompts = 32, request["prompts"]
    blocks = 4 * len(prompts) * (-(-(len(prompts[0]) + request["new_tokens"]) // page) + 1)
    paging = {"page_size": page, "num_blocks": blocks, "max_batch_tokens": 512, "allow_block_sharing": False}
    greedy = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=request["new_tokens"])
    manager = load_transformers(request).init_continuous_batching(
        generation_config=greedy, continuous_batching_config=ContinuousBatchingConfig(**paging)
    )
    manager.start()

    def generate(prompts: list[list[int]], count: int) -> Answer:
        began = time.perf_counter()
        names = [manager.add_request(ids, max_new_tokens=count, streaming=True) for ids in prompts]
        firsts: dict[str, float] = {}
        tokens: dict[str, list[int]] = {}
        while len(tokens) < len(names):
            answer = manager.get_result(timeout=60)
            if answer is None or answer.error:
                raise SystemExit(f"continuous batching failed: {answer and answer.error}")
            if answer.generated_tokens:
                firsts.setdefault(answer.request_id, time.perf_counter() - began)
            if answer.is_finished():
                tokens[answer.request_id] = answer.generated_tokens
        total = time.perf_counter() - began
        return {"tokens": list(tokens.values()), "firsts": list(firsts.values()), "total": total}

    return generate


SYSTEMS: dict[str, Callable[[Request], Generate]] = {
    "gpt3": gpt3,
    "transformers": transformers,
    "transformers-static": transformers,
    "nanogpt": nanogpt,
    "llama.cpp": llama_cpp,
    "continuous-batching": continuous_batching,
}


def timed_generation(request: Request) -> Answer:
    """Load a system, warm it up, generate once with the clock running.

    Args:
        request: `name` of the system, `model` (a folder), `weights` (the format), `prompts` (ids, all of one length),
            `new_tokens`, `sampled`, `seed`, `threads`. Optional: `device` (default: the CPU), `warm` (prompts of the warm-up;
            default: the same) and, of gpt3, `slots` (default: one per prompt) and `prompt_tokens` (read in one step; default:
            all). For llama.cpp `ggufs` (a folder), for nanoGPT `nanogpt` (a checkout) and `shape` (of its configuration).

    Returns:
        tokens (ids of each sequence), firsts (seconds to the first token of each, or of all), total (seconds), cpu_seconds of
        all threads, peak_bytes of the process, loading included.
    """

    torch.set_num_threads(request["threads"])
    generate = SYSTEMS[request["name"]](request)
    with torch.inference_mode():
        generate(request.get("warm") or request["prompts"], WARM_UP)
        cpu = time.process_time()
        answer = generate(request["prompts"], request["new_tokens"])
    cpu = time.process_time() - cpu
    if {len(tokens) for tokens in answer["tokens"]} != {request["new_tokens"]}:
        lengths = sorted({len(tokens) for tokens in answer["tokens"]})
        raise SystemExit(f"{request['name']} generated {lengths} tokens instead of {request['new_tokens']}")
    return answer | {"cpu_seconds": cpu, "peak_bytes": peak_bytes(torch.device(device_of(request)))}


def timed_serving(request: Request) -> Answer:
    """What clients, in a process of their own, measure of a server with a slot for each: `gpt3 serve`, or llama.cpp's server.

    Args:
        request: `name`, `model`, `weights`, `threads`, `ggufs` as in `timed_generation`; `slots`; `longest`, the tokens that a
            slot must hold; `clients`, what gpt3.bench.serve.run_clients is asked.
    """
    torch.set_num_threads(request["threads"])

    def measure(address: str) -> Answer:
        where = {"address": address, "process": os.getpid()}
        return call(CLIENTS, request["clients"] | where, "the clients", threads=1)

    if request["name"] == "llama.cpp":
        llama = load_llama(request, request["slots"], request["longest"])
        return measure(llama.server.listening_address)

    from gpt3.serving.app import assemble

    model = in_passing_thread(lambda: load_model(request["model"], request["weights"]))
    options = ServeOptions(port=0, slots=request["slots"], queue=2 * request["slots"], grace=0.0)
    listening = host.listen(options.host, options.port)
    app, compute = assemble({"bench": model}, options)
    answers: list[concurrent.futures.Future[Answer]] = []

    def ready(stop: Callable[[], None]) -> None:
        answers.append(pool.submit(measure, host.address_of(listening)))
        answers[0].add_done_callback(lambda _: stop())

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        host.serve(app, compute, listening, options, ready)
    return answers[0].result()


if __name__ == "__main__":
    answer_request(lambda request: (timed_serving if request["task"] == "serve" else timed_generation)(request))
