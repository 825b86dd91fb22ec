#!/usr/bin/env python3
"""Compares LoRA with PEFT and PyTorch, on the small models of tests/stored/hf.

  compare_lora.py            an adapter that PEFT saves, merged by `coca merge`, must give transformers the logits that PEFT
                             computes; one that coca's own files describe must load into PEFT without a missing tensor
  compare_lora.py --store    writes tests/stored/lora: an adapter as PEFT saves it, with logits, loss and gradients of its
                             tensors as PyTorch computes them; tests/golden/lora_test.cc compares coca with them

Exit code 77 (skipped) if peft is not installed (pip install torch transformers peft).
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
HF = ROOT / "tests" / "stored" / "hf"
TOLERANCE = 1e-5  # relative to the largest logit
TARGETS = {"llama": ["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"], "gpt_neox": ["query_key_value", "dense_h_to_4h"]}


def adapted(name, torch, transformers, peft, **options):
    base = transformers.AutoModelForCausalLM.from_pretrained(HF / name, dtype=torch.float32, attn_implementation="eager")
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=TARGETS[name], task_type="CAUSAL_LM", **options)
    model = peft.get_peft_model(base, config)
    torch.manual_seed(1)
    for key, p in model.named_parameters():
        if "lora_" in key:
            p.data = 0.1 * torch.randn_like(p)
    return model


def ids_of(torch, model):
    torch.manual_seed(2)
    return torch.randint(0, model.config.vocab_size, (2, 12))


def check(coca, name, torch, transformers, peft, temp, **options):
    model = adapted(name, torch, transformers, peft, **options)
    model.save_pretrained(temp / "adapter")
    with torch.no_grad():
        expected = model.eval()(ids_of(torch, model)).logits
    subprocess.run([coca, "merge", "--model", HF / name, "--adapter", temp / "adapter", "--out", temp / "merged"], check=True, stdout=subprocess.DEVNULL)
    merged = transformers.AutoModelForCausalLM.from_pretrained(temp / "merged", dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        logits = merged.eval()(ids_of(torch, model)).logits
    error = ((logits - expected).abs().max() / expected.abs().max()).item()
    return f"logits differ by {error:.1e} of the largest", error <= TOLERANCE


def check_ours(coca, name, torch, transformers, peft, temp):
    """An adapter that coca trained loads into PEFT."""
    (temp / "text.txt").write_text("the cat sat on the mat. " * 40)
    config = transformers.AutoConfig.from_pretrained(HF / name)
    config.vocab_size = 272  # the byte tokenizer's 257, and a few more
    base = transformers.AutoModelForCausalLM.from_config(config)
    base.save_pretrained(temp / "base")
    subprocess.run([coca, "finetune", "--model", temp / "base", "--tokenizer", "byte", "--text", temp / "text.txt", "--length", "16", "--steps", "2",
                    "--lora-rank", "2", "--out", temp / "run"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    model = peft.PeftModel.from_pretrained(base, temp / "run" / "adapter")
    from safetensors.torch import load_file
    ours = load_file(temp / "run" / "adapter" / "adapter_model.safetensors")
    theirs = peft.get_peft_model_state_dict(model)
    same = ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    return "the tensors are PEFT's" if same else "tensors differ", same


def store(name, torch, transformers, peft):
    from safetensors.torch import save_file

    out = ROOT / "tests" / "stored" / "lora" / name
    shutil.rmtree(out, ignore_errors=True)
    model = adapted(name, torch, transformers, peft, use_rslora=name == "gpt_neox")
    model.save_pretrained(out)
    (out / "README.md").unlink(missing_ok=True)
    config = json.loads((out / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = f"tests/stored/hf/{name}"
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    ids = ids_of(torch, model)
    model.train()
    logits = model(ids).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1))
    loss.backward()
    tensors = {"ids": ids.int(), "logits": logits.detach().contiguous(), "loss": loss.detach().reshape(1)}
    for key, p in model.named_parameters():
        if "lora_" in key:
            tensors["grad." + key.replace(".default", "").removeprefix("base_model.model.")] = p.grad.contiguous()
    save_file(tensors, out / "expected.safetensors")
    print(f"{out}: {sum(f.stat().st_size for f in out.iterdir())} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coca", default=str(ROOT / "build" / "release" / "bin" / "coca"))
    parser.add_argument("--store", action="store_true")
    args = parser.parse_args()
    try:
        import peft
        import torch
        import transformers
    except ImportError as error:
        print(f"{error}: pip install torch transformers peft")
        return 77
    transformers.utils.logging.disable_progress_bar()
    if args.store:
        for name in TARGETS:
            store(name, torch, transformers, peft)
        return 0
    failed = 0
    for name in TARGETS:
        cases = {"plain": {}, "rslora": {"use_rslora": True}, "patterns": {"rank_pattern": {TARGETS[name][0]: 2}, "alpha_pattern": {TARGETS[name][1]: 9}}}
        for case, options in cases.items():
            with tempfile.TemporaryDirectory() as temp:
                text, good = check(args.coca, name, torch, transformers, peft, pathlib.Path(temp), **options)
            print(f"{name}, {case}: {text}")
            failed += not good
        with tempfile.TemporaryDirectory() as temp:
            text, good = check_ours(args.coca, name, torch, transformers, peft, pathlib.Path(temp))
        print(f"{name}, trained by coca: {text}")
        failed += not good
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
