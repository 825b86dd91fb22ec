#!/usr/bin/env python3
# Compares the speed of coca and the tokenizers package, alternately on this machine with one thread each. Prints
# medians and ratios of processor time, so that other work on the machine has little effect.
# SPDX-License-Identifier: Apache-2.0
import os

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

from tokenizers import Tokenizer
from tokenizers import __version__ as package_version

import texts

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def coca_rate(options, file, corpus):
    """MB/s by the benchmark program, which encodes the file's documents again and again."""
    arguments = [options.bench, "--benchmark_filter=encode_file", "--benchmark_format=json", "--benchmark_min_time=1"]
    environment = {**os.environ, "COCA_BENCH_TOKENIZER": str(file), "COCA_BENCH_TEXT": str(corpus), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, check=True)
    return json.loads(done.stdout)["benchmarks"][0]["bytes_per_second"] * 1e-6


def package_rate(tokenizer, documents):
    size = sum(len(document.encode()) for document in documents)
    start = time.process_time()
    for document in documents:
        tokenizer.encode(document, add_special_tokens=False)
    return size / (time.process_time() - start) * 1e-6


def package_batch_rate(tokenizer, documents):
    size = sum(len(document.encode()) for document in documents)
    start = time.process_time()
    tokenizer.encode_batch_fast(documents, add_special_tokens=False)
    return size / (time.process_time() - start) * 1e-6


def main():
    parser = argparse.ArgumentParser(prog="time_tokenizers.py", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bench", default=str(ROOT / "build/release/bench/text_tokenizer"), help="coca's benchmark program")
    parser.add_argument("--text", action="append", type=pathlib.Path, help="text files; default: hard lines made from a seed")
    parser.add_argument("files", nargs="*", type=pathlib.Path, help="tokenizer.json files (default: those of the tests)")
    options = parser.parse_args()
    files = options.files or sorted((ROOT / "tests/stored/tokenizers").glob("*/tokenizer.json"))
    # Documents of about 8 kB, the size of a prompt or of a document in a data set.
    text = "".join(p.read_text(errors="replace") for p in options.text) if options.text else "\n".join(texts.lines(30000, 11))
    documents = [text[i:i + 8000] for i in range(0, min(len(text), 4_000_000), 8000)]
    print(f"tokenizers {package_version}, one thread each, {options.rounds} rounds in turns, {sum(len(d.encode()) for d in documents) * 1e-6:.1f} MB")
    with tempfile.TemporaryDirectory() as folder:
        corpus = pathlib.Path(folder) / "corpus.txt"
        corpus.write_bytes(b"\0\0".join(d.encode() for d in documents))
        for file in files:
            tokenizer = Tokenizer.from_file(str(file))
            tokenizer.encode_special_tokens = True
            rows = [(coca_rate(options, file, corpus), package_rate(tokenizer, documents), package_batch_rate(tokenizer, documents))
                    for _ in range(options.rounds)]
            ours, theirs, batch = (statistics.median(column) for column in zip(*rows))
            print(f"{file.parent.name:10}  coca {ours:7.1f} MB/s  package {theirs:6.2f} MB/s, its fast batches {batch:6.2f} MB/s  "
                  f"ratio {ours / theirs:5.1f}, {ours / batch:5.1f}", flush=True)


main()
