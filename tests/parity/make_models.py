#!/usr/bin/env python3
"""Makes the tiny random models of tests/stored/hf with transformers, and stores their logits and greedy tokens.

tests/parity/setup creates the environment. The weights are rounded to the type they are stored in before anything is
computed; everything is computed in fp32.
"""
import argparse
import json
import pathlib
import shutil

import torch
import transformers
from safetensors.torch import save_file

LENGTH, NEW = 40, 24  # prompt, greedy tokens
SIZES = dict(vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             initializer_range=0.25)
LLAMA3 = dict(rope_type="llama3", rope_theta=5000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=16)

YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=24, beta_fast=2.0, beta_slow=0.05)
# The prompt exceeds the original context, so long factors apply from the first token on.
LONGROPE = dict(rope_type="longrope", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=24,
                short_factor=[1.0, 1.1, 1.3, 1.7], long_factor=[1.2, 2.0, 3.5, 6.0])

# name: (class, settings, stored type, shard size)
MODELS = {
    "gpt_neox": ("GPTNeoX", dict(SIZES, intermediate_size=64, rotary_pct=0.25), torch.float32, None),
    "gpt_neox_sequential": ("GPTNeoX", dict(SIZES, intermediate_size=64, rotary_pct=0.5, use_parallel_residual=False,
                                            hidden_act="gelu_new", attention_bias=False), torch.float16, None),
    "llama": ("Llama", dict(SIZES, num_key_value_heads=2), torch.float32, "20KB"),
    "llama_bias": ("Llama", dict(SIZES, num_key_value_heads=4, attention_bias=True, mlp_bias=True, head_dim=12),
                   torch.bfloat16, None),
    "llama3": ("Llama", dict(SIZES, num_key_value_heads=2, rope_parameters=LLAMA3, tie_word_embeddings=True,
                             max_position_embeddings=128, eos_token_id=[91, 92]), torch.bfloat16, None),
    "llama_dynamic": ("Llama", dict(SIZES, num_key_value_heads=2, max_position_embeddings=24,
                                    rope_parameters=dict(rope_type="dynamic", factor=4.0, rope_theta=10000.0)),
                      torch.bfloat16, None),
    "llama_linear": ("Llama", dict(SIZES, num_key_value_heads=2, max_position_embeddings=24,
                                   rope_parameters=dict(rope_type="linear", factor=4.0, rope_theta=10000.0)),
                     torch.bfloat16, None),
    "llama_yarn": ("Llama", dict(SIZES, num_key_value_heads=2, max_position_embeddings=96, rope_parameters=YARN), torch.bfloat16, None),
    "llama_longrope": ("Llama", dict(SIZES, num_key_value_heads=2, max_position_embeddings=192, rope_parameters=LONGROPE), torch.bfloat16, None),
    "mistral": ("Mistral", dict(SIZES, num_key_value_heads=2, sliding_window=9), torch.bfloat16, None),
    "qwen2": ("Qwen2", dict(SIZES, num_key_value_heads=2, tie_word_embeddings=True), torch.bfloat16, None),
    "qwen2_window": ("Qwen2", dict(SIZES, num_key_value_heads=2, use_sliding_window=True, sliding_window=7,
                                   max_window_layers=1), torch.bfloat16, None),
    "qwen3": ("Qwen3", dict(SIZES, num_key_value_heads=2, head_dim=16), torch.bfloat16, None),
}


def randomise(model):
    """Biases and norms that do something, which transformers leaves at 0 and 1."""
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.normal_(0, 0.2)
        elif "norm" in name:
            parameter.data.normal_(1, 0.2)


def to_v4(folder):
    """The positions as transformers 4 wrote them."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config.pop("dtype", None)
    config["rope_scaling"] = None if rope.get("rope_type", "default") == "default" else rope
    file.write_text(json.dumps(config, indent=2) + "\n")


def make(name, out):
    kind, settings, stored, shard = MODELS[name]
    torch.manual_seed(sum(map(ord, name)))
    settings = dict(dict(bos_token_id=None, eos_token_id=None), **settings)
    config = getattr(transformers, kind + "Config")(**settings)
    model = getattr(transformers, kind + "ForCausalLM")(config).eval()
    randomise(model)
    model = model.to(stored)
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
    (folder / "generation_config.json").unlink(missing_ok=True)
    if name in ("llama3", "mistral"):
        to_v4(folder)

    def load():  # loads again, because model.to(bfloat16) has rounded the frequencies as well
        return getattr(transformers, kind + "ForCausalLM").from_pretrained(folder, dtype=torch.float32,
                                                                           attn_implementation="eager").eval()

    model = load()
    prompt = torch.randint(0, settings["vocab_size"], (1, LENGTH))
    with torch.no_grad():
        logits = model(prompt).logits
        ids = prompt  # runs the whole sequence for each token, so that dynamic NTK uses the current length
        for _ in range(NEW):
            # A fresh model each time, because transformers keeps the base of the longest sequence it has seen.
            fresh = load() if "dynamic" in name or "longrope" in name else model
            ids = torch.cat([ids, fresh(ids).logits[:, -1:].argmax(-1)], dim=1)
    save_file({"prompt": prompt.int(), "logits": logits.contiguous(), "greedy": ids[:, LENGTH:].int().contiguous()},
              folder / "expected.safetensors")
    print(f"{name}: {sum(p.numel() for p in model.parameters())} parameters, largest logit {logits.abs().max():.3g}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parents[1] / "stored" / "hf")
    parser.add_argument("names", nargs="*", default=list(MODELS))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.names:
        make(name, args.out)


if __name__ == "__main__":
    main()
