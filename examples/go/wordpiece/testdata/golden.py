#!/usr/bin/env python3
"""Writes golden.jsonl: 1,000 generated sentences with the token ids that PyPI tokenizers==0.23.3 gives them.

    golden.py TOKENIZER.json > golden.jsonl

Each line is [text, ids]. The sentences mix words, accents, several scripts, ideographs, emoji, control characters,
special tokens in the text, unknown words, over-long words, and texts long enough to be truncated; then come runs of code
points from all over Unicode, where character classes differ between versions.
"""
import json
import random
import sys

import tokenizers

WORDS = """the quick brown foxes jumped over lazy dogs unbelievably internationalization e-mail won't 3.14159 $9.99 C++
naïve café Ångström Übermut façade Dvořák São crème brûlée Łódź İstanbul ΣΊΣΥΦΟΣ Ὀδυσσεύς привет мир Ёлка Київ
שלום עולם مرحبا بالعالم नमस्ते दुनिया ภาษาไทย 안녕하세요 세계 こんにちは 世界 カタカナ 東京都 中文字符 𠮷野家 豈更 ﬁnance ①②③ Ⅷ ½
don't rock'n'roll http://example.org/a?b=c&d=e user@example.com #hashtag @handle foo_bar snake_case CamelCase ALLCAPS
x=y*(z+1)/2; “quoted” ‘single’ «guillemets» — – … ¿qué? ¡hola! ° ™ © € £ ¥ ₿ 👍 👩‍👩‍👧‍👦 🇩🇪 ❤️ 🏳️‍🌈 ☕ 𝒳 𝔘𝔫𝔦 qwrtzpsdf xqzjv
[CLS] [SEP] [MASK] [PAD] [UNK] [mask] antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis""".split()
SPACES = [" "] * 12 + ["  ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u200b", "", ""]
ODD = ["\x00", "\x07", "\x0b", "\x0c", "\x7f", "\x85", "\u00ad", "\u200d", "\u200e", "\u202e", "\ufeff", "\ufffd", "\ufe0f",
       "\u0301", "\u0308", "e\u0301", "\u1ab0", "\u20e3", "\ue000", "\U000e0041", "\U0010fffd", "\u0378", "\u2e4f", "\u08d3"]


def sentence(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.04:
        return "".join(rng.choice("abcdefgé") for _ in range(rng.choice([99, 100, 101, 250])))
    count = rng.choice([0, 1, 2, 3, 5, 8, 8, 12])
    if kind > 0.98:
        count = rng.choice([40, 80, 130])
    parts = []
    for _ in range(count):
        word = rng.choice(WORDS)
        if rng.random() < 0.1:
            at = rng.randrange(len(word) + 1)
            word = word[:at] + rng.choice(ODD) + word[at:]
        if rng.random() < 0.1:
            word = rng.choice([word.upper(), word.title(), word + rng.choice("!?.,;:-)"), "(" + word])
        parts += [word, rng.choice(SPACES)]
    return "".join(parts)


def run(rng: random.Random) -> str:
    first = rng.choice([rng.randrange(0x20, 0x3000), rng.randrange(0x20, 0x3000), rng.randrange(0xa000, 0xd7f0),
                        rng.randrange(0xf900, 0x1fff0), rng.randrange(0x20000, 0x30000)])
    return "a".join(chr(c) for c in range(first, first + 12) if not 0xd800 <= c < 0xe000)


def main() -> None:
    assert tokenizers.__version__ == "0.23.3", tokenizers.__version__
    tokenizer = tokenizers.Tokenizer.from_file(sys.argv[1])
    tokenizer.no_padding()
    rng = random.Random(1)
    for index in range(1000):
        text = run(rng) if index >= 850 else sentence(rng)
        print(json.dumps([text, tokenizer.encode(text).ids], separators=(",", ":")))


if __name__ == "__main__":
    main()
