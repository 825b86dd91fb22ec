#!/usr/bin/env python3
# Attention in PyTorch on the shapes of `coca bench attention`: prologue and scaled_dot_product_attention, forward and
# backward, and the official einsum in both forms. Prints JSON with coca's field names.
# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn.functional as F

import peer


def parse():
    parser = peer.arguments("Attention in PyTorch on the shapes of `coca bench attention`.")
    parser.add_argument("--attention", dest="kind", type=peer.names, default=["coca-slack", "rope"],
                        help="of rope, coca-slack (prologue and SDPA), einsum, einsum-3d (official code, materialised)")
    parser.add_argument("--lengths", type=peer.numbers, default=[512, 1024, 2048, 4096])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--precision", dest="dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--memory-cap", type=float, default=8, help="GiB an einsum may take (default 8)")
    return parser.parse_args()


class Case:
    """One kind at one length: forward keeps what backward needs, as in training."""

    def __init__(self, kind, length, options):
        shape = (options.batch, length, options.heads, options.head_dim)
        dtype = torch.bfloat16 if options.dtype == "bf16" else torch.float32
        generator = torch.Generator().manual_seed(1)
        def values():
            return (torch.rand(shape, generator=generator) - 0.5).to(dtype)
        self.kind = kind
        self.leaves = [values().requires_grad_() for _ in range(3)]  # q, t, v as projected, [B, N, H, D]
        self.d_o = values().transpose(1, 2)
        self.cos, self.sin = (table.to(dtype) for table in peer.rope_tables(length, options.head_dim))
        self.o = None

    def forward(self):
        q, t, v = (leaf.transpose(1, 2) for leaf in self.leaves)
        if self.kind.startswith("einsum"):
            self.o = peer.official_attention(q, t, v, self.cos, self.sin, self.kind)
        else:
            q_eff, k_eff = peer.effective(self.kind, q, t, self.cos, self.sin)
            self.o = F.scaled_dot_product_attention(q_eff, k_eff, v, is_causal=True)

    def backward(self):
        return torch.autograd.grad(self.o, self.leaves, self.d_o, retain_graph=True)


def fits(kind, length, options):
    if not kind.startswith("einsum"):
        return True
    pairs = options.batch * options.heads * length * length
    return 4 * pairs * (3 * options.head_dim + 4 if kind == "einsum-3d" else 6) <= options.memory_cap * 2**30


def check(options):
    """SDPA on q_eff and k_eff equals the official einsum; returns the largest difference."""
    small = with_changes(options, dtype="f32", batch=1)
    cases = [Case(kind, 67, small) for kind in ("coca-slack", "einsum", "einsum-3d")]
    for case in cases:
        case.forward()
    worst = max(float((case.o - cases[0].o).detach().abs().max()) for case in cases)
    if not worst < 1e-5:
        raise SystemExit(f"wrong answer: SDPA and the official einsum differ by {worst}")
    return worst


def with_changes(options, **changes):
    return type(options)(**{**vars(options), **changes})


def main():
    options = parse()
    torch.set_num_threads(options.threads)
    worst = check(options)
    results = []
    for length in options.lengths:
        kinds = [kind for kind in options.kind if fits(kind, length, options)]
        contestants = {}
        for kind in kinds:
            case = Case(kind, length, options)
            contestants[f"{kind} forward"] = case.forward
            contestants[f"{kind} backward"] = case.backward
        product, gflop = peer.matrix_product(torch.bfloat16 if options.dtype == "bf16" else torch.float32)
        contestants["matrix"] = product
        timings = peer.measure_interleaved(contestants, options)
        pairs = options.batch * options.heads * length * (length + 1) / 2
        for kind in kinds:
            forward, backward = timings[f"{kind} forward"], timings[f"{kind} backward"]
            both = {key: forward[key] + backward[key] for key in ("seconds", "seconds_low", "seconds_high")}
            both["rounds"] = forward["rounds"]
            for name, timing, products in (("forward", forward, 4), ("backward", backward, 10), ("both", both, 14)):
                results.append({"length": length, "attention": kind, "pass": name, **timing,
                                "gflops": 1e-9 * products * pairs * options.head_dim / timing["seconds"],
                                "matrix_gflops": gflop / timings["matrix"]["seconds"],
                                "tokens_per_second": options.batch * length / timing["seconds"]})
    peer.report("attention", options, results, sdpa_against_einsum=worst)


main()
