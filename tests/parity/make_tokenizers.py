#!/usr/bin/env python3
# Trains the small tokenizers of tests/stored/tokenizers with the tokenizers package and stores what it makes of hard texts.
#   build/parity-venv/bin/python tests/parity/make_tokenizers.py BOOK.txt...
# SPDX-License-Identifier: Apache-2.0
import json
import pathlib
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import texts

DATA = pathlib.Path(__file__).resolve().parent.parent / "stored" / "tokenizers"
CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3 = CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace("{1,3}", "")
GPT4O = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + CONTRACTION + "?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + CONTRACTION + "?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
VOCAB = 1200


def special(content, **more):
    return AddedToken(content, special=True, normalized=False, **more)


def trained(tokenizer, corpus, specials, alphabet=True, **more):
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=specials, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if alphabet else [], **more)
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def byte_level(corpus, split, specials, normalizer=None):
    tokenizer = Tokenizer(models.BPE())
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    return trained(tokenizer, corpus, specials)


def split_then_bytes(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), behavior, invert),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def gpt_neox(corpus):
    tokenizer = byte_level(corpus, pre_tokenizers.ByteLevel(add_prefix_space=False), [special("<|endoftext|>"), special("<|padding|>")],
                           normalizers.NFC())
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in range(12, 1, -1)])
    return json.loads(tokenizer.to_str())


def llama_3(corpus):
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer = byte_level(corpus, split_then_bytes(LLAMA3), [])
    tokenizer.add_special_tokens([special(name) for name in names])
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
                                      special_tokens=[(names[0], tokenizer.token_to_id(names[0]))])])
    file = json.loads(tokenizer.to_str())
    file["model"]["ignore_merges"] = True
    # Adds a token that no merge produces but that ignore_merges can select.
    file["model"]["merges"] = [m for i, m in enumerate(file["model"]["merges"]) if i % 97 != 50 or i > 700]
    made = {"".join(m) for m in file["model"]["merges"]}
    file["model"]["merges"] = [m for m in file["model"]["merges"] if all(len(t) == 1 or t in made for t in m)]
    return file


def qwen2(corpus):
    tokenizer = byte_level(corpus, split_then_bytes(QWEN2), [], normalizers.NFC())
    tokenizer.add_special_tokens([special(name) for name in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in ("<tool_call>", "</tool_call>")])
    return json.loads(tokenizer.to_str())


def gpt_4o(corpus):
    return json.loads(byte_level(corpus, split_then_bytes(GPT4O, "removed", True), [special("<|endoftext|>")]).to_str())


def starcoder(corpus):
    split = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=True)])
    return json.loads(byte_level(corpus, split, [special("<|endoftext|>"), special("<mask>", lstrip=True)]).to_str())


def falcon(corpus):
    """Steps behind ByteLevel see its letters, three of which are numbers too."""
    split = pre_tokenizers.Sequence([pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(add_prefix_space=False),
                                     pre_tokenizers.Digits(), pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")])
    return json.loads(byte_level(corpus, split, [special("<|endoftext|>")]).to_str())


def kimi(corpus):
    """Its pattern keeps Han apart by intersections of classes."""
    pattern = r"[\p{Han}]+|" + GPT4O.replace(r"\p{M}]", r"\p{M}&&[^\p{Han}]]")
    return json.loads(byte_level(corpus, split_then_bytes(pattern), [special("[BOS]")]).to_str())


def clip(corpus):
    """The last letter of a word is another symbol than that letter within it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex("\\s+"), " "), normalizers.Lowercase()])
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "removed", True),
                                                       pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trained(tokenizer, corpus, [special("<|startoftext|>"), special("<|endoftext|>")], end_of_word_suffix="</w>")
    tokenizer.post_processor = processors.RobertaProcessing(("<|endoftext|>", 1), ("<|startoftext|>", 0), False, False)
    return json.loads(tokenizer.to_str())


def with_bytes(file, first):
    """Puts <0x00> to <0xFF> behind the first ids of the vocabulary, as sentencepiece does."""
    vocab = file["model"]["vocab"]
    file["model"]["vocab"] = {token: i if i < first else i + 256 for token, i in vocab.items()}
    file["model"]["vocab"].update({f"<0x{b:02X}>": first + b for b in range(256)})
    for token in file["added_tokens"]:
        token["id"] += 256 if token["id"] >= first else 0
    file["model"].update(byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    return file


def characters(corpus, split):
    """A BPE of characters with the blank as U+2581: 64 merges of blanks and newlines apart, like LLaMA 2's."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = split
    trained(tokenizer, corpus, [special("<unk>"), special("<s>"), special("</s>")], alphabet=False, limit_alphabet=300)
    file = json.loads(tokenizer.to_str())
    runs = ["▁" * n for n in (2, 4, 8, 16)]
    vocab = file["model"]["vocab"]
    for run in runs:
        if run not in vocab:
            vocab[run] = len(vocab)
            file["model"]["merges"].append([run[: len(run) // 2]] * 2)
    return with_bytes(file, 3)


LLAMA2_DECODER = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                                                   {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}


def llama_2(corpus):
    file = characters(corpus, pre_tokenizers.Metaspace(prepend_scheme="always", split=True))
    file["pre_tokenizer"] = None
    file["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                                                               {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
    file["decoder"] = LLAMA2_DECODER
    file["post_processor"] = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                              "pair": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                                       {"Sequence": {"id": "B", "type_id": 1}}],
                              "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}
    file["model"]["merges"] = [" ".join(pair) for pair in file["model"]["merges"]]  # the format of files before 2024
    return file


def mistral(corpus):
    file = characters(corpus, pre_tokenizers.Metaspace(prepend_scheme="always", split=True))
    file["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    file["decoder"] = LLAMA2_DECODER
    last = max(file["model"]["vocab"].values())
    for i, (content, flags) in enumerate([("[INST]", {}), ("[/INST]", {}), ("<mask>", {"lstrip": True, "rstrip": True}),
                                          ("MASK", {"single_word": True, "special": False, "normalized": True})]):
        file["added_tokens"].append({"id": last + 1 + i, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
                                     "normalized": False, "special": True, **flags})
    return file


def words(corpus):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.Lowercase(), normalizers.Replace(Regex("\\p{Mn}+"), ""),
                                                 normalizers.Strip(), normalizers.NFKC()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("contiguous"),
                                                       pre_tokenizers.Digits(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    trained(tokenizer, corpus, [special("<unk>")], alphabet=False, limit_alphabet=150)
    tokenizer.add_tokens([AddedToken("İstanbul", normalized=True)])
    return json.loads(tokenizer.to_str())


ALL = {"gpt_neox": gpt_neox, "llama_3": llama_3, "qwen2": qwen2, "gpt_4o": gpt_4o, "starcoder": starcoder, "llama_2": llama_2,
       "mistral": mistral, "words": words, "falcon": falcon, "kimi": kimi, "clip": clip}
CONFIGS = {
    "llama_3": {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    "llama_2": {"bos_token": {"content": "<s>", "lstrip": False}, "eos_token": "</s>", "unk_token": "<unk>"},
    "qwen2": {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
}


TEXTS = texts.lines(160, seed=7) + texts.SPECIAL + ["", " ", "a", " a", "a ", "\n", "  a"]


def golden(folder):
    """For each text [ids with special tokens as text, ids with them parsed, decoded], null where it is the one before (decoded:
    the text)."""
    rows = []
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in TEXTS:
        tokenizer.encode_special_tokens = False
        parsed = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = True
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        decoded = tokenizer.decode(plain)
        rows.append([plain, None if parsed == plain else parsed, None if decoded == text else decoded])
    return rows


def write_rows(file, rows):
    file.write_text("[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n]\n")


def main():
    if len(sys.argv) < 2:
        raise SystemExit("make_tokenizers.py: give text files to train on")
    corpus = [line for name in sys.argv[1:] for line in pathlib.Path(name).read_text(errors="replace").splitlines(keepends=True)[:4000]]
    corpus += texts.lines(3000, seed=5)
    DATA.mkdir(parents=True, exist_ok=True)
    write_rows(DATA / "texts.json", TEXTS)
    for name, make in ALL.items():
        folder = DATA / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").write_text(json.dumps(make(corpus), ensure_ascii=False, separators=(",", ":")) + "\n")
        if name in CONFIGS:
            (folder / "tokenizer_config.json").write_text(json.dumps(CONFIGS[name]) + "\n")
        write_rows(folder / "golden.json", golden(folder))
        print(name, *((folder / f).stat().st_size for f in ("tokenizer.json", "golden.json")))


if __name__ == "__main__":
    main()
