#!/usr/bin/env python3
"""What pruning costs in CPU-seconds and memory, on one thread, beside the floor of its arithmetic.

    python prune_costs.py SLMC ENGINE MODEL CALIB [statistics] [replan] [drop]

MODEL is a llama-shaped GGUF, CALIB text for 256 windows of 512 tokens. All parts run when none is named.
    statistics  statistics of 128 windows and the whole of `prune --ffn` with them, from an empty cache; the floor is forward pass and Gram products over the
                raw FMA rate that the engine measures, in the same minutes
    replan      the same at another width, from the cache
    drop        `drop --layers 8 --search greedy-kl` that tries cuts on 8 windows and confirms them on 32 others, without repair
CPU-seconds are user + system of the whole process tree, memory the highest resident size of a process, libraries and the mapped model included.
"""
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile

WINDOWS, SEQ = 128, 512


def measured(command, **more):
    """(CPU-seconds, bytes at most) of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([str(a) for a in command], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"} | more)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, after.ru_maxrss * 1024, done


def peak_flops(engine, model, scratch):
    job = scratch / "job.json"
    job.write_text(json.dumps({"slmc_job": 1, "op": "bench", "model": str(model), "threads": 1, "settings": {"batch": 1, "seq": 64, "decode": 0, "repeat": 1}}))
    return json.loads(measured([engine, job])[2].stdout.splitlines()[-1])["peak_gflops"] * 1e9


def floor_flops(config):
    """Forward pass without the head, each query's own keys counted, and the upper halves of the Gram matrices of what ffn.down reads."""
    hidden, ffn, blocks = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    attention = 2 * hidden * hidden + 2 * hidden * (hidden // heads) * groups
    tokens = WINDOWS * SEQ
    forward = 2 * tokens * blocks * (attention + 3 * hidden * ffn) + 4 * hidden * tokens * (SEQ + 1) // 2 * blocks
    return forward, tokens * blocks * ffn * (ffn + 1)


def main():
    slmc, engine, model, calib = sys.argv[1:5]
    parts = sys.argv[5:] or ["statistics", "replan", "drop"]
    with tempfile.TemporaryDirectory() as name:
        scratch = pathlib.Path(name)
        cache = {"SLMC_CACHE": str(scratch / "cache")}
        text = ["--calib", calib, "--seq", SEQ, "--threads", 1, "-q"]
        peak = max(peak_flops(engine, model, scratch) for _ in range(3))
        first = scratch / "first"
        if "statistics" in parts or "replan" in parts:
            cpu, memory, _ = measured([slmc, "prune", model, "-o", first, "--ffn", 1280, "--samples", WINDOWS, *text], **cache)
            config = json.loads((first / "config.json").read_text()) | {"intermediate_size": 1536}
            forward, gram = floor_flops(config)
            peak = max(peak, *(peak_flops(engine, model, scratch) for _ in range(3)))
            floor = (forward + gram) / peak
            print(f"statistics and prune: {cpu:.1f} CPU-s, {memory / 1e9:.2f} GB; floor {floor:.1f} s = ({forward / 1e12:.2f} + {gram / 1e12:.2f}) TFLOP"
                  f" / {peak / 1e9:.0f} GFLOP/s: {cpu / floor:.2f}x", flush=True)
        if "replan" in parts:
            cpu, memory, _ = measured([slmc, "prune", model, "-o", scratch / "second", "--ffn", 1376, "--samples", WINDOWS, *text], **cache)
            print(f"re-plan from the cache: {cpu:.1f} CPU-s, {memory / 1e9:.2f} GB", flush=True)
        if "drop" in parts:
            cpu, memory, _ = measured([slmc, "drop", model, "-o", scratch / "short", "--layers", 8, "--search", "greedy-kl", "--heal", "none", "--samples", 256, *text], **cache)
            print(f"greedy drop of 8: {cpu:.1f} CPU-s, {memory / 1e9:.2f} GB", flush=True)


if __name__ == "__main__":
    main()
