#!/usr/bin/env python3
"""Goldens for lib/io's GGUF: what the public `gguf` package makes of the same bytes.

    pip install gguf==0.19.0 safetensors==0.8.0 numpy     (any later versions that agree will do)
    python scripts/goldens/ggml.py tests/golden/ggml

blocks.safetensors   TYPE.blocks  random valid blocks of TYPE            TYPE.values  their values by gguf.quants.dequantize
                     input        floats, 32 to a row, awkward ones too  TYPE.encoded the input by gguf.quants.quantize
small.gguf           one file by gguf.GGUFWriter with every kind of metadata value and several tensor types
"""
import pathlib
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import quants
from safetensors.numpy import save_file

# Byte offsets of the f16 fields of a block: random bits there would often be infinite.
HALF_FIELDS = {
    T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q2_K: [80, 82], T.Q3_K: [108],
    T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208], T.IQ4_NL: [0], T.IQ4_XS: [0],
}
ENCODED = [T.Q8_0, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.BF16, T.F16]


def random_blocks(rng, kind):
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (1024 // elements, size), dtype=np.uint8)
    for at in HALF_FIELDS[kind]:
        halves = (rng.standard_normal(len(blocks)) * 0.1).astype(np.float16)
        halves[0] = 6e-8  # subnormal
        blocks[:, at:at + 2] = halves.view(np.uint8).reshape(-1, 2)
    return blocks


def awkward_floats(rng):
    """Rows of 32: ordinary, tiny, huge, constant, one-sided, halves that round either way."""
    rows = [rng.standard_normal(32) * scale for scale in (1, 0.02, 1e-3, 1e-7, 1e-12, 300, 1e4) for _ in range(4)]
    rows += [np.zeros(32), np.full(32, 0.25), np.full(32, -3.0), np.abs(rng.standard_normal(32)), -np.abs(rng.standard_normal(32))]
    rows += [np.arange(32) - 16.0, (np.arange(32) - 16) / 2, np.arange(32) * 1.0, np.linspace(-127, 127, 32), np.linspace(-127.5, 126.5, 32)]
    spike = np.zeros(32)
    spike[7], spike[20] = -1.0, 1.0  # two elements of the same largest magnitude
    rows += [spike, -spike, spike * 1e-30]
    rows += [rng.integers(-8, 8, 32) * 0.5 for _ in range(4)] + [rng.integers(-16, 16, 32) * 0.125 for _ in range(4)]
    rows += [rng.standard_normal(32) * rng.exponential(1.0, 32) ** 3 for _ in range(20)]
    return np.stack(rows).astype(np.float32)


def write_blocks(path):
    rng = np.random.default_rng(20261123)
    out = {}
    for kind in HALF_FIELDS:
        blocks = random_blocks(rng, kind)
        out[f"{kind.name.lower()}.blocks"] = blocks
        out[f"{kind.name.lower()}.values"] = quants.dequantize(blocks, kind).astype(np.float32)
    out["input"] = awkward_floats(rng)
    for kind in ENCODED:
        out[f"{kind.name.lower()}.encoded"] = np.ascontiguousarray(quants.quantize(out["input"], kind)).view(np.uint8)
    save_file(out, path)


def write_gguf(path):
    rng = np.random.default_rng(5)
    w = gguf.GGUFWriter(path, "llama")
    w.add_uint8("test.u8", 200)
    w.add_int8("test.i8", -100)
    w.add_uint16("test.u16", 60000)
    w.add_int16("test.i16", -30000)
    w.add_uint32("test.u32", 4000000000)
    w.add_int32("test.i32", -2000000000)
    w.add_uint64("test.u64", 2**64 - 1)
    w.add_int64("test.i64", -2**63)
    w.add_float32("test.f32", 0.1)
    w.add_float64("test.f64", 0.1)
    w.add_bool("test.yes", True)
    w.add_string("test.text", "gr\u00fc\u00df dich\n")
    w.add_array("test.words", ["a", "", "\u00e9t\u00e9"])
    w.add_array("test.numbers", [1, -2, 3])
    w.add_array("test.reals", [0.5, -1.25])
    w.add_array("test.flags", [True, False, True])
    values = rng.standard_normal((4, 64)).astype(np.float32)
    w.add_tensor("dense.f32", values[:3, :5].copy())
    w.add_tensor("dense.f16", values[:2, :7].astype(np.float16))
    w.add_tensor("cube", rng.standard_normal((2, 3, 4)).astype(np.float32))
    for kind in (T.BF16, T.Q8_0, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1):
        w.add_tensor(f"blocks.{kind.name.lower()}", quants.quantize(values, kind), raw_dtype=kind)
    w.add_tensor("blocks.q6_k", random_blocks(rng, T.Q6_K)[:2], raw_dtype=T.Q6_K)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    write_blocks(folder / "blocks.safetensors")
    write_gguf(folder / "small.gguf")
