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


def main():
    slmc, recipe = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
    lines = [line for line in recipe.read_text().splitlines() if "use: distill" not in line and not line.startswith(("gates:", "report:"))]
    with tempfile.TemporaryDirectory() as scratch:
        untrained = pathlib.Path(scratch) / "untrained.yaml"
        untrained.write_text("\n".join(lines).replace("../../", f"{recipe.parents[2]}/").replace("../", f"{recipe.parents[1]}/"))
        seen = {}
        for threads in (1, 2, 3):
            work = pathlib.Path(scratch) / f"work-{threads}"
            done = subprocess.run([slmc, "run", untrained, "--work", work, "--threads", str(threads), "--gemm", "mkl", "-q"],
                                  capture_output=True, text=True, env=dict(os.environ, OMP_NUM_THREADS=str(threads)))
            if done.returncode != 0:
                sys.exit(f"run failed with {done.returncode}:\n{done.stderr[-3000:]}")
            seen[threads] = hashes(work, "*.gguf") | hashes(work, "*.safetensors") | hashes(work, "origin.json")
        wanted = seen[1]
        if len(wanted) < 5 or not any(name.endswith(".gguf") for name in wanted):
            sys.exit(f"there must be two folders and a GGUF to compare, but there are {sorted(wanted)}")
        for threads, found in seen.items():
            differing = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
            if differing:
                sys.exit(f"with {threads} threads these differ from those with one: {differing}")
        print(f"threads: {len(wanted)} files the same for 1, 2 and 3 threads")


main()
