#!/usr/bin/env python3
"""Makes tests/golden/criteria/criteria.json: tiny layers, what flowed through them, and the scores that public programs give.

    python scripts/goldens/criteria.py tests/golden/criteria/criteria.json        needs numpy

The formulas are written down anew from the programs named at each; all arithmetic is fp64 on values that fp32 holds exactly.
Layers: hidden 5, ffn 7; attention of 3 heads of width 2 without shared groups, as those programs know it.
"""
import json
import pathlib
import sys

import numpy as np

HIDDEN, FFN, HEADS, WIDTH, WINDOWS, TOKENS = 5, 7, 3, 2, 4, 6
rng = np.random.default_rng(17)
draw = lambda *shape: rng.standard_normal(shape).astype(np.float32).astype(np.float64)

weights = {"gate": draw(FFN, HIDDEN), "up": draw(FFN, HIDDEN), "down": draw(HIDDEN, FFN),
           **{name: draw(HEADS * WIDTH, HIDDEN) for name in "qkv"}, "o": draw(HIDDEN, HEADS * WIDTH)}
inputs = {"down": draw(WINDOWS, TOKENS, FFN) * np.linspace(0.2, 3, FFN) + 0.5, "o": draw(WINDOWS, TOKENS, HEADS * WIDTH)}
inputs = {name: x.astype(np.float32).astype(np.float64) for name, x in inputs.items()}
gradients = {name: draw(WINDOWS, *w.shape) for name, w in weights.items()}      # one per sample
CUT = {"gate": 0, "up": 0, "down": 1, "q": 0, "k": 0, "v": 0, "o": 1}            # the side of a tensor that is cut

REDUCE = {"sum": lambda x: x.sum(0), "prod": lambda x: x.prod(0), "max": lambda x: x.max(0), "mean": lambda x: x.mean(0),
          "first": lambda x: x[0], "last": lambda x: x[-1]}


def structures(scores, reduction):
    """LLM-Pruner, Importance._reduce over the tensors of a group; heads are sums over their rows (MetaPruner, consecutive_groups)."""
    ffn = REDUCE[reduction](np.stack([scores[n] for n in ("gate", "up", "down")]))
    heads = REDUCE[reduction](np.stack([scores[n] for n in "qkvo"])).reshape(HEADS, WIDTH).sum(1)
    return {"ffn": ffn, "heads": heads}


def rows(name, x):
    return x.sum(1 - CUT[name])


def taylor(kind, name):
    """LLM-Pruner, TaylorImportance: gradients of the mean loss over samples, acc the mean of their squares."""
    w, g, acc = weights[name], gradients[name].mean(0), (gradients[name] ** 2).mean(0)
    if kind == "vectorize":
        return np.abs(rows(name, w * g))
    salience = {"param_first": w * g, "param_second": w * acc * w, "param_mix": w * g - 0.5 * w * acc * w}[kind]
    return rows(name, np.abs(salience))


def magnitude(p, name):
    """LLM-Pruner and Torch-Pruning 1.3, MagnitudeImportance."""
    return rows(name, np.abs(weights[name]) ** p)


def maw():
    """OptiPFair, compute_neuron_pair_importance_maw."""
    return sum(weights[n].max(1) + np.abs(weights[n].min(1)) for n in ("gate", "up"))


def minitron(x):
    """ModelOpt, mcore_minitron: mean of |x| over the sequence, sum of squares over the batch, root."""
    return np.sqrt((np.abs(x).mean(1) ** 2).sum(0))


def flap(name):
    """FLAP, prune_flap with WIFV: variance of the input times the squared norm of the column; attention squared; standardised."""
    x, w = inputs[name].reshape(-1, inputs[name].shape[2]), weights[name]
    score = x.var(0) * (w ** 2).sum(0)
    if name == "o":
        score = score ** 2
    score = (score - score.mean()) / score.std(ddof=1)
    return score.reshape(HEADS, WIDTH).mean(1) if name == "o" else score


scores = {"maw": {"ffn": maw()},
          "minitron": {"ffn": minitron(inputs["down"]), "heads": np.sqrt((minitron(inputs["o"]) ** 2).reshape(HEADS, WIDTH).sum(1))},
          "flap": {"ffn": flap("down"), "heads": flap("o")}}
for reduction in REDUCE:
    for p in (1, 2):
        scores[f"l{p} {reduction}"] = structures({n: magnitude(p, n) for n in weights}, reduction)
    for ours, kind in (("vector", "vectorize"), ("element1", "param_first"), ("element2", "param_second"), ("mixed", "param_mix")):
        scores[f"{ours} {reduction}"] = structures({n: taylor(kind, n) for n in weights}, reduction)

plain = lambda tree: {k: plain(v) for k, v in tree.items()} if isinstance(tree, dict) else tree.tolist()
out = {"made_by": "scripts/goldens/criteria.py", "weights": weights, "inputs": inputs, "gradients": gradients, "scores": scores}
path = pathlib.Path(sys.argv[1])
path.write_text(json.dumps({k: v if isinstance(v, str) else plain(v) for k, v in out.items()}) + "\n")
