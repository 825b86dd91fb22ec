#!/usr/bin/env python3
# Prints src/coca/text/unicode_tables.inc: characters that the tokenizers package treats differently from the libraries.
# Run it when the pinned package changes:  build/parity-venv/bin/python tests/parity/unicode_tables.py > FILE
# SPDX-License-Identifier: Apache-2.0
import unicodedata

from tokenizers import Regex, normalizers, pre_tokenizers

POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
CATEGORIES = ("Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Cf Zs Zl Zp").split()


def matched(pattern):
    """The characters that a regular expression of the package matches."""
    split = pre_tokenizers.Split(Regex(pattern), "removed")
    left = set()
    for i in range(0, len(POINTS), 4096):
        for word, _ in split.pre_tokenize_str("".join(map(chr, POINTS[i:i + 4096]))):
            left.update(map(ord, word))
    return set(POINTS) - left


def isolated(split):
    """The characters that a pre-tokenizer cuts out of a word."""
    found = set()
    for i in range(0, len(POINTS), 2048):
        text = "a" + "".join(chr(c) + "a" for c in POINTS[i:i + 2048])
        found.update(ord(word) for word, _ in split.pre_tokenize_str(text) if len(word) == 1)
    return found - {ord("a")}


def runs(points):
    found = []
    for c in sorted(points):
        if found and found[-1][1] == c - 1:
            found[-1][1] = c
        else:
            found.append([c, c])
    return found


def table(name, kind, comment, entries):
    print(f"// {comment}\nconstexpr {kind} {name}[] = {{")
    line = "   "
    for entry in entries:
        if len(line) + len(entry) > 118:
            print(line)
            line = "   "
        line += f" {entry},"
    print(line + "\n};\n")


def strange_to_normalizers():
    """Characters that Python's tables (Unicode 14 or later) decompose or reorder and the package's do not."""
    nfkd, nfd = normalizers.NFKD(), normalizers.NFD()
    strange = set()
    for c in POINTS:
        text = chr(c)
        if nfkd.normalize_str(text) != unicodedata.normalize("NFKD", text):
            strange.add(c)
        if unicodedata.combining(text):
            for probe in ("a\u0345" + text, "a" + text + "\u0334"):
                if nfd.normalize_str(probe) != unicodedata.normalize("NFD", probe):
                    strange.add(c)
        canonical = unicodedata.decomposition(text)
        if canonical and "<" not in canonical and nfd.normalize_str(text) != unicodedata.normalize("NFD", text):
            strange.update(int(part, 16) for part in canonical.split())
    return strange


def main():
    pairs = lambda points: [f"{{{a:#x}, {b:#x}}}" for a, b in runs(points)]
    print("// Made by tests/parity/unicode_tables.py: characters the tokenizers package treats otherwise than Unicode 14.")
    print("// SPDX-License-Identifier: Apache-2.0\n")
    added = []
    for category in CATEGORIES:
        new = {c for c in matched(rf"\p{{{category}}}") if unicodedata.category(chr(c)) != category}
        added += [(a, b, category) for a, b in runs(new)]
    table("kAdded", "AddedRange", "Characters of Unicode 15 and 16, which its regular expressions know.",
          [f"{{{a:#x}, {b:#x}, \"{category}\"}}" for a, b, category in sorted(added)])
    han = matched(r"\p{Han}")
    later = {c for a, b, _ in added for c in range(a, b + 1)}
    table("kAddedHan", "CodeRange", "Those of them that are \\p{Han}.", pairs(han & later))
    numbers = matched(r"\p{N}")
    table("kDigitsToo", "CodeRange", "What Digits takes for numeric beyond \\p{N}.",
          pairs(isolated(pre_tokenizers.Digits(True)) - numbers))
    ascii_signs = set(b"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
    punctuation = matched(r"\p{P}")
    table("kNotPunctuation", "CodeRange", "\\p{P} that the older tables of Punctuation do not have.",
          pairs(punctuation - isolated(pre_tokenizers.Punctuation()) - ascii_signs))
    table("kNotNormalized", "CodeRange", "What its normalization forms (Unicode 12) leave as it is.",
          pairs(strange_to_normalizers()))
    accents = normalizers.StripAccents()
    stripped = {c for c in POINTS if accents.normalize_str(chr(c)) == ""}
    marks = {c for c in POINTS if unicodedata.category(chr(c))[0] == "M"}
    table("kNotAccents", "CodeRange", "Marks that StripAccents (Unicode 9) keeps.", pairs(marks - stripped - later))
    table("kAccentsToo", "CodeRange", "What it takes for marks beside them.", pairs(stripped - marks))
    lower = normalizers.Lowercase()
    table("kLowerToo", "LowerPair", "Letters of Unicode 15 to 17 that Lowercase changes.",
          [f"{{{c:#x}, {ord(lower.normalize_str(chr(c))):#x}}}" for c in POINTS
           if len(lower.normalize_str(chr(c))) == 1 and lower.normalize_str(chr(c)) != chr(c).lower()])


main()
