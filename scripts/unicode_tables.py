#!/usr/bin/env python3
"""Writes lib/text/unicode_tables.inc from the Unicode 14.0 tables of CPython 3.11 (unicodedata.unidata_version).

usage: python3.11 scripts/unicode_tables.py > lib/text/unicode_tables.inc
The same version as PCRE2 10.42, so that hand-written scanners and regular expressions agree (tests/unit/text_test.cpp).
"""
import sys
import unicodedata as u

if u.unidata_version != "14.0.0":
    sys.exit(f"unicode_tables.py: Python's Unicode tables must be 14.0.0, but are {u.unidata_version}: take Python 3.11")

LETTER, NUMBER, SPACE, WORD, NFC_CHECK = 1, 2, 4, 8, 16
SPACES = {9, 10, 11, 12, 13, 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}
# Alphabetic symbols (Other_Alphabetic of category So); all other Alphabetic code points are of category L, Nl or M.
CIRCLED = {*range(0x24B6, 0x24EA), *range(0x1F130, 0x1F14A), *range(0x1F150, 0x1F16A), *range(0x1F170, 0x1F18A)}
JOIN_CONTROL = {0x200C, 0x200D}
SURROGATES = range(0xD800, 0xE000)
ALL = [c for c in range(0x110000) if c not in SURROGATES]

decomposition = {}   # canonical, one step: (first, second or 0)
for c in ALL:
    d = u.decomposition(chr(c))
    if d and not d.startswith("<"):
        parts = [int(x, 16) for x in d.split()]
        decomposition[c] = (parts[0], parts[1] if len(parts) > 1 else 0)
composes = {c for c, (a, b) in decomposition.items() if b and u.normalize("NFC", chr(a) + chr(b)) == chr(c)}
seconds = {decomposition[c][1] for c in composes} | set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))


def flags(c):
    s, g = chr(c), u.category(chr(c))
    f = LETTER if g[0] == "L" else NUMBER if g[0] == "N" else 0
    f |= SPACE if c in SPACES else 0
    if g[0] in "LM" or g in ("Nd", "Nl", "Pc") or c in CIRCLED or c in JOIN_CONTROL:
        f |= WORD
    if u.normalize("NFC", s) != s or c in seconds or u.combining(s):
        f |= NFC_CHECK
    return f


def runs(value):     # [(first code point, value)], each run up to the next one
    out = []
    for c in range(0x110000):
        v = 0 if c in SURROGATES else value(c)
        if not out or out[-1][1] != v:
            out.append((c, v))
    return out


def table(name, kind, comment, rows, form):
    print(f"// {comment}\ninline constexpr {kind} {name}[] = {{")
    line = " "
    for row in rows:
        item = form(row) + ","
        if len(line) + len(item) > 108:
            print(line)
            line = " "
        line += " " + item if line != " " else item
    print(line + "\n};\n")


print("// Made by scripts/unicode_tables.py from Unicode 14.0.0; do not edit.")
print("// NOLINTBEGIN")
table("kClassRuns", "std::uint32_t",
      "first code point << 8 | flags (letter 1, number 2, white space 4, word 8, look closer for NFC 16)",
      runs(flags), lambda r: f"0x{r[0] << 8 | r[1]:X}")
table("kCombiningRuns", "std::uint32_t", "first code point << 8 | canonical combining class",
      runs(lambda c: u.combining(chr(c))), lambda r: f"0x{r[0] << 8 | r[1]:X}")
table("kDecompositions", "Decomposition", "{code point, first, second or 0, whether NFC composes it again}",
      sorted(decomposition.items()), lambda r: f"{{0x{r[0]:X},0x{r[1][0]:X},0x{r[1][1]:X},{int(r[0] in composes)}}}")
print("// NOLINTEND")
