#!/usr/bin/env python3
"""Plans, healed, refitted and quantized weights are the same bytes for 1, 2 and 3 threads; training is so only for equal threads.

usage: threads.py SLMC RECIPE      The recipe without its stages that train is run with each number of threads.
"""
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile


def hashes(folder, pattern):
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob(pattern))}


def made_by(slmc, recipe, threads, work):
    done = subprocess.run([slmc, "run", recipe, "--work", work, "--threads", str(threads), "--gemm", "mkl", "-q"],
                          capture_output=True, text=True, env=dict(os.environ, OMP_NUM_THREADS=str(threads), OMP_WAIT_POLICY="PASSIVE"))
    if done.returncode != 0:
        sys.exit(f"run failed with {done.returncode}:\n{done.stderr[-3000:]}")
    return hashes(work, "*.gguf") | hashes(work, "*.safetensors") | hashes(work, "origin.json")


def expect_same(wanted, found, what):
    differing = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
    if differing:
        sys.exit(f"{what} these differ: {differing}")


def main():
    slmc, recipe = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
    whole = [line for line in recipe.read_text().splitlines() if not line.startswith(("gates:", "report:"))]
    untrained = [line for line in whole if "use: distill" not in line]
    with tempfile.TemporaryDirectory() as scratch:
        def written(name, lines):
            path = pathlib.Path(scratch) / name
            path.write_text("\n".join(lines).replace("../../", f"{recipe.parents[2]}/").replace("../", f"{recipe.parents[1]}/"))
            return path

        def run(lines, name, threads):
            return made_by(slmc, written(name + ".yaml", lines), threads, pathlib.Path(scratch) / name)

        one = run(untrained, "one", 1)
        if len(one) < 5 or not any(name.endswith(".gguf") for name in one):
            sys.exit(f"there must be two folders and a GGUF to compare, but there are {sorted(one)}")
        for threads in (2, 3):
            expect_same(one, run(untrained, f"untrained-{threads}", threads), f"between 1 and {threads} threads")
        expect_same(run(whole, "first", 2), run(whole, "second", 2), "between two runs that train with 2 threads")
        print(f"threads: {len(one)} files the same for 1, 2 and 3 threads; training the same twice with 2")


main()
