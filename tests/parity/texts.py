# Texts that are difficult for tokenizers, generated from a seed: the same on every machine.
# SPDX-License-Identifier: Apache-2.0
import random

CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "'Re", "'vE", "'\u017f", "\u2019s", "'x", "''s", "'"]
WORDS = ("the quick brown fox it's I'll they've don't Wasn't THE naïve café coöperate Straße Zürich façade "
         "Москва привет Ελλάδα λόγος שלום عربي हिन्दी ภาษาไทย 한국어 日本語 中文 漢字かな交じり文 Việt Nam İstanbul ǅ ﬁn ſs "
         "print return int64_t foo_bar fooBar __init__ x=y; a->b() {} [] #include <vector> //comment /* */ 0xFF 1e-9 "
         "http://a.b/c?d=e&f=%20 user@example.com ... --- === <<>> && || != <= :: $x @y ~z ^w `code` \\n \\u0041").split(" ")
BLANKS = [" ", "  ", "   ", " " * 7, " " * 16, " " * 40, "\t", "\t\t", "\n", "\n\n", "\r\n", "\r", "\n \n", " \n", "\n  ", "\u00a0",
          "\u3000", "\u2028", "\u2009", "\u200b", "\x0b", "\x0c", "\x85", "\u1680", "\ufeff", "\u180e", "\u202f"]
EMOJI = ["😀", "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇨🇭", "❤️", "☺", "✊🏿", "🧑🏻‍💻", "#️⃣", "🫨", "🪿"]
MARKS = ["e\u0301", "a\u0308\u0323", "n\u0303", "\u0301", "ᄒ\u1161\u11ab", "Å", "\u212b", "ﬀ", "½", "²", "①", "Ⅷ", "ⅷ", "㎏", "ﷺ", "\u0344",
         "\u0958", "\u2126", "\u1e9b\u0323", "q\u0307\u0323", "\u0061\u0315\u0300\u05ae\u0062", "\u094d", "\u0e33"]
DIGITS = ["0", "7", "42", "123", "1234", "12345", "1234567", "3.14159", "1,000,000", "٣٤٥", "१२३", "๑๒", "１２３", "1st", "2²", "Ⅻ", "𝟙𝟚"]
SPECIAL = ["<s>", "</s>", "<unk>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "<|begin_of_text|>", "<0x0A>",
           "<|eot_id|>", "[INST]", "<|", "|>", "▁", "▁▁", "Ġ", "Ċ", "<|im_end", "im_end|>", "<mask>", "\ufffd"]
CONTROLS = [chr(c) for c in range(0, 32)] + ["\x7f", "\u0080", "\u009f", "\u200d", "\u200c", "\u200e", "\u202e", "\u2066", "\ufffe", "\uffff"]
CODE = ["for (int i = 0; i < n; ++i) {\n    x[i] += y[i] * 2.5f;  // scale\n}\n",
        "def f(self, x: int) -> str:\n\treturn f\"{x!r:>{w}}\"\n", "SELECT * FROM t WHERE a='b' AND c>=10;\r\n",
        "<div class=\"a b\">&nbsp;</div>", "{\"k\": [1, 2.0, null, true]}", "$ ls -la | grep '^d' && echo \"done\"\n", "    \n\t  \n        }\n"]
MIXES = ["".join(p) for p in ("הֶ", "بِسْمِ", "ক্ষ", "நி", "ཀྵ", "မြန်", "ខ្មែរ")]
GROUPS = [WORDS, WORDS, BLANKS, BLANKS, CONTRACTIONS, DIGITS, EMOJI, MARKS, SPECIAL, CONTROLS, CODE, MIXES]
# Ranges from which single characters are drawn. The last ones include unassigned code points.
RANGES = [(0x20, 0x7e), (0x20, 0x7e), (0xa0, 0x17f), (0x180, 0x24f), (0x250, 0x36f), (0x370, 0x52f), (0x590, 0x6ff), (0x900, 0xdff),
          (0xe00, 0x11ff), (0x1e00, 0x2fff), (0x3000, 0x33ff), (0x4e00, 0x9fff), (0xa000, 0xabff), (0xac00, 0xd7a3), (0xf900, 0xffff),
          (0x10000, 0x11fff), (0x12000, 0x1bfff), (0x1d000, 0x1ffff), (0x20000, 0x323af), (0x0, 0xd7ff), (0xe000, 0x10ffff)]


def character(rng):
    return chr(rng.randint(*rng.choice(RANGES)))


def line(rng):
    """One text, of any of several kinds."""
    kind = rng.random()
    if kind < 0.15:
        return "".join(character(rng) for _ in range(rng.randint(1, 40)))
    if kind < 0.25:
        block = rng.choice(RANGES)
        return "".join(chr(rng.randint(*block)) for _ in range(rng.randint(1, 60)))
    if kind < 0.45:
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 25)))
    if kind < 0.5:
        return rng.choice([rng.choice(BLANKS), "a", "1", "'", "日", "ab", character(rng)]) * rng.randint(1, 200)
    parts = []
    for _ in range(rng.randint(1, 20)):
        parts.append(rng.choice(rng.choice(GROUPS)) if rng.random() < 0.9 else character(rng))
        if rng.random() < 0.3:
            parts.append(" ")
    return "".join(parts)


def without_surrogates(text):
    return "".join(c for c in text if not 0xD800 <= ord(c) < 0xE000)


def lines(count, seed=1):
    rng = random.Random(seed)
    return [without_surrogates(line(rng)) for _ in range(count)]


def broken_lines(count, seed=2):
    """Bytes that are not always UTF-8, without newlines."""
    rng = random.Random(seed)
    out = []
    for text in lines(count, seed):
        raw = bytearray(text.encode())
        for _ in range(rng.randint(1, 6)):
            at = rng.randint(0, len(raw))
            if rng.random() < 0.5 and at < len(raw):
                del raw[at]
            else:
                raw[at:at] = rng.choice([b"\xff", b"\x80", b"\xc3", b"\xe4\xb8", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80",
                                         bytes([rng.randint(0, 255)])])
        out.append(bytes(raw).replace(b"\n", b" "))
    return out
