#!/usr/bin/env python3
"""Holds our tokenizer against the `tokenizers` package: every id of every document, and CPU-seconds of one thread.

usage: check_tokenizers.py BENCH [--texts FOLDER] [--runs N] TOKENIZER...
  BENCH      the program bench_tokenizer (tests/bench)
  TOKENIZER  a tokenizer.json, or OURS=THEIRS where OURS may be a .gguf and THEIRS is the tokenizer.json to compare with
  --texts    a folder of .jsonl (field "text") and plain text files; without it configs/data
Prints one line per tokenizer and text; the last column is their CPU-seconds over ours. Exit status 1 when an id differs.
Run it with RAYON_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false: the comparison is of one thread.
"""
import argparse
import pathlib
import resource
import subprocess
import sys
import tempfile

from tokenizers import Tokenizer

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import tokenizer_texts as texts


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def theirs(tokenizer, batch, runs):
    best = float("inf")
    for _ in range(runs):
        start = cpu_seconds()
        encoded = [tokenizer.encode(text, add_special_tokens=False) for text in batch]
        best = min(best, cpu_seconds() - start)
    return [e.ids for e in encoded], best


def ours(bench, path, batch, runs):
    with tempfile.TemporaryDirectory() as folder:
        documents, ids = pathlib.Path(folder, "documents"), pathlib.Path(folder, "ids")
        documents.write_bytes(texts.frame(batch))
        line = subprocess.run([bench, path, documents, ids, str(runs)], check=True, capture_output=True, text=True).stdout
        return texts.unframe(ids.read_bytes()), float(line.split()[4]), float(line.split()[3])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bench")
    parser.add_argument("--texts", type=pathlib.Path, default=texts.ROOT / "configs/data")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("tokenizers", nargs="+")
    args = parser.parse_args()
    files = sorted(p for p in args.texts.rglob("*") if p.suffix in (".jsonl", ".txt", ".raw"))
    files = [p for p in files if p.suffix != ".jsonl" or '"text"' in p.open(encoding="utf-8").readline()]
    bad = 0
    for item in args.tokenizers:
        path, _, other = item.partition("=")
        tokenizer = Tokenizer.from_file(other or path)
        for name, batch in [(p.name, texts.documents(p)) for p in files] + [("random", list(texts.random_strings()))]:
            expected, their_seconds = theirs(tokenizer, batch, args.runs)
            got, our_seconds, load = ours(args.bench, path, batch, args.runs)
            wrong = [i for i, (a, b) in enumerate(zip(expected, got)) if a != b]
            bad += len(wrong) + (len(expected) != len(got))
            bytes_ = sum(len(t.encode()) for t in batch)
            print(f"{pathlib.Path(path).name:36} {name:18} {len(batch):6} texts {bytes_:9} bytes {sum(map(len, got)):8} ids "
                  f"{'equal' if not wrong else f'{len(wrong)} TEXTS DIFFER'}  theirs {bytes_ / their_seconds / 1e6:6.2f} MB/s  "
                  f"ours {bytes_ / max(our_seconds, 1e-9) / 1e6:7.2f} MB/s  ratio {their_seconds / max(our_seconds, 1e-9):6.1f}  load {load:.3f} s",
                  flush=True)
            for i in wrong[:3]:
                at = next((k for k, (a, b) in enumerate(zip(expected[i], got[i])) if a != b), min(len(expected[i]), len(got[i])))
                print(f"    text {i} at id {at}: {expected[i][max(0, at - 2):at + 4]} != {got[i][max(0, at - 2):at + 4]}  {batch[i][:60]!r}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
