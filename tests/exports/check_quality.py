#!/usr/bin/env python3
"""Our evaluation of the real model against transformers in fp32: logits, perplexity, multiple choice, minimal pairs.

usage: check_quality.py [windows] [ppl] [choices] [pairs]      all four when none is named; about 12 CPU-minutes
transformers reads the shipped GGUF with its own reader, `tokenizers` reads the text with the tokenizer.json that we export, and the scores
are computed here from the logits, so that nothing of ours but that file is on the other side.
"""
import json
import re
import sys

import numpy as np
import torch
from tokenizers import Tokenizer

from readers import MODEL, ROOT, WIKI, attempt, check, compare_logits, convert, finish, load_transformers, log_softmax, our_logits, slmc

CHOICES, PAIRS = ROOT / "configs/data/hellaswag.200.jsonl", ROOT / "configs/data/blimp.50.jsonl"
PPL = 29.5326       # of these 64 windows, by two independent evaluators over transformers 5.23 in fp32: pinned, lest both sides drift together


def ours(*args):
    return json.loads(slmc("eval", MODEL, *args, "--json"))["tasks"][0]


def check_windows(model, tokenizer):
    logits, ids = our_logits(MODEL, 512, 2)
    theirs = tokenizer.encode(WIKI.read_text(), add_special_tokens=False).ids
    check("ids of two windows equal tokenizers'", theirs[:1024] == ids.tolist())
    compare_logits("two windows of 512", logits, ids.reshape(2, 512), model, 2e-3)


def check_ppl(model, tokenizer):
    ids = torch.tensor(tokenizer.encode(WIKI.read_text(), add_special_tokens=False).ids[: 64 * 512]).view(64, 512)
    nll = []
    for window in ids:
        with torch.no_grad():
            z = model(window[None]).logits[0, :-1].double()
        nll.append(float((z.logsumexp(-1) - z.gather(1, window[1:, None])[:, 0]).mean()))
    theirs = float(np.exp(np.mean(nll)))
    mine = ours("--ppl", WIKI, "--window", 512, "--windows", 64)
    for what, value in (("transformers", theirs), ("the pinned value", PPL)):
        check(f"perplexity of 64 windows within 0.01 % of {what}", abs(mine["ppl"] / value - 1) <= 1e-4, f"{mine['ppl']:.6f}, {value:.6f}")
    worst = float(np.abs(np.array(nll) - mine["window_nll"]).max())
    check("mean log-likelihood of each window equal", worst <= 1e-4, f"largest difference {worst:.1e}")


def log_likelihoods(model, sequences, starts):
    """Sum of ln p(ids[start:]) of each sequence, one at a time: no padding that could matter."""
    sums = []
    for ids, start in zip(sequences, starts):
        with torch.no_grad():
            h = model.model(torch.tensor([ids])).last_hidden_state[0, start - 1 : -1]
            z = log_softmax(model.lm_head(h).numpy())
        sums.append(float(z[np.arange(len(ids) - start), ids[start:]].sum()))
    return np.array(sums)


def clean(text):
    """HellaSwag's text as lm-evaluation-harness scores it."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def check_choices(model, tokenizer):
    def encode(text):
        return tokenizer.encode(text, add_special_tokens=False).ids

    sequences, starts, characters = [], [], []
    for item in map(json.loads, CHOICES.read_text().splitlines()):
        query = clean(item["query"])
        for choice in map(clean, item["choices"]):
            sequences.append(encode(f"{query} {choice}"))
            starts.append(len(encode(query)))
            characters.append(len(choice))
    sums = log_likelihoods(model, sequences, starts).reshape(-1, 4)
    mine = ours("--choices", CHOICES)
    for what, scores in (("picks", sums), ("picks_norm", sums / np.array(characters).reshape(-1, 4))):
        same = int((scores.argmax(1) == mine[what]).sum())
        check(f"multiple choice, {what}: equal per item", same >= len(scores) - 1, f"{same} of {len(scores)}")


def check_pairs(model, tokenizer):
    pairs = [json.loads(line) for line in PAIRS.read_text().splitlines()]
    sequences = [tokenizer.encode(p[side], add_special_tokens=False).ids for p in pairs for side in ("sentence_good", "sentence_bad")]
    sums = log_likelihoods(model, sequences, [1] * len(sequences)).reshape(-1, 2)
    mine = ours("--pairs", PAIRS)
    same = int((np.where(sums[:, 0] > sums[:, 1], 0, 1) == mine["picks"]).sum())
    check("minimal pairs: equal per pair", same >= len(pairs) - 1, f"{same} of {len(pairs)}, {mine['acc']:.4f} right")


def main():
    check("the real model is there", MODEL.exists(), "" if MODEL.exists() else f"{MODEL} is missing: run scripts/setup")
    if MODEL.exists():
        model, _ = load_transformers(MODEL.parent, gguf_file=MODEL.name)
        tokenizer = Tokenizer.from_file(str(convert(MODEL, "quality-hf") / "tokenizer.json"))
        parts = {"windows": check_windows, "ppl": check_ppl, "choices": check_choices, "pairs": check_pairs}
        for name in sys.argv[1:] or parts:
            attempt(parts[name], model, tokenizer)
    finish("check-quality")


main()
