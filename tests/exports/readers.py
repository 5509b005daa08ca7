"""What the export checks share: running slmc, opening its outputs in their public readers, and the tally of checks."""
import contextlib
import io
import logging
import os
import pathlib
import re
import shutil
import subprocess
import sys
import traceback
import warnings

import numpy as np
import torch
from safetensors import safe_open
from transformers.utils import logging as hf_logging

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
WIKI = ROOT / "configs/data/wiki.test.txt"
MODEL = ROOT / "models/smollm2-135m-instruct.gguf"
BIN = ROOT / "build/release/bin"
OUT = ROOT / "build/exports/out"
rows = []
hf_logging.disable_progress_bar()


def check(name, ok, detail=""):
    rows.append((name, bool(ok)))
    print(f"{'ok    ' if ok else 'FAILED'}  {name}  {detail}", flush=True)


def attempt(part, *args):
    """A part that raises is a failed check; the next part still runs."""
    try:
        part(*args)
    except Exception:
        check(f"{part.__name__} {' '.join(map(str, args[:1]))} ran to its end", False, traceback.format_exc(limit=-3))


def finish(script):
    failed = [name for name, ok in rows if not ok]
    print(f"{script}: {len(rows) - len(failed)} passed, {len(failed)} failed")
    sys.exit(1 if failed else 0)


def slmc(*args):
    done = subprocess.run([str(BIN / "slmc"), *map(str, args)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"slmc {' '.join(map(str, args))}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def fresh(name):
    """A path under OUT with nothing there."""
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / name
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return path


def convert(model, name, kind=None):
    path = fresh(name)
    slmc("convert", model, "-o", path, *(["--type", kind] if kind else []))
    return path


def our_logits(model, window, windows=1, text=WIKI):
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


@contextlib.contextmanager
def listening(complaints):
    """Everything that a reader says while it loads: logs, warnings, lines on stderr other than progress bars."""
    heard, said = Heard(), io.StringIO()
    logger = hf_logging.get_logger("transformers")
    logger.addHandler(heard)
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stderr(said):
        warnings.simplefilter("always")
        yield
    logger.removeHandler(heard)
    complaints += heard.lines + [str(w.message) for w in caught if not issubclass(w.category, DeprecationWarning)]
    lines = said.getvalue().replace("\r", "\n").split("\n")
    complaints += [line for line in lines if line.strip() and not re.search(r"\d%\|.*\d/\d", line) and line not in complaints]
    complaints[:] = [line for line in complaints if not line.startswith("You passed `quantization_config`")]      # what we did on purpose


def load_transformers(folder, **how):
    """The model in fp32, and everything that the loader complained about."""
    from transformers import AutoModelForCausalLM

    complaints = []
    with listening(complaints):
        model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa",
                                                           output_loading_info=True, **how)
    complaints += [f"{k}: {v}" for k, v in info.items() if v]
    return model.eval(), complaints


def logits_of(model, ids):
    """[n, vocab] fp32 logits of one window of ids [n]."""
    with torch.no_grad():
        return model(torch.tensor(np.asarray(ids, dtype=np.int64)[None])).logits[0].float().numpy()


class LlamaCpp:
    """A GGUF file in llama.cpp, with an F32 cache and logits of every position."""

    def __init__(self, file, context):
        from llama_cpp import Llama

        self.model = Llama(str(file), n_ctx=context, n_batch=context, n_ubatch=context, logits_all=True, type_k=0, type_v=0,
                           n_threads=int(os.environ["OMP_NUM_THREADS"]), verbose=False)

    def logits(self, ids):
        self.model.reset()
        self.model.eval([int(i) for i in ids])
        return np.array(self.model.scores[: len(ids)], dtype=np.float32)

    def ids(self, text):
        return self.model.tokenize(text.encode(), add_bos=False, special=False)

    def greedy(self, ids, tokens):
        self.model.reset()
        self.model.eval(ids)
        out = []
        for _ in range(tokens):
            best = int(np.argmax(self.model.scores[self.model.n_tokens - 1]))
            if best == self.model.token_eos():
                break
            out.append(best)
            self.model.eval([best])
        return self.model.detokenize(out, prev_tokens=ids).decode("utf-8", "replace")


def log_softmax(z):
    z = z.astype(np.float64)
    z -= z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def kl(p_logits, q_logits):
    """Mean over positions of KL(p || q), nats."""
    p, q = log_softmax(p_logits), log_softmax(q_logits)
    return float((np.exp(p) * (p - q)).sum(-1).mean())


def check_transformers(name, folder, window=256, tolerance=2e-3, windows=1, **how):
    """Loads without a word, logits within the tolerance, the same arg-max wherever the two best are further apart than twice that."""
    ours, ids = our_logits(folder, window, windows)
    model, complaints = load_transformers(folder, **how)
    check(f"{name}: transformers loads, strict, no warnings", not complaints, "; ".join(complaints)[:300])
    compare_logits(name, ours, ids.reshape(windows, window), model, tolerance)
    return model


def compare_logits(name, ours, ids, model, tolerance):
    theirs = np.concatenate([logits_of(model, row) for row in ids])
    worst = float(np.abs(ours - theirs).max())
    check(f"{name}: logits equal transformers", worst <= tolerance, f"largest difference {worst:.2e} of {np.abs(theirs).max():.1f}")
    top = np.partition(theirs, -2, axis=-1)[:, -2:]
    clear = (top[:, 1] - top[:, 0]) > 2 * tolerance
    same = ours.argmax(-1) == theirs.argmax(-1)
    check(f"{name}: arg-max equal wherever it is clear", bool(same[clear].all()), f"{int(clear.sum())} clear of {len(same)}, {int(same.sum())} equal")


def check_gguf(name, file, kind=None):
    """Opened by the package gguf; with a kind, every matrix of the blocks has it and none of the tensors is damaged."""
    import gguf

    reader = gguf.GGUFReader(str(file))
    values = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}
    bad = [n for n, v in values.items() if not np.isfinite(v).all()]
    check(f"{name}: gguf opens, {len(reader.tensors)} tensors finite", not bad, ", ".join(bad[:3]))
    if kind:
        others = {t.tensor_type.name for t in reader.tensors if t.name.startswith("blk.") and len(t.shape) == 2} - {kind.upper()}
        check(f"{name}: the blocks' matrices are {kind}", not others, ", ".join(others))


def check_gguf_bytes(name, file, source, kind, tensors):
    """Bytes of the file equal what the package gguf makes of an F32 file's values, for the named tensors."""
    import gguf

    have = {t.name: t for t in gguf.GGUFReader(str(file)).tensors}
    want = {t.name: t for t in gguf.GGUFReader(str(source)).tensors}
    wrong, count = [], 0
    for n in tensors:
        if have[n].tensor_type.name != kind.upper():
            continue
        expected = gguf.quants.quantize(np.asarray(want[n].data, dtype=np.float32), have[n].tensor_type)
        count += 1
        if expected.tobytes() != have[n].data.tobytes():
            wrong.append(n)
    check(f"{name}: bytes equal gguf's quantizer", count and not wrong, f"{count} tensors" + (f", {', '.join(wrong[:3])} differ" if wrong else ""))


def check_llama_cpp(name, file, window, limit=None):
    """Without a limit: arg-max equal on all but two of 512 positions. With one: mean KL to our own dequantized logits at most that."""
    ours, ids = our_logits(file, window)
    theirs = LlamaCpp(file, window + 64).logits(ids)
    if limit is None:
        same = int((ours.argmax(-1) == theirs.argmax(-1)).sum())
        worst = float(np.abs(ours - theirs).max())
        check(f"{name}: llama.cpp arg-max equal", same >= window - window // 256, f"{same} of {window}, largest difference {worst:.1e}")
    else:
        value = kl(ours, theirs)
        check(f"{name}: mean KL of llama.cpp to our dequantized logits", value <= limit, f"{value:.2e}")
