"""A peer as `gpt3 bench start` runs it: import it, load a model, generate greedily, say how many tokens that were.

    python start_worker.py NAME MODEL PROMPT TOKENS THREADS

Nothing of this package is imported that a user of the peer would not import, so that its start is the peer's own. transformers
does not know the model type gpt3: that one module registers it.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any


def transformers(folder: str, prompt: str, count: int, threads: int) -> int:
    """transformers' generate on a model folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, TextStreamer

    import gpt3.model  # noqa: F401

    torch.set_num_threads(threads)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    inputs = tokenizer(prompt, return_tensors="pt")
    how = {"do_sample": False, "min_new_tokens": count, "max_new_tokens": count, "pad_token_id": 0}
    rows = model.generate(**inputs, **how, streamer=TextStreamer(tokenizer, skip_prompt=True))
    return rows.shape[1] - inputs["input_ids"].shape[1]


def llama_cpp(file: str, prompt: str, count: int, threads: int) -> int:
    """llama.cpp's server in the process, on a GGUF file."""
    from gpt3.export.llama_cpp import LlamaCpp

    with LlamaCpp(Path(file), context=256, threads=threads, exact=False) as llama:
        ids = llama.tokenize(prompt)
        answer = llama.complete(ids, n_predict=count, temperature=-1.0, ignore_eos=True, return_tokens=True)
    print(answer["content"])
    return len(answer["tokens"])


PEERS = {"transformers": transformers, "llama.cpp": llama_cpp}

if __name__ == "__main__":
    sys.path.pop(0)  # this folder, whose modules could hide those of a peer
    name, place, text, tokens, cores = sys.argv[1:]
    began = time.perf_counter()
    made = PEERS[name](place, text, int(tokens), int(cores))
    print(f"{made} tokens in {time.perf_counter() - began:.1f} s", file=sys.stderr)
