"""`trainer.precision=auto`: bf16 where the machine computes it fast, else fp32; found out by a trial, not by a name.

A processor without AVX512-BF16 or AMX computes bf16 some ten times slower than fp32; a recent GPU several times faster.
"""

import os
import time
from functools import lru_cache

import torch

SIZE, PRODUCTS = 384, 4
FASTER = 1.2
"""bf16 must be so many times faster to be worth its rounding."""
DECIDED = "RLHF_PRECISION"
"""Where the first process leaves its decision for the ones that it starts: all compute alike."""


def auto_precision(accelerator: str) -> str:
    """`bf16-mixed` or `32-true`, and a line that says why.

    Args:
        accelerator: Lightning's name of the device; `auto` is a GPU where there is one.
    """
    if DECIDED not in os.environ:
        gain = bf16_gain("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")
        os.environ[DECIDED] = "bf16-mixed" if gain >= FASTER else "32-true"
        times = f"{gain:.1f} times faster" if gain >= 1 else f"{1 / gain:.1f} times slower"
        print(f"precision: {os.environ[DECIDED]} (bf16 is {times} than fp32 here)", flush=True)
    return os.environ[DECIDED]


@lru_cache(maxsize=2)
def bf16_gain(device: str) -> float:
    """Time of matrix products in fp32 over that in bf16, on `cpu` or `cuda`; 0 where a GPU only emulates bf16."""
    if device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return 0.0
    return _seconds(device, torch.float32) / _seconds(device, torch.bfloat16)


def _seconds(device: str, dtype: torch.dtype) -> float:
    """Best of three; no random number is drawn."""
    block = torch.full((SIZE, SIZE), 0.5, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        for _ in range(PRODUCTS):
            block @ block
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best
