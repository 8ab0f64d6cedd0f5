"""An exported model in llama.cpp compared with transformers: greedy completions, and the perplexity of held-out text per format.

    gpt3 train --model 17M --layers 4 --tokenizer own:4096 --context 256 --window 128 --lr 0.0015 --batch-tokens 2048 \\
        --tokens 1.2M --out runs/w128
    python benchmarks/llama_cpp.py runs/w128 HELD-OUT/*.txt

Needs gguf and xllamacpp (`pip install -e '.[export,llama-cpp]'`). The run must not have been trained on the texts. They are
joined and cut to `--bytes`, then to pieces of the exported context, each after EOS. llama.cpp runs on the CPU, its keys and
values in float32. Where two greedy completions differ, the gap is how much likelier our token is than llama.cpp's, in
transformers: a gap of a few thousandths is a near-tie, which llama.cpp's GELU, a table of 16-bit floats, may decide
differently.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any

import torch

from gpt3.bench.harness import common_prefix
from gpt3.export.comparison import tanh_gelu
from gpt3.export.gguf import read_gguf, write_gguf
from gpt3.export.llama_cpp import LlamaCpp
from gpt3.model_folder.load import load_transformers

NEW = 64
PROMPT = 16
FORMATS = ("f32", "f16", "bf16", "q8_0", "q4_0")


def log_probabilities(model: Any, ids: list[int]) -> torch.Tensor:
    """(T, V): of the next token after each."""
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].double().log_softmax(-1)


def log_probability(llama: LlamaCpp, prompt: list[int], token: int, rows: int) -> float:
    """Of `token` being next in llama.cpp, in nats; without the list of all, where it can be had so."""
    answer = llama.complete(prompt, n_predict=1, n_probs=1, logit_bias=[[token, 1000.0]])
    if entries := answer.get("completion_probabilities"):
        return entries[0]["logprob"]
    return llama.log_probabilities(prompt, rows)[token]


def compare_greedy(model: Any, llama: LlamaCpp, prompts: list[list[int]], eos: int) -> str:
    """How many completions are the same; where the others first differ, and the gap there."""
    differences = []
    for prompt in prompts:
        how = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": eos, "pad_token_id": eos}
        ours = model.generate(torch.tensor([prompt]), **how)[0, len(prompt) :].tolist()
        theirs = llama.complete(prompt, n_predict=NEW, return_tokens=True)["tokens"]
        if ours != theirs:
            at = common_prefix(ours, theirs)
            row = log_probabilities(model, prompt + ours[:at])[-1]
            differences.append(f"token {at + 1} by {float(row[ours[at]] - row[theirs[at]]):.2g}")
    same = f"{len(prompts) - len(differences)} of {len(prompts)} the same"
    return same + (f"; others differ from {', '.join(differences)}" if differences else "")


def perplexity(model: Any, pieces: list[list[int]]) -> float:
    """In transformers, of all tokens except each piece's first."""
    scores = [log_probabilities(model, piece)[:-1].gather(1, torch.tensor(piece[1:])[:, None]) for piece in pieces]
    return math.exp(-float(torch.cat(scores).mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("--bytes", type=int, default=10_000)
    parser.add_argument("--prompts", type=int, default=20)
    arguments = parser.parse_args()
    model, tokenizer = load_transformers(arguments.model, device="cpu", dtype="fp32")
    eos, rows = tokenizer.eos_token_id, model.config.real_vocab_size or model.config.vocab_size
    text = "\n\n".join(path.read_text(encoding="utf-8") for path in arguments.texts)
    text = text.encode()[: arguments.bytes].decode(errors="ignore")
    ids = tokenizer(text)["input_ids"]
    for dtype in FORMATS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{dtype}.gguf"
            context = write_gguf(model, tokenizer, path, dtype=dtype)
            size = path.stat().st_size / 1e6
            pieces = [[eos, *ids[i : i + context - 1]] for i in range(0, len(ids), context - 1)]
            with LlamaCpp(path, context=context) as llama:
                if dtype == "f32":
                    starts = range(0, len(ids) - PROMPT, max(1, len(ids) // arguments.prompts))
                    prompts = [[eos, *ids[i : i + PROMPT]] for i in starts][: arguments.prompts]
                    ours = perplexity(model, pieces)
                    with tanh_gelu(model):
                        print(f"perplexity in transformers with tanh GELU: {perplexity(model, pieces):.4f}")
                    print(f"{len(text.encode()):,} bytes, {len(ids):,} tokens, pieces of {context}")
                    print(f"greedy, {NEW} tokens: {compare_greedy(model, llama, prompts, eos)}\n")
                    print("| `--dtype` | MB | in transformers | in llama.cpp | difference |\n|---|---|---|---|---|")
                here = perplexity(read_gguf(path), pieces) if dtype == "q4_0" else ours  # the same 4-bit weights
                pairs = [(piece[:n], piece[n]) for piece in pieces for n in range(1, len(piece))]
                scores = [log_probability(llama, before, token, rows) for before, token in pairs]
            theirs = math.exp(-sum(scores) / len(scores))
            print(f"| {dtype} | {size:.1f} | {here:.3f} | {theirs:.3f} | {theirs / here - 1:+.3%} |", flush=True)


if __name__ == "__main__":
    main()
