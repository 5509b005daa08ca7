#!/usr/bin/env python3
"""A model of 7B shape (a sparse file of 13.5 GB) is cut by a plan to half its feed-forward width within 1 GB of anonymous memory.

usage: large_edit.py SLMC [--blocks N] [--folder DIR]      32 blocks need 10 GB of disk for the result, which is removed again. The file's
holes read as zeros; one block holds numbers, and the result is compared with what they must become. Prints CPU seconds and peak memory.
"""
import argparse
import json
import os
import pathlib
import resource
import struct
import subprocess
import sys
import tempfile
import time

HIDDEN, FFN, HEADS, VOCAB = 4096, 11008, 32, 32000
MARKED = 0                                       # the block that holds numbers


def tensors(blocks):
    yield "model.embed_tokens.weight", [VOCAB, HIDDEN]
    for i in range(blocks):
        p = f"model.layers.{i}."
        yield p + "input_layernorm.weight", [HIDDEN]
        for part in "qkvo":
            yield p + f"self_attn.{part}_proj.weight", [HIDDEN, HIDDEN]
        yield p + "post_attention_layernorm.weight", [HIDDEN]
        yield p + "mlp.gate_proj.weight", [FFN, HIDDEN]
        yield p + "mlp.up_proj.weight", [FFN, HIDDEN]
        yield p + "mlp.down_proj.weight", [HIDDEN, FFN]
    yield "model.norm.weight", [HIDDEN]
    yield "lm_head.weight", [VOCAB, HIDDEN]


def number(row):
    """Row or column `row` of the marked block: a half-precision number of its own."""
    return struct.pack("<e", (row % 2000) + 1)


def write_sparse(folder, blocks):
    header, at = {}, 0
    for name, shape in tensors(blocks):
        size = 2
        for n in shape:
            size *= n
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        start = f.tell()
        f.truncate(start + at)
        up = header[f"model.layers.{MARKED}.mlp.up_proj.weight"]["data_offsets"][0]
        down = header[f"model.layers.{MARKED}.mlp.down_proj.weight"]["data_offsets"][0]
        for row in range(FFN):                   # the first entry of each row of up, and the first row of down
            f.seek(start + up + row * HIDDEN * 2)
            f.write(number(row))
        f.seek(start + down)
        f.write(b"".join(number(row) for row in range(FFN)))
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": HIDDEN, "intermediate_size": FFN,
        "num_hidden_layers": blocks, "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "vocab_size": VOCAB,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
        "torch_dtype": "float16", "attention_bias": False, "mlp_bias": False}))
    return start + at


def anonymous(pid):
    try:
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def watched(command):
    peak, before = 0, resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while process.poll() is None:
        peak = max(peak, anonymous(process.pid))
        time.sleep(0.02)
    if process.returncode != 0:
        sys.exit(f"{command} failed: {process.stderr.read().decode()[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return peak, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def check(folder, kept):
    """The marked block of the result, wherever its shard is; both maps must be there."""
    found = set()
    for file in sorted(folder.glob("*.safetensors")):
        with open(file, "rb") as f:
            length = struct.unpack("<Q", f.read(8))[0]
            header = json.loads(f.read(length))
            for part, shape in (("up", [len(kept), HIDDEN]), ("down", [HIDDEN, len(kept)])):
                entry = header.get(f"model.layers.{MARKED}.mlp.{part}_proj.weight")
                if entry is None:
                    continue
                assert entry["shape"] == shape, entry
                start = 8 + length + entry["data_offsets"][0]
                for i in range(0, len(kept), 1 if part == "down" else 97):
                    f.seek(start + (i * HIDDEN if part == "up" else i) * 2)
                    assert f.read(2) == number(kept[i]), (part, i)
                found.add(part)
    assert found == {"up", "down"}, found


def main():
    options = argparse.ArgumentParser()
    options.add_argument("slmc")
    options.add_argument("--blocks", type=int, default=32)
    options.add_argument("--folder")
    args = options.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        base = pathlib.Path(scratch) / "base"
        base.mkdir()
        size = write_sparse(base, args.blocks)
        shape = json.loads(subprocess.run([args.slmc, "inspect", base, "--json"], check=True, capture_output=True).stdout)["shape_hash"]
        kept = list(range(0, FFN, 2))
        plan = {"slmc_plan": 1, "base": {"shape": shape, "content": ""}, "take": {f"block.{i}.ffn": kept for i in range(args.blocks)}}
        (base / "plan.json").write_text(json.dumps(plan))
        out = pathlib.Path(scratch) / "out"
        peak, seconds = watched([args.slmc, "edit", str(base), "--plan", str(base / "plan.json"), "-o", str(out)])
        check(out, kept)
        written = sum(p.stat().st_size for p in out.glob("*.safetensors"))
        print(f"{size / 1e9:.2f} GB to {written / 1e9:.2f} GB: {seconds:.1f} CPU-seconds, anonymous memory at most {peak / 1e6:.0f} MB")
        if peak > 1e9:
            sys.exit("anonymous memory must stay within 1 GB")


main()
