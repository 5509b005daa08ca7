#!/usr/bin/env python3
"""Every output of slmc, opened by its public reader. One line per check; exit code 1 when one fails.

Named thresholds come from the acceptance rules: arg-max of an F32 GGUF equal on 510 of 512 positions, greedy texts equal, mean KL of quantized
GGUF files to our own dequantized logits at most 5e-3 (llama.cpp rounds activations), transformers logits within 2e-3 in fp32.
"""
import argparse
import contextlib
import ctypes
import io
import json
import logging
import os
import pathlib
import shutil
import subprocess
import sys
import warnings

import numpy as np
import torch
from safetensors import safe_open

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROMPTS = {
    "capital": "The capital of France is",
    "story": "Once upon a time, in a small village by the sea,",
    "code": "def fibonacci(n):\n    ",
    "list": "The three primary colours are red,",
    "science": "Water boils at a temperature of",
}
rows = []


def check(name, ok, detail=""):
    rows.append((name, bool(ok), detail))
    print(f"{'ok    ' if ok else 'FAILED'}  {name}  {detail}", flush=True)


def slmc(*args, expect=0):
    done = subprocess.run([str(options.slmc), *map(str, args)], capture_output=True, text=True)
    if done.returncode != expect:
        raise RuntimeError(f"slmc {' '.join(map(str, args))}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def fresh(name):
    path = options.out / name
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    return path


def our_logits(model, text, window, windows=1):
    """[windows * window, vocab] fp32 logits and ids of the first windows of a text."""
    file = fresh("logits.safetensors")
    slmc("eval", model, "--ppl", text, "--window", window, "--windows", windows, "--save-logits", file, "--json")
    with safe_open(str(file), "np") as f:
        return f.get_tensor("logits").reshape(windows * window, -1), f.get_tensor("ids").reshape(-1)


class Heard(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def load_transformers(folder):
    """The model, and everything the loader complained about."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as hf_logging

    heard = Heard()
    logger = hf_logging.get_logger("transformers")
    logger.addHandler(heard)
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("always")
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="sdpa", output_loading_info=True)
    logger.removeHandler(heard)
    complaints = heard.lines + [str(w.message) for w in caught if not issubclass(w.category, DeprecationWarning)]
    complaints += [f"{k}: {v}" for k, v in info.items() if v]
    return model.eval(), complaints


def check_transformers(name, folder, text, window=256, tolerance=2e-3):
    ours, ids = our_logits(folder, text, window)
    model, complaints = load_transformers(folder)
    check(f"{name}: transformers loads, strict, no warnings", not complaints, "; ".join(complaints)[:300])
    with torch.no_grad():
        theirs = model(torch.tensor(ids[None].astype(np.int64))).logits[0].float().numpy()
    worst = float(np.abs(ours - theirs).max())
    check(f"{name}: logits equal transformers", worst <= tolerance, f"max difference {worst:.2e}")
    top = np.sort(theirs, -1)
    clear = (top[:, -1] - top[:, -2]) > 2 * tolerance
    same = ours.argmax(-1) == theirs.argmax(-1)
    check(f"{name}: arg-max equal wherever it is clear", bool(same[clear].all()), f"{int(clear.sum())} clear positions")
    return model


def check_gguf_reader(name, file):
    import gguf

    reader = gguf.GGUFReader(str(file))
    bad = [t.name for t in reader.tensors if not np.isfinite(gguf.quants.dequantize(t.data, t.tensor_type)).all()]
    check(f"{name}: gguf opens, {len(reader.tensors)} tensors finite", not bad, ", ".join(bad[:3]))


class LlamaCpp:
    def __init__(self, file, context):
        from llama_cpp import Llama

        with open(os.devnull, "w") as sink, contextlib.redirect_stderr(sink):
            self.model = Llama(str(file), n_ctx=context, n_batch=context, n_ubatch=context, logits_all=True, type_k=0, type_v=0,
                               n_threads=int(os.environ["OMP_NUM_THREADS"]), verbose=False, use_mmap=True)

    def logits(self, ids):
        self.model.reset()
        self.model.eval([int(i) for i in ids])
        return np.array(self.model.scores[: len(ids)], dtype=np.float32)

    def greedy(self, prompt, tokens):
        ids = self.model.tokenize(prompt.encode(), add_bos=False, special=False)
        self.model.reset()
        self.model.eval(ids)
        out = []
        for _ in range(tokens):
            nxt = int(np.argmax(self.model.scores[self.model.n_tokens - 1]))
            out.append(nxt)
            self.model.eval([nxt])
        return self.model.detokenize(out, prev_tokens=ids).decode("utf-8", "replace")


def log_softmax(z):
    z = z.astype(np.float64)
    z -= z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def kl(p_logits, q_logits):
    p, q = log_softmax(p_logits), log_softmax(q_logits)
    return float((np.exp(p) * (p - q)).sum(-1).mean())


def check_llama_cpp(name, file, text, window, exact):
    ours, ids = our_logits(file, text, window)
    theirs = LlamaCpp(file, window + 64).logits(ids)
    if exact:
        same = int((ours.argmax(-1) == theirs.argmax(-1)).sum())
        check(f"{name}: llama.cpp arg-max equal", same >= window - 2, f"{same} of {window}")
    else:
        value = kl(ours, theirs)
        check(f"{name}: mean KL of llama.cpp to our dequantized logits", value <= 5e-3, f"{value:.2e}")


def check_greedy(folder, file, model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    llama = LlamaCpp(file, 256)
    for name, prompt in PROMPTS.items():
        ours = json.loads(slmc("generate", folder, "--prompt", prompt, "--tokens", 32, "--json"))["text"]
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=32, do_sample=False, eos_token_id=None, pad_token_id=0)
        theirs = tokenizer.decode(out[0, ids.shape[1]:], clean_up_tokenization_spaces=False)
        check(f"greedy '{name}': transformers says the same", ours == theirs, repr(ours) if ours == theirs else f"{ours!r} / {theirs!r}")
        there = llama.greedy(prompt, 32)
        check(f"greedy '{name}': llama.cpp says the same", ours == there, "" if ours == there else f"{ours!r} / {there!r}")


def check_real_model():
    text = ROOT / "configs/data/wiki.test.txt"
    folder, f32 = fresh("real-hf"), fresh("real-f32.gguf")
    slmc("convert", options.model, "-o", folder)
    model = check_transformers("HF folder", folder, text, 512)
    slmc("convert", folder, "-o", f32, "--type", "f32")
    check_gguf_reader("F32 GGUF", f32)
    check_llama_cpp("F32 GGUF", f32, text, 512, exact=True)
    check_greedy(folder, f32, model)
    del model
    for kind in ("q8_0", "q4_0"):
        file = fresh(f"real-{kind}.gguf")
        slmc("convert", folder, "-o", file, "--type", kind)
        check_gguf_reader(kind, file)
        check_llama_cpp(kind, file, text, 512, exact=False)
    pruned, dropped = fresh("real-pruned"), fresh("real-dropped")
    calib = ROOT / "configs/data/calib.jsonl"
    slmc("drop", folder, "-o", dropped, "--layers", 3, "--search", "block-influence", "--heal", "none", "--calib", calib, "--samples", 8, "--seq", 256)
    slmc("prune", dropped, "-o", pruned, "--ffn", 1280, "--kv", 2, "--criterion", "wanda", "--calib", calib, "--samples", 8, "--seq", 256)
    check_transformers("pruned and dropped HF folder", pruned, text, 256)
    small = fresh("real-pruned.gguf")
    slmc("convert", pruned, "-o", small, "--type", "f32")
    check_llama_cpp("pruned and dropped F32 GGUF", small, text, 256, exact=True)
    packed = fresh("real-packed")
    slmc("quantize", pruned, "-o", packed, "--method", "gptq", "--to", "packed", "--bits", 4, "--group", 64, "--calib", calib, "--samples", 8, "--seq", 256)
    check_transformers("compressed-tensors pack-quantized folder", packed, text, 256, 5e-3)
    native = fresh("real-gptq.gguf")
    slmc("quantize", pruned, "-o", native, "--method", "gptq", "--to", "gguf", "--type", "q4_0", "--calib", calib, "--samples", 8, "--seq", 256)
    check_gguf_reader("GPTQ q4_0 GGUF", native)
    check_llama_cpp("GPTQ q4_0 GGUF", native, text, 256, exact=False)


def check_tiny_families():
    """Each family from its tiny folder: HF -> GGUF -> HF, opened by transformers at both ends and by the gguf reader between."""
    for folder in sorted((ROOT / "tests/data/tiny").iterdir()):
        if not (folder / "config.json").exists():
            continue
        again = fresh(f"tiny-{folder.name}-hf")
        slmc("convert", folder, "-o", again)
        model, complaints = load_transformers(again)
        check(f"{folder.name}: transformers loads, strict, no warnings", not complaints, "; ".join(complaints)[:300])
        with safe_open(str(folder.parent / f"{folder.name}.golden.safetensors"), "np") as golden:
            names = [k for k in golden.keys() if k.startswith("ids")]
            for name in names:
                ids = torch.tensor(golden.get_tensor(name).astype(np.int64)).reshape(1, -1)
                with torch.no_grad():
                    theirs = model(ids).logits[0].double().numpy()
                worst = float(np.abs(theirs - golden.get_tensor(name.replace("ids", "logits")).reshape(theirs.shape)).max())
                check(f"{folder.name}: logits of the converted folder, {ids.shape[1]} tokens", worst <= 1e-3, f"max difference {worst:.1e}")


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--slmc", type=pathlib.Path, default=ROOT / "build/release/bin/slmc")
parser.add_argument("--model", type=pathlib.Path, default=ROOT / "models/smollm2-135m-instruct.gguf")
parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build/exports/out")
parser.add_argument("--only", choices=("real", "tiny"), help="one half of the checks")
options = parser.parse_args()
options.out.mkdir(parents=True, exist_ok=True)
if options.only != "real":
    check_tiny_families()
if options.only != "tiny":
    if options.model.exists():
        check_real_model()
    else:
        check("the real model is there", False, f"{options.model} is missing: run scripts/setup")
failed = [r for r in rows if not r[1]]
print(f"check-exports: {len(rows) - len(failed)} passed, {len(failed)} failed")
sys.exit(1 if failed else 0)
