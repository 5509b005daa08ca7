#!/usr/bin/env python3
"""Every kind of output of slmc, opened by its public reader. One line per check; exit status 1 when one fails.

usage: check_exports.py [small] [real]      both halves when none is named; scripts/check-exports sets up what it needs
Thresholds are those of the acceptance rules: transformers' logits within 2e-3 in fp32; arg-max of an F32 GGUF in llama.cpp (F32 cache) equal
on 510 of 512 positions; greedy texts equal; Q8_0 and Q4_0 files in llama.cpp within a mean KL of 5e-3 of our own dequantized logits, since
llama.cpp rounds activations to eight bits and we do not.
"""
import contextlib
import io
import itertools
import json
import shutil
import subprocess
import sys

import numpy as np
import torch
from safetensors import safe_open
from tokenizers import Tokenizer

from families import FAMILIES, HF_ONLY, random_family
from readers import (BIN, MODEL, ROOT, WIKI, LlamaCpp, attempt, check, check_gguf, check_gguf_bytes, check_llama_cpp, check_transformers, convert,
                     finish, fresh, listening, load_transformers, logits_of, our_logits, slmc)

PROMPTS = {
    "capital": "The capital of France is",
    "story": "Once upon a time, in a small village by the sea,",
    "code": "def fibonacci(n):\n    ",
    "list": "The three primary colours are red,",
    "science": "Water boils at a temperature of",
}
BLOCK_TYPES = ("q8_0", "q4_0", "q4_1", "q5_0", "q5_1")
CALIB = ("--calib", ROOT / "configs/data/calib.jsonl", "--samples", 8, "--seq", 256)
HEADS_FILL_HIDDEN = ("qwen2", "phi3")     # llama.cpp takes their head width from hidden / heads, so that a GGUF can't hold fewer groups


# ---- small models ----------------------------------------------------------------------------------------------------------------

def check_family(name):
    """A family with a vocabulary: transformers' folder -> ours -> GGUF -> ours, with transformers and llama.cpp at each step."""
    text = WIKI.read_text()[:20000].lstrip()          # some vocabularies put no blank before a text that has one; GGUF has no word for that
    made = random_family(name)
    check_transformers(f"{name}: converted folder", convert(made, f"{name}-hf"), 128)
    if name in HF_ONLY:
        refused = subprocess.run([BIN / "slmc", "convert", made, "-o", fresh(f"{name}.gguf")], capture_output=True, text=True)
        check(f"{name}: GGUF: refused with its reason", refused.returncode == 2 and f"the family '{name}' has no GGUF form" in refused.stderr)
    else:
        check_both_ways(name, made, text)
    check_cut(name, made)
    check_vocabulary(name, made, text)
    if name != "gpt2":                                # stores its matrices transposed: refused with that reason
        packed = fresh(f"{name}-packed")
        slmc("quantize", made, "-o", packed, "--to", "packed", "--method", "rtn", "--group", 32)
        check_transformers(f"{name}: packed", packed, 128)


def check_both_ways(name, made, text):
    file = convert(made, f"{name}.gguf", "f32")
    check_gguf(f"{name}: F32 GGUF", file)
    check_llama_cpp(f"{name}: F32 GGUF", file, 128)
    back = convert(file, f"{name}-back")
    check_transformers(f"{name}: folder from the GGUF", back, 128)
    expected, again = (Tokenizer.from_file(str(f / "tokenizer.json")).encode(text, add_special_tokens=False).ids for f in (made, back))
    check(f"{name}: tokenizer.json from the GGUF gives the same ids", again == expected, f"{len(expected)} ids")
    check(f"{name}: llama.cpp reads the text as the same ids", LlamaCpp(file, 256).ids(text) == expected, f"{len(expected)} ids")


def check_cut(name, made):
    """The same after a block, feed-forward channels and, where the family's folder can say so, half of the key/value groups are gone."""
    groups = json.loads((made / "config.json").read_text()).get("num_key_value_heads", 1)
    narrow, cut = fresh(f"{name}-narrow"), fresh(f"{name}-cut")
    slmc("prune", made, "-o", narrow, "--ffn", 64, *(("--kv", groups // 2) if groups > 1 else ()), "--criterion", "magnitude", "--refit", "none")
    slmc("drop", narrow, "-o", cut, "--list", 1, "--heal", "none", *CALIB)
    check_transformers(f"{name}: cut", cut, 128)
    if name in HF_ONLY:
        return
    if name in HEADS_FILL_HIDDEN:
        refused = subprocess.run([BIN / "slmc", "convert", cut, "-o", fresh(f"{name}-cut.gguf")], capture_output=True, text=True)
        check(f"{name}: cut, GGUF: refused with its reason", refused.returncode == 2 and "no key for the head width" in refused.stderr)
        return
    check_llama_cpp(f"{name}: cut, F32 GGUF", convert(cut, f"{name}-cut.gguf", "f32"), 128)


def check_vocabulary(name, made, text):
    """Half of the vocabulary and some of the width in one plan: the same ids in tokenizers, llama.cpp and here, and the text back."""
    size = json.loads((made / "config.json").read_text())["vocab_size"]
    cut = fresh(f"{name}-vocab")
    slmc("prune", made, "-o", cut, "--vocab", size // 128 * 64, "--ffn", 64, "--criterion", "magnitude", "--refit", "none", *CALIB)
    check_transformers(f"{name}: cut vocabulary", cut, 128)
    whole, left = (Tokenizer.from_file(str(f / "tokenizer.json")) for f in (made, cut))
    ids = left.encode(text, add_special_tokens=False).ids
    origin = json.loads((cut / "origin.json").read_text())["axes"]["vocab"]
    spelled = [whole.id_to_token(i) for i in origin]
    check(f"{name}: cut vocabulary: every id is the token that its row was", [left.id_to_token(i) for i in range(len(origin))] == spelled, f"{len(origin)} rows")
    expected = whole.decode(whole.encode(text, add_special_tokens=False).ids, skip_special_tokens=False)
    check(f"{name}: cut vocabulary: tokenizers gives the text back", left.decode(ids, skip_special_tokens=False) == expected, f"{len(ids)} ids")
    _, ours = our_logits(cut, 256, 16)
    theirs = left.encode(WIKI.read_text(), add_special_tokens=False).ids[: len(ours)]
    check(f"{name}: cut vocabulary: our ids equal those of tokenizers", ours.tolist() == theirs, f"{len(theirs)} ids")
    if name in HF_ONLY:
        return
    file = convert(cut, f"{name}-vocab.gguf", "f32")
    check_llama_cpp(f"{name}: cut vocabulary, F32 GGUF", file, 128)
    check(f"{name}: cut vocabulary: llama.cpp reads the text as the same ids", LlamaCpp(file, 256).ids(text) == ids, f"{len(ids)} ids")


def check_apart(name, made):
    """Blocks of different feed-forward width and number of groups, one without attention: GGUF, in llama.cpp as deci; no folder."""
    plan, file = fresh(f"{name}-apart.json"), fresh(f"{name}-apart.gguf")
    sizes = json.loads((made / "config.json").read_text())
    take = {"block.0.ffn": list(range(0, sizes["intermediate_size"], 2)), "block.2.ffn": list(range(64)), "block.1.kv": []}
    if sizes["num_key_value_heads"] > 1:
        take["block.2.kv"] = [1]
    plan.write_text(json.dumps({"slmc_plan": 1, "base": {"shape": "", "content": ""}, "take": take}))
    slmc("edit", made, "--plan", plan, "-o", file, "--type", "f32")
    check_gguf(f"{name}: blocks that differ, F32 GGUF", file)
    check_llama_cpp(f"{name}: blocks that differ, F32 GGUF", file, 128)
    refused = subprocess.run([BIN / "slmc", "convert", file, "-o", fresh(f"{name}-apart")], capture_output=True, text=True)
    check(f"{name}: blocks that differ, folder: refused with its reason", refused.returncode == 2 and "block.1.kv: every block" in refused.stderr and "nearest that is possible is" in refused.stderr, refused.stderr.splitlines()[0] if refused.stderr else "")


def check_goldens():
    """The checkpoints of tests/data/tiny, converted, against the fp64 logits that are stored beside them."""
    for folder in sorted(p for p in (ROOT / "tests/data/tiny").iterdir() if (p / "config.json").exists()):
        model, complaints = load_transformers(convert(folder, f"tiny-{folder.name}"))
        check(f"tiny {folder.name}: transformers loads, strict, no warnings", not complaints, "; ".join(complaints)[:300])
        worst = 0.0
        with safe_open(f"{folder}.golden.safetensors", "np") as golden:
            lengths = [k.split(".")[1] for k in golden.keys() if k.startswith("ids.")]
            for n in lengths:
                for ids, logits in zip(golden.get_tensor(f"ids.{n}"), golden.get_tensor(f"logits.{n}")):
                    worst = max(worst, float(np.abs(logits_of(model, ids) - logits).max()))
        check(f"tiny {folder.name}: logits equal the stored ones", worst <= 1e-3, f"{len(lengths)} lengths, largest difference {worst:.1e}")


def check_types(name, model, window, tensors):
    """Every type of both containers, of one model."""
    for kind in ("f32", "bf16", "f16"):
        folder = convert(model, f"{name}-{kind}", kind)
        stored = json.loads((folder / "config.json").read_text())
        check(f"{name} {kind} folder: dtype in config.json", stored.get("dtype", stored.get("torch_dtype")) in ("float32", "bfloat16", "float16"))
        check_transformers(f"{name} {kind} folder", folder, window)
    f32 = convert(model, f"{name}-f32.gguf", "f32")
    check_gguf(f"{name} f32 GGUF", f32)
    for kind in ("f16", "bf16", *BLOCK_TYPES):
        file = convert(f32, f"{name}-{kind}.gguf", kind)
        check_gguf(f"{name} {kind} GGUF", file, kind)
        check_gguf_bytes(f"{name} {kind} GGUF", file, f32, kind, tensors)
        check_llama_cpp(f"{name} {kind} GGUF", file, window, 5e-3)


def check_shards(folder):
    """Shards and their index, written by our writer at a small limit and by transformers, read by the other."""
    ours = fresh("shards-ours")
    shutil.copytree(folder, ours, ignore=shutil.ignore_patterns("*.safetensors"))
    subprocess.run([BIN / "write_shards", folder, ours, "300000"], check=True)
    count = len(list(ours.glob("model-*-of-*.safetensors")))
    model = check_transformers(f"our {count} shards", ours, 128)
    theirs = fresh("shards-theirs")
    model.save_pretrained(theirs, max_shard_size="300KB")
    shutil.copy(folder / "tokenizer.json", theirs / "tokenizer.json")
    count = len(list(theirs.glob("model-*-of-*.safetensors")))
    check_transformers(f"transformers' {count} shards, converted", convert(theirs, "shards-converted"), 128)


def decompressing(zero):
    """How transformers is asked to load. transformers 5.23 with compressed-tensors 0.20 opens no packed folder with zero points, its own neither,
    unless told to dequantize while loading (the placeholders of its other way have unpacked zero points; llm-compressor issue 1618)."""
    from transformers import CompressedTensorsConfig

    return {"quantization_config": CompressedTensorsConfig(dequantize=True)} if zero else {}


def check_packed(name, model, window, tolerance, methods=("rtn",), group=32, plain=True):
    """compressed-tensors: every scheme that we write. transformers decompresses with that package's own code. plain: also unpacked by us."""
    for bits, zero, method in itertools.product((4, 8), (False, True), methods):
        what = f"{name} packed {method} {bits} bits {'with zero points' if zero else 'symmetric'}"
        folder = fresh(f"{name}-packed")
        # Loading so, transformers rounds each weight to the type of the scales; in fp32 there is nothing to round.
        more = ("--no-symmetric", "--embedding", "f32") if zero else ()
        slmc("quantize", model, "-o", folder, "--method", method, "--to", "packed", "--bits", bits, "--group", group, *more, *CALIB)
        check_transformers(what, folder, window, tolerance, **decompressing(zero))
        if plain:
            check_transformers(f"{what}, as a plain folder", convert(folder, "unpacked", "f32"), window, tolerance)


def compress_there(folder, bits, zero, group=32):
    """A packed folder by compressed-tensors itself, rounded to nearest."""
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config

    weights = {"num_bits": bits, "type": "int", "symmetric": not zero, "strategy": "group", "group_size": group}
    model, _ = load_transformers(folder)
    apply_quantization_config(model, QuantizationConfig(config_groups={"group_0": {"targets": ["Linear"], "weights": weights}}, ignore=["lm_head"]))
    half = 2 ** (bits - 1)
    for module in (m for m in model.modules() if hasattr(m, "weight_scale")):
        groups = module.weight.data.view(module.weight.shape[0], -1, group)
        low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
        scale = (high - low) / (2 * half - 1) if zero else torch.maximum(-low, high) / (half - 0.5)
        module.weight_scale.data = scale
        if zero:
            module.weight_zero_point.data = torch.round(-half - low / scale).clamp(-half, half - 1).to(torch.int8)
    compressor = ModelCompressor.from_pretrained_model(model)
    out = fresh("packed-theirs")
    with contextlib.redirect_stderr(io.StringIO()):
        compressor.compress_model(model)
    model.save_pretrained(out)
    compressor.update_config(out)
    shutil.copy(folder / "tokenizer.json", out / "tokenizer.json")
    return out


def check_their_packed(folder):
    for bits, zero in itertools.product((4, 8), (False, True)):
        made = compress_there(folder, bits, zero)
        check_transformers(f"compressed-tensors' own {bits} bits {'with zero points' if zero else 'symmetric'}", made, 256, **decompressing(zero))


def tensor_names(model, every):
    """Names, in a GGUF, of the embedding and of every so many of the blocks' matrices."""
    import gguf

    names = [t.name for t in gguf.GGUFReader(str(convert(model, "names.gguf", "f32"))).tensors if len(t.shape) == 2]
    blocks = [n for n in names if n.startswith("blk.")]
    return [n for n in names if n not in blocks] + blocks[::every]


def check_adapter(folder, name, *settings):
    """A low-rank adapter, trained a little: PEFT puts it on the model that it was trained on, and gives the logits of our merged result."""
    from peft import PeftModel

    merged = fresh(f"adapter-{name}")
    slmc("train", folder, "-o", merged, "--lora", 4, "--lr", 1e-2, "--tokens", 8192, "--seq", 128, "--train", ROOT / "configs/data/train/wiki.jsonl", *settings)
    base, complaints = load_transformers(folder)
    window, ours = our_logits(merged, 128)[::-1]
    before = logits_of(base, window)
    with listening(complaints):
        adapted = PeftModel.from_pretrained(base, merged / "adapter").eval()
    complaints = [line for line in complaints if "is deprecated" not in line]        # of transformers by PEFT
    check(f"adapter {name}: PEFT opens it without a word", not complaints, "; ".join(complaints)[:200])
    moved, off = (float(np.abs(z - ours).max()) for z in (before, logits_of(adapted, window)))
    check(f"adapter {name}: logits of base and adapter in PEFT equal our merged model's", moved > 0.1 and off <= 2e-3, f"{off:.1e}; without it {moved:.1e}")


def check_small():
    attempt(check_goldens)
    for name in FAMILIES:
        attempt(check_family, name)
    trained = ROOT / "tests/data/tiny-trained"
    for name in ("llama", "llama-bpe", "llama-spm", "mistral"):
        attempt(check_apart, name, random_family(name, 3))
    attempt(check_types, "tiny-trained", trained, 256, tensor_names(trained, 1))
    attempt(check_shards, trained)
    attempt(check_packed, "tiny-trained", trained, 256, 2e-3, ("rtn", "gptq"))
    attempt(check_their_packed, trained)
    attempt(check_adapter, trained, "all")
    attempt(check_adapter, trained, "some", "--lora-targets", "block.*.attn.q,block.1.ffn.down")


# ---- the real model --------------------------------------------------------------------------------------------------------------

def check_greedy(folder, file, model):
    """Five prompts, 32 greedy tokens or up to the end of text: ours, transformers' and llama.cpp's."""
    from transformers import AutoTokenizer

    tokenizer, llama = AutoTokenizer.from_pretrained(folder), LlamaCpp(file, 256)
    for name, prompt in PROMPTS.items():
        ours = json.loads(slmc("generate", folder, "--prompt", prompt, "--tokens", 32, "--temperature", 0, "--json"))["text"]
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=32, do_sample=False, pad_token_id=0)
        theirs = tokenizer.decode([i for i in out[0, ids.shape[1]:].tolist() if i != tokenizer.eos_token_id], clean_up_tokenization_spaces=False)
        check(f"greedy '{name}': transformers says the same", ours == theirs, repr(ours) if ours == theirs else f"{ours!r} / {theirs!r}")
        there = llama.greedy(llama.ids(prompt), 32)
        check(f"greedy '{name}': llama.cpp says the same", ours == there, "" if ours == there else f"{ours!r} / {there!r}")


def check_original(folder):
    """Our reading of the shipped GGUF against transformers' own reading of it: every value."""
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(MODEL.parent, gguf_file=MODEL.name, dtype=torch.float32).state_dict()
    with safe_open(str(folder / "model.safetensors"), "pt") as ours:
        bad = [k for k in ours.keys() if not torch.equal(ours.get_tensor(k), theirs[k])]
        check("HF folder: every value equals transformers' reading of the GGUF", not bad, f"{len(ours.keys())} tensors" + ", ".join(bad[:3]))


def check_real():
    folder = convert(MODEL, "real-hf")
    model = check_transformers("HF folder", folder, 512, windows=2)
    f32 = convert(folder, "real-f32.gguf", "f32")
    check_original(folder)
    check_llama_cpp("F32 GGUF", f32, 512)
    expected = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(WIKI.read_text(), add_special_tokens=False).ids
    check("F32 GGUF: llama.cpp reads the text as tokenizers reads it with our tokenizer.json", LlamaCpp(f32, 64).ids(WIKI.read_text()) == expected,
          f"{len(expected)} ids")
    check_greedy(folder, f32, model)
    del model
    for kind in BLOCK_TYPES:
        file = convert(folder, f"real-{kind}.gguf", kind)
        check_gguf(f"real {kind} GGUF", file, kind)
        check_gguf_bytes(f"real {kind} GGUF", file, f32, kind, tensor_names(MODEL, 7))
        check_llama_cpp(f"real {kind} GGUF", file, 512, 5e-3)
        file.unlink()
    dropped, pruned = fresh("real-dropped"), fresh("real-pruned")
    slmc("drop", folder, "-o", dropped, "--layers", 3, "--search", "block-influence", *CALIB)
    slmc("prune", dropped, "-o", pruned, "--ffn", 1280, "--kv", 2, *CALIB)
    check_transformers("dropped and pruned folder", pruned, 256)
    check_llama_cpp("dropped and pruned F32 GGUF", convert(pruned, "real-pruned.gguf", "f32"), 256)
    check_packed("dropped and pruned", pruned, 256, 5e-3, group=64, plain=False)
    packed, native = fresh("real-gptq-packed"), fresh("real-gptq.gguf")
    slmc("quantize", pruned, "-o", packed, "--to", "packed", "--group", 64, *CALIB)
    check_transformers("GPTQ packed folder", packed, 256, 5e-3)
    slmc("quantize", pruned, "-o", native, "--type", "q4_0", *CALIB)
    check_gguf("GPTQ q4_0 GGUF", native, "q4_0")
    check_llama_cpp("GPTQ q4_0 GGUF", native, 256, 5e-3)


halves = sys.argv[1:] or ["small", "real"]
if "small" in halves:
    attempt(check_small)
if "real" in halves:
    check("the real model is there", MODEL.exists(), "" if MODEL.exists() else f"{MODEL} is missing: run scripts/setup")
    if MODEL.exists():
        attempt(check_real)
finish("check-exports")
