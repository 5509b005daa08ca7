"""Texts that tokenizers are compared on: documents of .jsonl files, and random strings of code points assigned in Unicode 14.

The random strings are a pure function of their index (splitmix64), so that tests/unit/text_test.cpp makes the same ones.
"""
import json
import pathlib
import struct
import unicodedata

ROOT = pathlib.Path(__file__).resolve().parents[2]
ASSIGNED = ROOT / "tests/data/tokenizers/assigned14.txt"
MASK = (1 << 64) - 1
TRICKY = (" ", " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2028", "\u180e", "\u200d", "\u0085", "'s", "'S", "'LL", "'ve", "'\u017f",
          "'re", "'M", "'d", "'x", "n't", "1", "23", "4567", "\u00bd", "\u0663", "\u2167", "!", "...", "?!\n", "_", "\u2581", "\u0301", "\u0323",
          "\u0300\u0323", "e\u0301", "\u1100\u1161", "\u11a8", "\uac00", "\u0958", "\u212b", "\u0344", "\ufb01", "A", "the", " world", "\u00e9",
          "\u6f22\u5b57", "\U0001f600", "\U0001f469\u200d\U0001f4bb", "\ufeff", "\ufffd", "\x00", "\x7f", "<s>", "</s>", "<unk>", "<0x41>",
          "<|endoftext|>", "<|im_start|>", "<|user|>", "<", "|>")


def splitmix(seed):
    z = (seed + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
    return z ^ z >> 31


def write_assigned():
    assert unicodedata.unidata_version == "14.0.0", "take Python 3.11"
    ranges = []
    for c in range(0x110000):
        if unicodedata.category(chr(c)) in ("Cn", "Cs", "Co"):
            continue
        if ranges and ranges[-1][1] == c - 1:
            ranges[-1][1] = c
        else:
            ranges.append([c, c])
    ASSIGNED.parent.mkdir(parents=True, exist_ok=True)
    ASSIGNED.write_text("".join(f"{a:X} {b:X}\n" for a, b in ranges))


def assigned():
    out = []
    for line in ASSIGNED.read_text().splitlines():
        a, b = (int(x, 16) for x in line.split())
        out += range(a, b + 1)
    return out


def random_strings(count=10000):
    """Three kinds by turns: any assigned code point; mostly printable ASCII; what pre-tokenizers and NFC care about."""
    codes = assigned()
    for i in range(count):
        draw = lambda k: splitmix(i * 1000 + k)
        text = ""
        for k in range(1, 2 + draw(0) % 24):
            r = draw(k)
            kind, r = i % 3, r >> 8
            if kind == 1 and draw(k) % 8 > 0:
                text += chr(32 + r % 95)
            elif kind == 2 and draw(k) % 8 > 0:
                text += TRICKY[r % len(TRICKY)]
            else:
                text += chr(codes[r % len(codes)])
        yield text


def documents(path):
    path = pathlib.Path(path)
    if path.suffix == ".jsonl":
        return [json.loads(line)["text"] for line in path.open(encoding="utf-8")]
    return [path.read_bytes().decode()]


def frame(texts):
    """The input of bench_tokenizer: u32 length and bytes, again and again."""
    return b"".join(struct.pack("<I", len(b)) + b for b in (t.encode() for t in texts))


def unframe(data):
    ids, at = [], 0
    while at < len(data):
        (n,) = struct.unpack_from("<I", data, at)
        ids.append(list(struct.unpack_from(f"<{n}i", data, at + 4)))
        at += 4 + 4 * n
    return ids
