#!/usr/bin/env python3
"""Stored inputs of the fuzz targets template and plan: good files, and one file per reason to refuse one.

    python scripts/goldens/ir_corpus.py configs/arch tests/fuzz/corpus     (standard library only; writes the same bytes every time)
"""
import copy
import json
import pathlib
import sys

SMALL = {
    "slmc_arch": 1, "family": "small",
    "tensors": [{"as": "embed", "dims": "vocab, hidden"}, {"as": "block.{block}.attn.q", "dims": "kv q (two freq + pass), hidden"},
                {"as": "block.{block}.attn.k", "dims": "kv (two freq + pass), hidden"}],
    "hf": {"match": ["small"],
           "read": {"vocab": ".vocab_size", "hidden": ".hidden_size", "blocks": ".num_hidden_layers", "kv": ".num_attention_heads", "q": "1",
                    "head_dim": "hidden / kv", "freq": "head_dim / 2", "pass": "0", "vd": "head_dim", "ffn": ".intermediate_size", "pos": "0",
                    "context": "64", "norm": "'rms'", "norm_eps": ".eps | 1e-6", "activation": "'silu'", "gated": "true",
                    "parallel_residual": "false", "tied_head": "true", "attn_scale": "1 / sqrt(head_dim)", "window": "null",
                    "window_here": "block >= 1", "rope_theta": "10000", "rope_scaling": "null", "rope_original": "context"},
           "write": {"hidden_size": "hidden"}, "fresh": {"model_type": "'small'"},
           "laws": [{"axis": "hidden", "must": "hidden % heads == 0", "say": "a reason"}], "harmless": ["model_type"],
           "tensors": [{"name": "e", "is": "embed"},
                       {"name": "l.{block}.qk", "layout": "kv (attn.q:q (two freq + pass) + attn.k:(two freq + pass)), hidden"},
                       {"name": "rotary", "ignore": True}]}}


def changed(path, value):
    """SMALL with the value at a path replaced; a path is keys and indices."""
    result = copy.deepcopy(SMALL)
    at = result
    for key in path[:-1]:
        at = at[key]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return result


def layout(text):
    return changed(["hf", "tensors", 1, "layout"], text)


def read(name, text):
    return changed(["hf", "read", name], text)


TEMPLATES = {
    "good-small": SMALL,
    "version-2": changed(["slmc_arch"], 2), "no-family": changed(["family"], None), "unknown-key": changed(["forward"], "x"),
    "no-containers": {k: v for k, v in SMALL.items() if k != "hf"}, "tensor-twice": changed(["tensors", 1, "as"], "embed"),
    "unknown-axis": changed(["tensors", 0, "dims"], "vocab, hiden"), "three-dims": changed(["tensors", 0, "dims"], "vocab, hidden, two"),
    "layout-unknown-tensor": layout("attn.z:kv, hidden"), "layout-other-axes": layout("attn.q:kv vd, hidden"), "layout-open-group": layout("kv (two"),
    "layout-axis-twice": layout("attn.q:kv kv, hidden"), "layout-huge": layout("attn.q:999999 999999 999999 999999, hidden"),
    "layout-many-groups": layout(" ".join(["(two + freq)"] * 12) + ", hidden"), "layout-many-cells": layout("+".join(["attn.q:two"] * 90) + "," + "+".join(["hidden"] * 90)),
    "layout-deep": layout("(" * 40 + "two" + ")" * 40), "expr-open": read("q", "(1"), "expr-name": read("q", "undefined_name"),
    "expr-division": read("q", "1 / 0"), "expr-types": read("q", "'a' + 1"), "expr-root": read("q", "sqrt(0 - 4)"), "expr-function": read("q", "exp(1)"),
    "expr-deep": read("q", "-" * 200 + "1"), "expr-long": read("q", "1" + " + 1" * 900), "expr-too-long": read("q", "1" + " + 1" * 2000),
    "expr-list": read("q", "at(.hidden_size, 3)"), "size-negative": read("hidden", "0 - 8"), "size-fraction": read("ffn", "0.5"), "size-huge": read("vocab", "1e300"),
    "missing-read": changed(["hf", "read", "norm"], None), "law-axis": changed(["hf", "laws", 0, "axis"], "depth"), "match-empty": changed(["hf", "match"], []),
    "not-an-object": [], "not-json": None,
}

BASE = {"slmc_plan": 1, "base": {"shape": "s", "content": ""}}


def plan(**more):
    return {**BASE, **more}


PLANS = {
    "good-empty": plan(), "good-take": plan(take={"hidden": [7, 0, 0], "block": [1, 0], "block.1.ffn": [4, 2], "block.0.kv": [1], "block.0.kv.1.q": [1], "block.0.freq": [2]}),
    "good-remove": plan(take={"block.0.kv": [], "block.1.ffn": []}), "good-repeat": plan(take={"block": [0] * 20, "vocab": [6] * 30}),
    "good-set": plan(set={"head": {"copy": "embed"}}), "good-format": plan(format={"*": "F16", "*.ffn.*": "BF16"}), "good-config": plan(config={"context": 9, "window": None}),
    "good-why": plan(why={"scores": [0.5]}), "version-2": {**BASE, "slmc_plan": 2}, "no-base": {"slmc_plan": 1}, "unknown-key": plan(taken={}),
    "axis-unknown": plan(take={"block.0.fnn": [0]}), "axis-no-block": plan(take={"block.x.ffn": [0]}), "axis-group": plan(take={"block.0.kv.9.q": [0]}),
    "index-range": plan(take={"hidden": [8]}), "index-negative": plan(take={"hidden": [-1]}), "index-fraction": plan(take={"hidden": [0.5]}), "index-huge": plan(take={"hidden": [2 ** 63]}),
    "nothing-left": plan(take={"hidden": []}), "uneven-queries": plan(take={"block.0.kv.0.q": [0]}), "no-frequencies": plan(take={"block.0.freq": []}),
    "set-missing-file": plan(set={"head": {"file": "x.safetensors", "tensor": "a"}}), "set-outside": plan(set={"head": {"file": "../x", "tensor": "a"}}),
    "set-both": plan(set={"head": {"file": "x", "tensor": "a", "copy": "embed"}}), "set-unknown": plan(set={"haed": {"copy": "embed"}}),
    "set-rope": plan(set={"block.0.attn.rope": {"copy": "embed"}}), "copy-shape": plan(set={"norm": {"copy": "embed"}}), "copy-unknown": plan(set={"norm": {"copy": "emb"}}),
    "config-unknown": plan(config={"contxt": 3}), "config-family": plan(config={"family": "llama"}), "config-wrong": plan(config={"context": "long"}),
    "format-unknown": plan(format={"*": "q9_9"}), "format-quantized": plan(format={"*": "q4_0"}), "format-number": plan(format={"*": 4}),
    "many-blocks": plan(take={"block": [0] * 3000}), "repeated-blocks": plan(take={"block": [0] * 400}), "large-product": plan(take={"block.0.kv": [0] * 1500, "block.0.vd": [0] * 1500, "block.0.kv.0.q": [0] * 60}),
    "not-an-object": [], "not-json": None,
}


def write(folder, cases):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in cases.items():
        text = "{" if value is None else json.dumps(value)
        (folder / f"{name}.json").write_text(text)


if __name__ == "__main__":
    arch, corpus = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    write(corpus / "template", TEMPLATES)
    for file in sorted(arch.glob("*.json")):
        if file.name != "common.json":
            (corpus / "template" / f"real-{file.name}").write_text(file.read_text())
    write(corpus / "plan", PLANS)
