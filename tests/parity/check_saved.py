#!/usr/bin/env python3
"""Checks that transformers loads what coca saves: converts every model of tests/stored/hf with `coca convert` (unchanged, and
in shards). transformers must get the same logits as from the original, without missing or unexpected tensors.

Exit code 77 (skipped) if transformers is not installed; tests/parity/setup creates the environment.
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
TOLERANCE = 1e-5  # relative to the largest logit: the same program and weights, except for an element type in between


def check(coca, source, out, shard_gib):
    import torch
    import transformers
    from safetensors.torch import load_file

    subprocess.run([coca, "convert", str(source), str(out), "--dtype", "f32", "--max-shard-gib", str(shard_gib)], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    expected = load_file(source / "expected.safetensors")
    model, info = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, attn_implementation="eager",
                                                                    output_loading_info=True)
    wrong = {k: v for k, v in info.items() if v}
    if wrong:
        return f"loading says {wrong}"
    with torch.no_grad():
        logits = model.eval()(expected["prompt"].long()).logits
    error = ((logits - expected["logits"]).abs().max() / expected["logits"].abs().max()).item()
    return None if error <= TOLERANCE else f"logits differ by {error:.2e} of the largest"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--coca", default=str(ROOT / "build" / "release" / "bin" / "coca"))
    args = parser.parse_args()
    try:
        import transformers
    except ImportError:
        print("transformers is not installed: run tests/parity/setup")
        return 77
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    failed = 0
    with tempfile.TemporaryDirectory() as temp:
        for source in sorted((ROOT / "tests" / "stored" / "hf").iterdir()):
            for name, shard in (("whole", 5), ("shards", 2e-5)):
                problem = check(args.coca, source, pathlib.Path(temp) / f"{source.name}-{name}", shard)
                print(f"{source.name}, {name}: {problem or 'equal'}")
                failed += problem is not None
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
