# Shared by the PyTorch scripts: CoCA and RoPE in plain torch, interleaved timing, and the JSON output.
# SPDX-License-Identifier: Apache-2.0
import argparse
import json
import math
import statistics
import sys
import time

import torch
import torch.nn.functional as F


def arguments(description):
    """The parser with the flags every script has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch (default 2)")
    parser.add_argument("--repeats", type=int, default=7, help="rounds; each runs everything once (default 7)")
    parser.add_argument("--warmup", type=int, default=1, help="rounds before them that do not count (default 1)")
    parser.add_argument("--sample-seconds", type=float, default=0.02,
                        help="repeat what is faster than this until a round lasts as long (default 0.02)")
    return parser


def numbers(text):
    return [int(item) for item in text.split(",")]


def names(text):
    return text.split(",")


def rope_tables(length, head_dim, base=10000.0):
    """cos and sin [length, head_dim], half-split layout; angles in double as in coca."""
    frequencies = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies[None, :]
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().float(), angles.sin().float()


def rotate(x, cos, sin):
    """RoPE over the last dimension of [B, H, N, D]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def fold(t):
    """CoCA's t: the mean of each pair, not negative, for both members."""
    first, second = t.chunk(2, dim=-1)
    mean = F.relu((first + second) / 2)
    return torch.cat((mean, mean), dim=-1)


def effective(kind, q, t, cos, sin):
    """Query and key of ordinary attention: RoPE's, or CoCA's q_eff and k_eff (slack)."""
    if kind == "rope":
        return rotate(q, cos, sin), rotate(t, cos, sin)
    if kind == "coca-slack":
        return q * rotate(q, cos, sin), rotate(fold(t), cos, sin)
    raise SystemExit(f"kind {kind}: expected rope or coca-slack")


def official_attention(q, t, v, cos, sin, form):
    """The official code's attention, materialised: einsum (N x N, contracted in the best order) or einsum-3d (the
    three-operand einsum contracted from the left, as torch.einsum does alone: N x N x D)."""
    q_rot, t_rot = rotate(q, cos, sin), rotate(fold(t), cos, sin)
    if form == "einsum":
        scores = torch.einsum("bpnd,bpsd->bpns", q * q_rot, t_rot)
    else:
        scores = torch.einsum("bpnd,bpsd,bpnd->bpns", q, t_rot, q_rot)
    scores = scores / math.sqrt(q.shape[-1])
    length = q.shape[-2]
    mask = torch.ones(length, length, dtype=torch.bool, device=q.device).tril()
    scores = torch.where(mask, scores, torch.finfo(scores.dtype).min)
    return torch.softmax(scores, dim=-1) @ v


def summary(samples):
    """Median and quartiles, linear between neighbours as in coca."""
    quartiles = statistics.quantiles(samples, n=4, method="inclusive") if len(samples) > 1 else samples * 3
    return {"seconds": statistics.median(samples), "seconds_low": quartiles[0], "seconds_high": quartiles[2],
            "rounds": len(samples)}


def measure_interleaved(contestants, options):
    """{name: call}: warm-up, then rounds in which all run in turns. Returns {name: summary}."""
    runs = dict.fromkeys(contestants, 1)
    samples = {name: [] for name in contestants}
    for round_number in range(-options.warmup, options.repeats):
        for name, call in contestants.items():
            start = time.perf_counter()
            for _ in range(runs[name]):
                call()
            seconds = (time.perf_counter() - start) / runs[name]
            if round_number >= 0:
                samples[name].append(seconds)
            elif seconds < options.sample_seconds:
                runs[name] = math.ceil(options.sample_seconds / max(seconds, 1e-9))
            if sys.stderr.isatty():
                print(f"\033[K{name}: round {round_number + 1} of {options.repeats}", end="\r", file=sys.stderr)
    if sys.stderr.isatty():
        print("\033[K", end="", file=sys.stderr)
    return {name: summary(values) for name, values in samples.items()}


def matrix_product(dtype=torch.float32):
    """The call whose rate others are held against, and its GFLOP for one run."""
    x, w = torch.rand(2048, 2048).to(dtype), torch.rand(2048, 2048).to(dtype)
    return (lambda: x @ w.T), 2e-9 * 2048**3


def report(bench, options, results, **more):
    print(json.dumps({"bench": bench, "peer": f"torch {torch.__version__}",
                      "cpu_capability": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads(),
                      "options": vars(options), **more, "results": results}, indent=2))
