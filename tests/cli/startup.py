#!/usr/bin/env python3
"""The front program is light: it links no LibTorch, and answers in the time of a keystroke. usage: startup.py SLMC ROOT [GGUF]"""
import pathlib
import re
import resource
import subprocess
import sys

slmc, root = (pathlib.Path(p).resolve() for p in sys.argv[1:3])


def cpu_ms(*words):
    best = 1e9
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([slmc, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=root)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != 0:
            sys.exit(f"slmc {' '.join(words)} ended with {done.returncode}: {done.stderr.decode()}")
        best = min(best, 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    return best


needed = subprocess.run(["readelf", "-d", slmc], capture_output=True, text=True, check=True).stdout
libraries = re.findall(r"NEEDED.*\[(.*)\]", needed)
foreign = [l for l in libraries if not re.match(r"(libstdc\+\+|libm|libgcc_s|libc|libasan|libubsan|ld-linux)(?![a-z+])", l)]
if foreign or not libraries:
    sys.exit(f"slmc must need only the C and C++ libraries, but needs {foreign}")

recipe = root / "tests/cli/startup.yaml"
limits = [(50, ["--help"]), (50, ["recipe", "check", str(recipe)])]
gguf = pathlib.Path(sys.argv[3]) if len(sys.argv) > 3 else root / "models/smollm2-135m-instruct.gguf"
if gguf.exists():
    limits.append((100, ["inspect", str(gguf), "--json"]))
slow = 4 if "asan" in str(slmc.resolve()) else 1        # sanitizers slow everything
for limit, words in limits:
    took = cpu_ms(*words)
    print(f"slmc {' '.join(words)}: {took:.0f} ms of {limit * slow}")
    if took > limit * slow:
        sys.exit("too slow")
