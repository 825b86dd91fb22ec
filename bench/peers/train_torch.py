#!/usr/bin/env python3
# The training step of `coca bench train` in PyTorch: the same GPT-NeoX-style model with RoPE or CoCA (q_eff and k_eff
# passed to scaled_dot_product_attention), cross entropy, clipping, AdamW; eager and compiled. Reads a folder that `coca
# bench train --export` wrote, compares logits, losses and gradients with it, measures the time and prints JSON.
# SPDX-License-Identifier: Apache-2.0
import json
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

import peer

LOGITS_TOLERANCE = 1e-4


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        width = config["hidden_size"]
        self.kind, self.heads = config["attention_type"], config["num_attention_heads"]
        self.query_key_value = nn.Linear(width, 3 * width)
        self.dense = nn.Linear(width, width)

    def forward(self, x, cos, sin):
        batch, length, width = x.shape
        qkv = self.query_key_value(x).view(batch, length, self.heads, 3, width // self.heads)
        q, t, v = (part.transpose(1, 2) for part in qkv.unbind(3))
        q_eff, k_eff = peer.effective(self.kind, q, t, cos, sin)
        o = F.scaled_dot_product_attention(q_eff, k_eff, v, is_causal=True)
        return self.dense(o.transpose(1, 2).reshape(batch, length, width))


class Mlp(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config["hidden_size"], config["intermediate_size"])
        self.dense_4h_to_h = nn.Linear(config["intermediate_size"], config["hidden_size"])

    def forward(self, x):
        return self.dense_4h_to_h(F.gelu(self.dense_h_to_4h(x)))


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config["hidden_size"], eps=config["layer_norm_eps"])
        self.post_attention_layernorm = nn.LayerNorm(config["hidden_size"], eps=config["layer_norm_eps"])
        self.attention, self.mlp = Attention(config), Mlp(config)

    def forward(self, x, cos, sin):
        return x + self.attention(self.input_layernorm(x), cos, sin) + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed_in = nn.Embedding(config["vocab_size"], config["hidden_size"])
        self.layers = nn.ModuleList(Layer(config) for _ in range(config["num_hidden_layers"]))
        self.final_layer_norm = nn.LayerNorm(config["hidden_size"], eps=config["layer_norm_eps"])

    def forward(self, ids, cos, sin):
        x = self.embed_in(ids)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.final_layer_norm(x)


class Model(nn.Module):
    """Parameters carry the names of coca's files."""

    def __init__(self, config):
        super().__init__()
        self.gpt_neox = Body(config)
        self.embed_out = nn.Linear(config["hidden_size"], config["vocab_size"], bias=False)
        cos, sin = peer.rope_tables(config["max_position_embeddings"],
                                    config["hidden_size"] // config["num_attention_heads"], config["rotary_emb_base"])
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, ids):
        length = ids.shape[1]
        return self.embed_out(self.gpt_neox(ids, self.cos[:length], self.sin[:length]))

    def losses(self, ids, targets):
        return F.cross_entropy(self(ids).flatten(0, 1), targets.flatten(), reduction="none")


def load(folder):
    config = json.loads((folder / "config.json").read_text())
    if config.get("model_type") != "gpt_neox" or config.get("rotary_pct", 1.0) != 1.0:
        raise SystemExit(f"{folder}: expected a gpt_neox model that rotates whole heads")
    model = Model(config)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return config, model


def check(folder, model):
    """Distances from what coca computed with the same weights; ends the script where the logits differ."""
    stored = load_file(folder / "check.safetensors")
    ids, targets = stored["ids"].long(), stored["targets"].long()
    with torch.no_grad():
        logits = float((model(ids) - stored["logits"]).abs().max())
    model.zero_grad()
    nll = model.losses(ids, targets)
    nll.sum().backward()
    gradients = [(p.grad, stored[f"grad.{name}"]) for name, p in model.named_parameters()]
    off = sum(float(((a - b).double() ** 2).sum()) for a, b in gradients)
    size = sum(float((b.double() ** 2).sum()) for _, b in gradients)
    model.zero_grad()
    if not logits <= LOGITS_TOLERANCE:
        raise SystemExit(f"{folder}: logits differ by {logits} from coca's; at most {LOGITS_TOLERANCE} is right")
    return {"logits_max_abs": logits, "nll_max_abs": float((nll.detach() - stored["nll"].flatten()).abs().max()),
            "gradients_relative": (off / size) ** 0.5}


def training_step(model, options, vocabulary, compiled):
    decays = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW([{"params": decays, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
                                  lr=1e-4, betas=(0.9, 0.95), eps=1e-8, fused=True)
    generator = torch.Generator().manual_seed(2)
    shape = (options.batch, options.length)
    ids, targets = (torch.randint(vocabulary, shape, generator=generator) for _ in range(2))
    losses = torch.compile(model.losses) if compiled else model.losses
    if compiled:
        off = float((losses(ids, targets) - model.losses(ids, targets)).detach().abs().max())
        if not off <= LOGITS_TOLERANCE:
            raise SystemExit(f"the compiled losses differ by {off} from the eager ones")

    def step():
        losses(ids, targets).mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def parse():
    parser = peer.arguments("The training step of `coca bench train` in PyTorch.")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="folder of `coca bench train --export`")
    parser.add_argument("--attention", dest="kind", type=peer.names, default=["coca-slack", "rope"])
    parser.add_argument("--mode", type=peer.names, default=["eager", "compiled"])
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    return parser.parse_args()


def main():
    options = parse()
    torch.set_num_threads(options.threads)
    checks, contestants, parameters = {}, {}, {}
    for kind in options.kind:
        for mode in options.mode:
            config, model = load(options.model / kind)
            checks[kind] = check(options.model / kind, model)
            parameters[kind] = sum(p.numel() for p in model.parameters())
            contestants[f"{kind} {mode}"] = training_step(model, options, config["vocab_size"], mode == "compiled")
    product, gflop = peer.matrix_product()
    timings = peer.measure_interleaved({**contestants, "matrix": product}, options)
    results = []
    for name in contestants:
        kind, mode = name.split()
        results.append({"attention": kind, "mode": mode, "length": options.length, "batch": options.batch,
                        "parameters": parameters[kind], **timings[name],
                        "tokens_per_second": options.batch * options.length / timings[name]["seconds"],
                        "matrix_gflops": gflop / timings["matrix"]["seconds"]})
    options.model = str(options.model)
    peer.report("train", options, results, checks=checks)


main()
