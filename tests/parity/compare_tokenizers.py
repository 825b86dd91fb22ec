#!/usr/bin/env python3
# Compares coca with the tokenizers package: ids and decoded text of many difficult lines, for every tokenizer of
# tests/stored/tokenizers (or the given tokenizer.json files). Exits with 1 if anything differs.
# SPDX-License-Identifier: Apache-2.0
import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

from tokenizers import Tokenizer
from tokenizers import __version__ as package_version

import texts

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def run(program, *arguments):
    done = subprocess.run([program, "tokenizer", *map(str, arguments)], stdout=subprocess.PIPE)
    if done.returncode != 0:
        raise SystemExit(f"compare_tokenizers: {' '.join(map(str, arguments))} ended with exit code {done.returncode}")
    return [json.loads(line) for line in done.stdout.split(b"\n")[:-1]]


class Comparison:
    def __init__(self, name):
        self.name, self.compared, self.different = name, 0, []

    def add(self, what, shown, ours, theirs):
        self.compared += 1
        if ours != theirs:
            self.different.append((what, shown, ours, theirs))

    def report(self, most):
        print(f"{self.name}: {self.compared} compared, {len(self.different)} different", flush=True)
        for what, shown, ours, theirs in self.different[:most]:
            print(f"  {what} of {shown!r}\n    coca    {ours}\n    package {theirs}")


def compare(options, file, lines, broken, work):
    result = Comparison(file.parent.name)
    tokenizer = Tokenizer.from_file(str(file))
    raw = json.loads(file.read_text())
    fallback = raw["model"]["byte_fallback"]
    json_lines, raw_lines, id_lines = work / "lines.json", work / "lines.txt", work / "ids.json"
    json_lines.write_text("".join(json.dumps(line) + "\n" for line in lines))
    raw_lines.write_bytes(b"".join(line + b"\n" for line in broken))
    plain = None
    for flag in ([], ["--special"]):
        tokenizer.encode_special_tokens = not flag
        ours = run(options.coca, "encode", "--tokenizer", file, "--json-lines", json_lines, *flag)
        theirs = [encoding.ids for encoding in tokenizer.encode_batch(lines, add_special_tokens=False)]
        for text, a, b in zip(lines, ours, theirs, strict=True):
            result.add("ids" + "".join(flag), text, a, b)
        plain = plain or theirs
    tokenizer.encode_special_tokens = True
    repaired = [line.decode("utf-8", errors="replace") for line in broken]
    ours = run(options.coca, "encode", "--tokenizer", file, "--lines", raw_lines)
    theirs = tokenizer.encode_batch(repaired, add_special_tokens=False)
    byte_level = "ByteLevel" in json.dumps(raw["pre_tokenizer"])
    if not byte_level:  # the package repairs invalid text; a byte-level model keeps the bytes
        for line, a, b in zip(broken, ours, theirs, strict=True):
            result.add("ids of broken text", line, a, b.ids)
    rng = random.Random(3)
    size = tokenizer.get_vocab_size()
    ids = plain + [[rng.randrange(size) for _ in range(rng.randint(0, 12))] for _ in range(len(lines) // 4)]
    id_lines.write_text("".join(json.dumps(line) + "\n" for line in ids + ours))
    ours_text = run(options.coca, "decode", "--tokenizer", file, "--lines", id_lines)
    for line, a, b in zip(ids, ours_text, tokenizer.decode_batch(ids), strict=False):
        if not (fallback and "\ufffd" in b):  # invalid byte tokens: coca keeps them, the package writes U+FFFD
            result.add("text", line, a, b)
    last = raw["pre_tokenizer"].get("pretokenizers", [raw["pre_tokenizer"]])[-1] if byte_level else {}
    if last.get("type") == "ByteLevel" and raw["normalizer"] is None and not last.get("add_prefix_space"):
        for line, a in zip(repaired, ours_text[len(ids):], strict=True):
            result.add("round trip of broken text", line, a, line)
    result.report(options.show)
    return len(result.different)


def main():
    parser = argparse.ArgumentParser(prog="compare_tokenizers.py", description=__doc__)
    parser.add_argument("--lines", type=int, default=100_000, help="texts (default 100000)")
    parser.add_argument("--broken", type=int, default=10_000, help="texts that are not UTF-8 (default 10000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=5, help="differences shown for each tokenizer (default 5)")
    parser.add_argument("--coca", default=str(ROOT / "build/release/bin/coca"), help="the program")
    parser.add_argument("files", nargs="*", type=pathlib.Path, help="tokenizer.json files")
    options = parser.parse_args()
    files = options.files or sorted((ROOT / "tests/stored/tokenizers").glob("*/tokenizer.json"))
    lines = texts.lines(options.lines, options.seed)
    broken = texts.broken_lines(options.broken, options.seed + 1)
    print(f"tokenizers {package_version}: {len(lines)} lines of {sum(map(len, lines))} characters, {len(broken)} broken ones")
    with tempfile.TemporaryDirectory() as folder:
        different = sum(compare(options, file, lines, broken, pathlib.Path(folder)) for file in files)
    print(f"{different} differences")
    sys.exit(different != 0)


main()
