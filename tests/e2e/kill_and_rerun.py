#!/usr/bin/env python3
"""A run killed at random points and started again gives the bytes of a run that was never stopped.

usage: kill_and_rerun.py SLMC RECIPE [--kills 10] [--seed 1]
The whole process group gets SIGKILL after a random time; then the same command runs to its end. Compared: every file below the work
folder but measurements (measured.json, eval/, cache/, report, events), which a run makes about itself.
"""
import argparse
import hashlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

NOT_COMPARED = {"measured.json", "lineage.json", "manifest.json", "result.json"}


def contents(work):
    out = {}
    for path in sorted(work.rglob("*")):
        relative = path.relative_to(work)
        if not path.is_file() or relative.parts[0] in ("eval", "cache") or any(p.startswith(".") for p in relative.parts):
            continue
        if path.name in NOT_COMPARED or path.name.endswith(".lineage.json") or len(relative.parts) == 1:
            continue
        out[str(relative)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return out


def command(options, work):
    return [options.slmc, "run", options.recipe, "--work", str(work), "--threads", "1", "-q"]


def run(options, work):
    done = subprocess.run(command(options, work), capture_output=True, text=True)
    if done.returncode not in (0, 3):          # 3: a gate was not met, which is not this test's business
        sys.exit(f"run failed with {done.returncode}:\n{done.stderr[-3000:]}")


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
        killed = 0
        for n in range(options.kills):
            work = pathlib.Path(scratch) / f"killed-{n}"
            process = subprocess.Popen(command(options, work), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
            time.sleep(chance.uniform(0.02, 0.98) * seconds)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                killed += 1
            process.wait()
            run(options, work)
            found = contents(work)
            differing = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
            if differing:
                sys.exit(f"kill {n}: these files differ from the calm run's: {differing[:10]}")
            shutil.rmtree(work)
        if killed < options.kills // 2:
            sys.exit(f"only {killed} of {options.kills} runs were still going when they were to be killed")
        print(f"kill_and_rerun: {killed} of {options.kills} runs killed, {len(wanted)} files equal after each")


main()
