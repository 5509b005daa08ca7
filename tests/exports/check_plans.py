#!/usr/bin/env python3
"""Fifty seeded plans of every family and container: each that we accept opens in its public reader with our logits, each that we refuse says
which axis and what would be possible instead.

usage: check_plans.py [FAMILY...]      all when none is named; about ten CPU-minutes
write_plans.cpp makes the plans, from random models of the families of check_exports.py, and writes what fits with our fp32 logits.
"""
import json
import shutil
import subprocess
import sys

import numpy as np
import torch
from safetensors import safe_open

from families import FAMILIES, HF_ONLY, random_family
from readers import BIN, LlamaCpp, attempt, check, finish, fresh, load_transformers, logits_of

PLANS = 50
TOLERANCE = 1e-3        # of logits of a few units

# llama.cpp looks GELU up in a table of half-precision values of its tanh form, whatever the model asks for, which moves logits by up to 1e-2. For these families a GGUF
# is held to transformers with that same GELU in place of the exact one, on the folder of the same plan, which in turn is held to our logits.
TABLE_GELU = ("gpt2", "gpt_neox")
TABLE_TOLERANCE = 2e-3  # an input that lies between two half-precision values by a rounding error of fp32 may take the other one
HALF_TOLERANCE = 2e-2   # of what half precision does to GELU, to our exact logits


class TableGelu(torch.nn.Module):
    """ggml_vec_gelu_f32 with GGML_GELU_FP16."""

    def forward(self, x):
        y = torch.nn.functional.gelu(x.half().float(), approximate="tanh").half().float()
        return torch.where(x <= -10, torch.zeros_like(x), torch.where(x >= 10, x, y))


def table_gelu_logits(folder, ids):
    model, _ = load_transformers(folder)
    base = model.base_model
    for block in base.h if hasattr(base, "h") else base.layers:
        block.mlp.act = TableGelu()
    return logits_of(model, ids)


def opened(container, path, ids):
    """Logits of a public reader, and what it had to say."""
    if container == "gguf":
        return LlamaCpp(path, 64).logits(ids), []
    model, complaints = load_transformers(path)
    return logits_of(model, ids), complaints


def difference(a, b):
    return float(np.abs(a - b).max()) if a.shape == b.shape else float("inf")


def check_accepted(name, container, folder, seeds):
    table = container == "gguf" and name in TABLE_GELU
    worst, bad = 0.0, []
    for seed in seeds:
        with safe_open(str(folder / f"{seed}.safetensors"), "np") as f:
            ids, ours = f.get_tensor("ids"), f.get_tensor("logits")
        try:
            theirs, complaints = opened(container, folder / (f"{seed}.gguf" if container == "gguf" else str(seed)), ids)
        except Exception as error:                    # the reader refuses what we accepted
            bad.append(f"{seed}: {str(error).splitlines()[0][:200]}")
            continue
        off = difference(theirs, ours)
        if table and not off <= HALF_TOLERANCE:
            bad.append(f"{seed}: logits off by {off:.1e} even for a GELU of half precision")
        if table:
            off = difference(theirs, table_gelu_logits(folder / str(seed), ids))
        worst = max(worst, off)
        if complaints:
            bad.append(f"{seed}: {'; '.join(complaints)[:200]}")
        if not off <= (TABLE_TOLERANCE if table else TOLERANCE):
            bad.append(f"{seed}: logits off by {off:.1e}")
    check(f"{name} {container}: plans that fit open with our logits", seeds and not bad, f"{len(seeds)} plans, largest difference {worst:.1e}{' with its table of GELU' if table else ''}" + " | ".join([""] + bad[:4]))


def check_refused(name, container, rows):
    unnamed = [(r["seed"], v["message"]) for r in rows for v in r["violations"] if not v["axis"] or not v["nearest"]]
    illegal = [(r["seed"], v["axis"], v["nearest"]) for r in rows for v in r["violations"] if v["legal"] is False]
    silent = [r["seed"] for r in rows if not r["violations"]]
    check(f"{name} {container}: refusals name axis and nearest legal value", not unnamed and not silent, f"{len(rows)} plans {unnamed[:3] if unnamed else ''}")
    check(f"{name} {container}: what is named as nearest is possible", not illegal, f"{illegal[:3] if illegal else ''}")


def check_family(name):
    made, folder = random_family(name), fresh(f"{name}-plans")
    done = subprocess.run([BIN / "write_plans", made, folder, str(PLANS)], capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    for container in ("hf",) if name in HF_ONLY else ("hf", "gguf"):
        mine = [r for r in rows if r["container"] == container]
        check(f"{name} {container}: plans were made", len(mine) == PLANS)
        check_accepted(name, container, folder, [r["seed"] for r in mine if r["fits"]])
        check_refused(name, container, [r for r in mine if not r["fits"]])
    shutil.rmtree(folder)


for family in sys.argv[1:] or FAMILIES:
    attempt(check_family, family)
finish("check-plans")
