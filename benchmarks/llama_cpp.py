"""A trained model in llama.cpp beside itself here: greedy text of 64 tokens, and the perplexity of held-out text in each format.

    gpt3 train --model 17M --layers 4 --tokenizer own:4096 --context 256 --window 128 --lr 0.0015 --batch-tokens 2048 \\
        --tokens 1.2M --out runs/w128
    python benchmarks/llama_cpp.py runs/w128 HELD-OUT/*.txt

Needs gguf and xllamacpp (`pip install 'gpt3[export,llama-cpp]'`). The texts must be none that the run was trained on; they are
joined and cut to `--bytes`, then to pieces of the exported context, each of which begins with end-of-text. llama.cpp runs on the
CPU, its keys and values in float32. Where two greedy texts part, the gap is how much likelier, here, our token is than its own: a
gap of a few thousandths is a tie that llama.cpp's GELU, a table of 16-bit floats, decides otherwise.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path

import torch

from gpt3.export.comparison import tanh_gelu
from gpt3.export.gguf import write_gguf
from gpt3.export.llama_cpp import LlamaCpp
from gpt3.model_folder.load import load_transformers

NEW = 64
PROMPT = 16
FORMATS = ("f32", "f16", "bf16", "q8_0")


def log_probabilities(model, ids: list[int]) -> torch.Tensor:
    """(T, V): of the next token after each."""
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].double().log_softmax(-1)


def greedy(model, prompt: list[int], end: int) -> list[int]:
    """The likeliest `NEW` tokens, fewer where the text ends."""
    made = model.generate(
        torch.tensor([prompt]), max_new_tokens=NEW, do_sample=False, eos_token_id=end, pad_token_id=end
    )
    return made[0, len(prompt) :].tolist()


def compare_greedy(model, llama: LlamaCpp, prompts: list[list[int]], end: int) -> str:
    """How many texts are the same, and of the others where they part and the gap there."""
    same, parted = 0, []
    for prompt in prompts:
        ours, theirs = greedy(model, prompt, end), llama.greedy(prompt, NEW)
        if ours == theirs:
            same += 1
            continue
        at = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b)
        row = log_probabilities(model, prompt + ours[:at])[-1]
        parted.append(f"token {at + 1} by {float(row[ours[at]] - row[theirs[at]]):.2g}")
    return f"{same} of {len(prompts)} the same" + (f"; others part at {', '.join(parted)}" if parted else "")


def perplexity_here(model, pieces: list[list[int]]) -> float:
    """Of all tokens but each piece's first."""
    scores = [log_probabilities(model, piece)[:-1].gather(1, torch.tensor(piece[1:])[:, None]) for piece in pieces]
    return math.exp(-float(torch.cat(scores).mean()))


def perplexity_there(llama: LlamaCpp, pieces: list[list[int]], rows: int) -> float:
    """The same in llama.cpp, token by token."""
    scores = [llama.log_probability(piece[:n], piece[n], rows) for piece in pieces for n in range(1, len(piece))]
    return math.exp(-sum(scores) / len(scores))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("--bytes", type=int, default=10_000)
    parser.add_argument("--prompts", type=int, default=20)
    arguments = parser.parse_args()
    model, tokenizer = load_transformers(arguments.model, device="cpu", dtype="fp32")
    end, rows = tokenizer.eos_token_id, model.config.real_vocab_size or model.config.vocab_size
    text = "\n\n".join(path.read_text(encoding="utf-8") for path in arguments.texts)
    text = text.encode()[: arguments.bytes].decode(errors="ignore")
    ids = tokenizer(text)["input_ids"]
    for dtype in FORMATS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{dtype}.gguf"
            context = write_gguf(model, tokenizer, path, dtype=dtype)
            size = path.stat().st_size / 1e6
            pieces = [[end, *ids[i : i + context - 1]] for i in range(0, len(ids), context - 1)]
            with LlamaCpp(path, context=context) as llama:
                if dtype == "f32":
                    starts = range(0, len(ids) - PROMPT, max(1, len(ids) // arguments.prompts))
                    prompts = [[end, *ids[i : i + PROMPT]] for i in starts][: arguments.prompts]
                    ours = perplexity_here(model, pieces)
                    with tanh_gelu(model):
                        print(f"perplexity here, GELU by tanh: {perplexity_here(model, pieces):.4f}")
                    print(f"{len(text.encode()):,} bytes, {len(ids):,} tokens, pieces of {context}")
                    print(f"greedy, {NEW} tokens: {compare_greedy(model, llama, prompts, end)}")
                    print("| `--dtype` | MB | perplexity here | in llama.cpp | difference |\n|---|---|---|---|---|")
                theirs = perplexity_there(llama, pieces, rows)
            print(f"| {dtype} | {size:.1f} | {ours:.3f} | {theirs:.3f} | {theirs / ours - 1:+.3%} |", flush=True)


if __name__ == "__main__":
    main()
