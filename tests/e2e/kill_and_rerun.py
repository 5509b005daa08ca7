#!/usr/bin/env python3
"""A run killed at random points and started again gives the bytes of a run that was never stopped.

usage: kill_and_rerun.py SLMC RECIPE [--kills 10] [--seed 1]
After a random time `slmc` gets SIGKILL, every other time only the engine that runs then; the same command then runs to its end.
Compared: every file below the work folder, evaluations, manifests and lineage included, but for what a run measures about itself
(MEASURED), checkpoints and the cache of statistics. The path of matrix products is fixed: measuring it may end either way, and it is
part of every key.
"""
import argparse
import difflib
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

MEASURED = {"measured", "seconds", "cpu_seconds", "load_s", "cpu_s", "peak_bytes", "tokens_per_s", "resumed",
            "check"}                                                                  # the hash of a manifest's other fields


def without_measures(value):
    if isinstance(value, dict):
        return {k: without_measures(v) for k, v in value.items() if k not in MEASURED}
    return [without_measures(v) for v in value] if isinstance(value, list) else value


def contents(work):
    out = {}
    for path in sorted(work.rglob("*")):
        relative = path.relative_to(work)
        if not path.is_file() or relative.parts[0] == "cache" or path.name in ("measured.json", "report.html", ".lock"):
            continue
        data = path.read_bytes()
        if path.suffix == ".json":
            out[str(relative)] = json.dumps(without_measures(json.loads(data)), sort_keys=True, indent=1)
        else:
            out[str(relative)] = hashlib.sha256(data).hexdigest()
    return out


def command(options, work):
    return [options.slmc, "run", options.recipe, "--work", str(work), "--set", f"report={work}/report.html", "--threads", "1", "--gemm", "mkl", "-q"]


def run(options, work):
    done = subprocess.run(command(options, work), capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"run failed with {done.returncode}:\n{done.stderr[-3000:]}")


def children(pid):
    return [int(word) for word in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("slmc")
    parser.add_argument("recipe")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        calm = pathlib.Path(scratch) / "calm"
        started = time.monotonic()
        run(options, calm)
        seconds = time.monotonic() - started
        wanted = contents(calm)
        if len(wanted) < 3:
            sys.exit(f"the calm run left only {len(wanted)} files to compare: {sorted(wanted)}")
        killed = tries = 0
        while killed < options.kills:
            tries += 1
            if tries > 3 * options.kills:
                sys.exit(f"only {killed} of {tries - 1} runs were still going when they were to be killed")
            work = pathlib.Path(scratch) / f"killed-{tries}"
            process = subprocess.Popen(command(options, work), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(chance.uniform(0.02, 0.98) * seconds)
            done = process.poll() is not None
            if not done:
                engines = children(process.pid) if killed % 2 else []
                os.kill(engines[0] if engines else process.pid, signal.SIGKILL)
                killed += 1
            process.wait()
            if done:
                shutil.rmtree(work)
                continue
            run(options, work)
            found = contents(work)
            differing = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
            if differing:
                first = [side.get(differing[0], "(no such file)").splitlines() for side in (wanted, found)]
                print("\n".join(list(difflib.unified_diff(*first, "calm", "killed and rerun", lineterm="", n=1))[:40]))
                sys.exit(f"kill {killed}: these files differ from the calm run's: {differing[:10]}")
            shutil.rmtree(work)
        print(f"kill_and_rerun: {killed} runs killed, {len(wanted)} files equal after each")


main()
