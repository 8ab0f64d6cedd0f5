"""Speed of whole training steps: tokens/s, MFU, peak memory, for presets; nanoGPT beside them in the same run when asked.

    python benchmarks/train_step.py [--cases 17M:12x512 125M:1x2048] [--dtype auto fp32] [--steps 8] [--nanogpt PATH]

Every case runs in a process of its own (so that its peak memory is its own), random tokens, forward + backward + clip + AdamW.
MFU counts the matrix products of gpt3.ladder.flops_per_token against the GEMM peak measured in the same process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time


def ours(preset_name: str, batch: int, context: int, dtype: str, steps: int) -> dict[str, float | str]:
    import torch

    from gpt3.ladder import flops_per_token, preset
    from gpt3.training import TrainOptions
    from gpt3.training.device import choose_compute
    from gpt3.training.optimizer import make_optimizer
    from gpt3.training.run import build_model

    shape, options = preset(preset_name), TrainOptions(model=preset_name)
    compute = choose_compute("auto", dtype)
    model = build_model(options, shape, shape.vocab_size, shape.vocab_size - 1).to(compute.device)
    forward = torch.compile(model) if compute.device.type == "cuda" else model
    optimizer = make_optimizer(model, options, 1e-4)
    tokens = torch.randint(0, shape.vocab_size, (batch, context + 1), device=compute.device)
    times, loss = [], 0.0
    for _ in range(steps + 2):
        compute.synchronize()
        start = time.perf_counter()
        with compute.autocast():
            output = forward(input_ids=tokens[:, :-1], shift_labels=tokens[:, 1:], skip_logits=True, use_cache=False)
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss = float(output.loss.detach())
        compute.synchronize()
        times.append(time.perf_counter() - start)
    return report("gpt3", compute, times[2:], batch * context, flops_per_token(model.config, context), loss)


def nanogpt(
    checkout: str, preset_name: str, batch: int, context: int, dtype: str, steps: int
) -> dict[str, float | str]:
    """nanoGPT's model and optimizer at the same shape (all layers dense, tanh GELU: its own)."""
    sys.path.insert(0, checkout)
    import torch

    from gpt3.ladder import flops_per_token, preset
    from gpt3.training.device import choose_compute
    from model import GPT, GPTConfig

    shape, compute = preset(preset_name), choose_compute("auto", dtype)
    model = GPT(GPTConfig(context, shape.vocab_size, shape.n_layers, shape.n_heads, shape.d_model, 0.0, True))
    model.to(compute.device)
    optimizer = model.configure_optimizers(0.1, 1e-4, (0.9, 0.95), compute.device.type)
    tokens = torch.randint(0, shape.vocab_size, (batch, context + 1), device=compute.device)
    times, loss = [], 0.0
    for _ in range(steps + 2):
        start = time.perf_counter()
        with compute.autocast():
            _, value = model(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss = float(value.detach())
        times.append(time.perf_counter() - start)
    return report("nanoGPT", compute, times[2:], batch * context, flops_per_token(shape.config(), context), loss)


def report(who: str, compute, times: list[float], tokens: int, flops: float, loss: float) -> dict[str, float | str]:
    speed = tokens / statistics.median(times)
    return {
        "who": who,
        "device": compute.device.type,
        "dtype": str(compute.dtype).removeprefix("torch."),
        "tokens_per_s": speed,
        "slowest": tokens / max(times),
        "fastest": tokens / min(times),
        "mfu": speed * flops / compute.peak_flops,
        "gemm_gflops": compute.peak_flops / 1e9,
        "peak_gb": (compute.peak_memory() or 0) / 1e9,
        "loss": loss,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=["17M:12x512", "125M:1x2048"])
    parser.add_argument("--dtype", nargs="+", default=["auto"], choices=["auto", "fp32", "bf16"])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--nanogpt", help="a checkout of github.com/karpathy/nanoGPT, to run beside")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)  # who, preset, BxT, dtype: the child process
    arguments = parser.parse_args()
    if arguments.one:
        who, name, size, dtype = arguments.one
        batch, context = map(int, size.split("x"))
        run = ours if who == "gpt3" else lambda *case: nanogpt(arguments.nanogpt, *case)
        print(json.dumps(run(name, batch, context, dtype, arguments.steps)))
        return
    print(
        f"{'case':16}{'who':9}{'dtype':10}{'tokens/s':>10}{'(range)':>18}{'MFU':>6}{'GEMM GF/s':>14}{'peak GB':>9}{'loss':>7}"
    )
    for case in arguments.cases:
        for dtype in arguments.dtype:
            for who in ["gpt3"] + (["nanoGPT"] if arguments.nanogpt else []):
                command = [
                    sys.executable,
                    __file__,
                    "--steps",
                    str(arguments.steps),
                    "--one",
                    who,
                    *case.split(":"),
                    dtype,
                ]
                command += ["--nanogpt", arguments.nanogpt] if arguments.nanogpt else []
                run = subprocess.run(command, capture_output=True, text=True)
                if run.returncode:
                    raise SystemExit(run.stderr)
                r = json.loads(run.stdout.splitlines()[-1])
                print(
                    f"{case:16}{who:9}{r['dtype']:10}{r['tokens_per_s']:10,.0f}{r['slowest']:9,.0f}-{r['fastest']:<8,.0f}"
                    f"{r['mfu']:6.0%}{r['gemm_gflops']:14,.0f}{r['peak_gb']:9.2f}{r['loss']:7.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
