#!/usr/bin/env python3
# PyTorch on a card, on the shapes of bench/card: attention by SDPA (cuDNN and flash), CoCA and RoPE as three lines around
# it, the official einsum, and a training step of the 350M shape, compiled. Writes JSON with seconds for a batch.
# SPDX-License-Identifier: Apache-2.0
import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import peer

TOKENS, CHANNELS = 32768, 2048


def median_seconds(call, rounds=20, warmup=5):
    """Median over CUDA events, one per call."""
    for _ in range(warmup):
        call()
    torch.cuda.synchronize()
    samples = []
    for _ in range(rounds):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        end.synchronize()
        samples.append(1e-3 * begin.elapsed_time(end))
    return statistics.median(samples)


def forward_backward(attend, leaves, gradient):
    def call():
        for leaf in leaves:
            leaf.grad = None
        attend(*leaves).backward(gradient)
    return call


def sdpa(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def attention(length, head_dim, einsum):
    batch, heads = max(1, TOKENS // length), CHANNELS // head_dim
    def values(count=batch):
        return torch.randn(count, heads, length, head_dim, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    leaves, gradient = [values() for _ in range(3)], values().detach()
    row = {"length": length, "head_dim": head_dim, "batch": batch}
    for name, backend in (("cudnn", SDPBackend.CUDNN_ATTENTION), ("flash", SDPBackend.FLASH_ATTENTION)):
        with sdpa_kernel(backend):
            row[name] = median_seconds(forward_backward(sdpa, leaves, gradient))
    cos, sin = (table.cuda().bfloat16() for table in peer.rope_tables(length, head_dim))
    for kind in ("rope", "coca-slack"):
        def lines(q, t, v, kind=kind):
            q_eff, k_eff = peer.effective(kind, q, t, cos, sin)
            return sdpa(q_eff, k_eff, v)
        name = "coca" if kind == "coca-slack" else kind
        row[f"{name}_eager"] = median_seconds(forward_backward(lines, leaves, gradient), rounds=10)
        row[f"{name}_compiled"] = median_seconds(forward_backward(torch.compile(lines), leaves, gradient), rounds=10)
    if einsum:  # one sequence, times their number
        def official(q, t, v):
            return peer.official_attention(q, t, v, cos, sin, "einsum")
        one = [values(1) for _ in range(3)]
        row["einsum"] = batch * median_seconds(forward_backward(official, one, gradient[:1]), rounds=3, warmup=1)
    return row


class Layer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, cos, sin):
        batch, length, width = x.shape
        q, t, v = (part.transpose(1, 2) for part in
                   self.qkv(self.first(x)).view(batch, length, 3, self.heads, width // self.heads).unbind(2))
        q_eff, k_eff = peer.effective("coca-slack", q, t, cos, sin)
        x = x + self.out(sdpa(q_eff, k_eff, v).transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.second(x))))


class Decoder(nn.Module):
    def __init__(self, layers, width, heads, vocabulary):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids, targets, cos, sin):
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1), targets.flatten())


def training(length, batch):
    """Tokens per second of the 350M shape in bf16 autocast, compiled, with fused AdamW."""
    model = Decoder(24, 1024, 16, 100864).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    compiled = torch.compile(model)
    ids = torch.randint(0, 100864, (batch, length + 1), device="cuda")
    cos, sin = (table.cuda().bfloat16() for table in peer.rope_tables(length, 64))
    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = compiled(ids[:, :-1], ids[:, 1:], cos, sin)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return batch * length / median_seconds(step, rounds=7, warmup=3)


def main():
    parser = argparse.ArgumentParser(description="PyTorch on a card, on the shapes of bench/card.")
    parser.add_argument("--json", required=True)
    parser.add_argument("--seconds", type=float, default=240, help="when to stop starting new measurements")
    options = parser.parse_args()
    start = time.monotonic()
    found = {"torch": torch.__version__, "cudnn": torch.backends.cudnn.version(), "card": torch.cuda.get_device_name(),
             "attention": [], "training": {}, "failed": []}
    work = [(attention, (length, head_dim, (length, head_dim) == (8192, 128)))
            for head_dim in (128, 64) for length in (2048, 8192, 32768)]
    work[2:2] = [(training, (512, 64)), (training, (2048, 16))]
    for function, arguments in work:
        if time.monotonic() - start > options.seconds:
            break
        try:
            result = function(*arguments)
            if function is attention:
                found["attention"].append(result)
            else:
                found["training"][f"350M, N {arguments[0]}, batch {arguments[1]}"] = result
        except Exception as error:  # goes on with the rest
            found["failed"].append(f"{function.__name__}{arguments}: {error}")
        torch.cuda.empty_cache()
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=2)
    print(json.dumps(found, indent=2))


main()
