"""Where a run computes and in what: the device, the dtype of matrix products, and how fast those can be at best."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from dataclasses import dataclass

import torch

from gpt3.device import choose_device

BF16_WORTH = 1.5
"""bf16 is used on a CPU whose bf16 products measure this many times faster than fp32's (AVX512-BF16 or AMX: 4; AVX2: 0.5)."""
GEMM_SHAPE = (2048, 768, 3072)


@dataclass(frozen=True)
class Compute:
    """A device, a dtype for matrix products, and the measured peak of those products."""

    device: torch.device
    dtype: torch.dtype
    peak_flops: float
    """FLOP/s of a plain matrix product of GEMM_SHAPE in `dtype`, the median of a short measurement at start."""

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The context that forward passes run in: weights stay fp32, products are computed in `dtype`."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def synchronize(self) -> None:
        """Wait for the device, so that a clock read next is true."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def memory(self) -> int | None:
        """Bytes of memory of the device, or of this machine for a CPU. None where nobody says."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_properties(self.device).total_memory
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, ValueError, OSError):  # Windows
            return None


def choose_compute(device_name: str, dtype_name: str) -> Compute:
    """Settle device and dtype, and measure the peak of that dtype's matrix products (about 0.2 s)."""
    device = choose_device(device_name)
    fp32 = torch.float32
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 where fp32 is asked for
    if dtype_name != "auto":
        dtype = {"fp32": fp32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype_name]
        return Compute(device, dtype, gemm_flops(device, dtype))
    if device.type == "cuda":
        dtype = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        return Compute(device, dtype, gemm_flops(device, dtype))
    if device.type == "mps":
        return Compute(device, fp32, gemm_flops(device, fp32))
    plain, half = gemm_flops(device, fp32), gemm_flops(device, torch.bfloat16)
    return Compute(device, torch.bfloat16, half) if half > BF16_WORTH * plain else Compute(device, fp32, plain)


def gemm_flops(device: torch.device, dtype: torch.dtype, seconds: float = 0.1) -> float:
    """FLOP/s of `F.linear` at GEMM_SHAPE, the median over about `seconds`."""
    m, k, n = GEMM_SHAPE if device.type == "cpu" else tuple(4 * size for size in GEMM_SHAPE)
    left = torch.randn(m, k, device=device).to(dtype)
    right = torch.randn(n, k, device=device).to(dtype)
    compute = Compute(device, dtype, 0.0)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 4 or time.perf_counter() - began < seconds:
        compute.synchronize()
        start = time.perf_counter()
        torch.nn.functional.linear(left, right)
        compute.synchronize()
        times.append(time.perf_counter() - start)
    return 2 * m * k * n / statistics.median(times[1:])
