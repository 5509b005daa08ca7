#!/usr/bin/env python3
"""Training steps on SmolLM2-135M, 4 x 512 tokens, fp32: slmc beside transformers on the same machine, in the same minutes.

    python train_vs_transformers.py TRAIN_STEP HF_FOLDER [--rounds N] [--what ce,distill] [--without-installed]

TRAIN_STEP is bench/train_step.cpp, HF_FOLDER the model that both sides load. `ce`: next-token cross-entropy of the whole model.
`distill`: the model without its ten middle blocks learns from the whole one, forward KL over the whole vocabulary. A step is forward,
backward, clipping to norm 1 and AdamW (torch's fused one on both sides), on the same ids. Each round runs, each in a fresh process:
slmc, transformers helped (MKL's AVX-512 kernels on any CPU, malloc that keeps its pages), transformers as installed.

Time: CPU-seconds (user + system) of one thread, the least of all steps but the first. Memory: the largest RssAnon seen every 20 ms,
from outside, in steps as everywhere: pages of mapped model files count on neither side. Losses of the steps are compared too.
"""
import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from forward_vs_transformers import helped_environment

BATCH, SEQ, STEPS, DROPPED = 4, 512, 3, 10


def transformers_side(what, folder):
    import torch
    from torch.nn.functional import cross_entropy, kl_div
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)

    def load():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")

    def cpu():
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime

    student = load().train()
    vocab, blocks = student.config.vocab_size, student.model.layers
    if what == "distill":
        teacher = load().eval()
        first = (len(blocks) - DROPPED) // 2
        student.model.layers = torch.nn.ModuleList([b for i, b in enumerate(blocks) if not first <= i < first + DROPPED])
        student.config.num_hidden_layers = len(student.model.layers)
        for i, block in enumerate(student.model.layers):
            block.self_attn.layer_idx = i
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    seconds, losses = [], []
    for step in range(STEPS):
        start = cpu()
        ids = (7919 * torch.arange(step * BATCH * SEQ, (step + 1) * BATCH * SEQ) % vocab).view(BATCH, SEQ)
        z = student(input_ids=ids, use_cache=False).logits[:, :-1].reshape(-1, vocab)
        if what == "ce":
            loss = cross_entropy(z, ids[:, 1:].reshape(-1))
        else:
            with torch.no_grad():
                p = torch.log_softmax(teacher(input_ids=ids, use_cache=False).logits[:, :-1].reshape(-1, vocab), -1)
            loss = kl_div(torch.log_softmax(z, -1), p, log_target=True, reduction="batchmean")
            del p
        del z
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        seconds.append(cpu() - start)
    print(json.dumps({"cpu_s": seconds, "loss": losses}))


def anonymous_bytes(pid):
    try:
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def run(command, environment):
    """What the command prints as JSON, with the largest anonymous memory that it had."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous_bytes(process.pid))
        time.sleep(0.02)
    output = process.stdout.read()
    if process.returncode != 0:
        sys.exit(f"{command[0]} failed with {process.returncode}")
    result = json.loads(output.splitlines()[-1])
    return result | {"best": min(result["cpu_s"][1:]), "peak": peak}


def report(what, rounds, kinds):
    """One line for each side: least CPU-seconds and memory; the ratio is the median over rounds of the ratios inside a round."""
    for kind in kinds:
        ratio = statistics.median(r[kind]["best"] / r["slmc"]["best"] for r in rounds)
        memory = statistics.median(r["slmc"]["peak"] / r[kind]["peak"] for r in rounds)
        best, peak = min(r[kind]["best"] for r in rounds), max(r[kind]["peak"] for r in rounds)
        print(f"{what:8} {kind:13} {best:7.3f} CPU-s {BATCH * SEQ / best:6.0f} tokens per CPU-s {peak / 1e9:6.2f} GB"
              f"   slmc is {ratio:.2f}x as fast, at {memory:.2f}x its memory")
    share = statistics.median(r["slmc"]["flops"] / r["slmc"]["best"] / 1e9 / r["slmc"]["peak_gflops"] for r in rounds)
    apart = max(abs(a / b - 1) for r in rounds for a, b in zip(r["slmc"]["loss"], r["helped"]["loss"]))
    print(f"{what:8} slmc by {rounds[0]['slmc']['gemm']}: {100 * share:.1f} % of {rounds[0]['slmc']['peak_gflops']:.0f} GFLOP/s;"
          f" losses of {STEPS} steps differ by at most {apart:.1e}, relatively")


def main():
    if sys.argv[1] == "--transformers":
        return transformers_side(*sys.argv[2:4])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train_step")
    parser.add_argument("folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--what", default="ce,distill")
    parser.add_argument("--without-installed", action="store_true", help="leave out the slow third side")
    o = parser.parse_args()
    common = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error",
                           "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    kinds = ["slmc", "helped"] + ([] if o.without_installed else ["as installed"])
    with tempfile.TemporaryDirectory() as name:
        helped = helped_environment(pathlib.Path(name))
        for what in o.what.split(","):
            rounds = []
            for i in range(o.rounds):
                now = {}
                for kind in kinds:
                    command = [sys.executable, __file__, "--transformers", what, o.folder]
                    if kind == "slmc":
                        command = [o.train_step, o.folder, what, str(DROPPED if what == "distill" else 0), str(BATCH), str(SEQ), str(STEPS)]
                    now[kind] = run(command, common | (helped if kind == "helped" else {}))
                rounds.append(now)
                print(f"{what} round {i + 1}: " + "  ".join(f"{k} {v['best']:.3f} s {v['peak'] / 1e9:.2f} GB" for k, v in now.items()), flush=True)
            report(what, rounds, kinds)


if __name__ == "__main__":
    main()
