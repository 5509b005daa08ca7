#!/usr/bin/env python3
"""Stored inputs of the safetensors and GGUF fuzz targets: good files, and one file per reason to refuse one.

    python scripts/goldens/io_corpus.py tests/fuzz/corpus       (standard library only; writes the same bytes every time)
"""
import json
import pathlib
import struct
import sys


# ---- safetensors ----

def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def one(dtype="F32", shape=(1,), offsets=(0, 4), **more):
    return {"a": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}}


DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4,
          "U16": 2, "U8": 1, "BOOL": 1}


def every_dtype():
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, size in DTYPES.items():
        header[f"t.{name}"] = {"dtype": name, "shape": [2, 3], "data_offsets": [at, at + 6 * size]}
        at += 6 * size
    return safetensors(header, bytes(i * 37 % 256 for i in range(at)))


SAFETENSORS = {
    "good_every_dtype": every_dtype(),
    "good_empty": safetensors(b"{}"),
    "good_scalar_and_zero_size": safetensors(
        {"s": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}, "z": {"dtype": "F32", "shape": [0, 3], "data_offsets": [4, 4]}}, b"1234"),
    "good_padded": safetensors(json.dumps(one()).encode() + b"     ", b"1234"),
    "good_escaped_names": safetensors(b'{"\\u00e4\\"\\\\":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"),
    "header_too_long": struct.pack("<Q", 1 << 40) + b"{}",
    "header_cut": struct.pack("<Q", 50) + b"{}",
    "header_not_an_object": safetensors(b"[]"),
    "header_not_utf8": safetensors(b'{"\xff":1}'),
    "header_deep": safetensors(b'{"a":' + b"[" * 300 + b"]" * 300 + b"}"),
    "name_twice": safetensors(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
    "dtype_unknown": safetensors(one("F99"), b"1234"),
    "shape_negative": safetensors(one(shape=(-1,)), b"1234"),
    "shape_overflow": safetensors(one(shape=(1 << 62, 1 << 62)), b"1234"),
    "shape_fraction": safetensors(one(shape=(1.5,)), b"1234"),
    "offsets_negative": safetensors(one(offsets=(-4, 0)), b"1234"),
    "offsets_backwards": safetensors(one(offsets=(4, 0)), b"1234"),
    "offsets_huge": safetensors(one(offsets=(0, 1 << 63)), b"1234"),
    "offsets_three": safetensors(one(offsets=(0, 1, 4)), b"1234"),
    "size_disagrees": safetensors(one(shape=(2,)), b"1234"),
    "gap": safetensors(one("U8", offsets=(1, 2)), b"12"),
    "overlap": safetensors({**one("U8", (2,), (0, 2)), "b": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]}}, b"123"),
    "left_over": safetensors(one("U8", offsets=(0, 1)), b"12"),
    "unknown_field": safetensors(one(extra=1), b"1234"),
    "metadata_not_text": safetensors({"__metadata__": {"a": 1}}),
    "number_overflow": safetensors(b'{"a":{"dtype":"F32","shape":[1e400],"data_offsets":[0,4]}}', b"1234"),
}


# ---- GGUF ----

def string(text):
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw)) + raw


def pair(key, kind, raw):
    return string(key) + struct.pack("<I", kind) + raw


def array(kind, count, raw):
    return struct.pack("<IQ", kind, count) + raw


def tensor(name, dims, kind, offset):
    return string(name) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<Q", d) for d in dims) + struct.pack("<IQ", kind, offset)


def gguf(pairs=(), tensors=(), data=b"", version=3, counts=None, align=32):
    n_tensors, n_pairs = counts or (len(tensors), len(pairs))
    head = b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_pairs) + b"".join(pairs) + b"".join(tensors)
    return head + bytes(-len(head) % align) + data


SIZES = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84), 11: (256, 110), 12: (256, 144),
         13: (256, 176), 14: (256, 210), 20: (32, 18), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 30: (1, 2)}


def every_type():
    tensors, data = [], b""
    for kind, (block, size) in SIZES.items():
        tensors.append(tensor(f"t{kind}", [block], kind, len(data)))
        raw = bytes(i * 29 % 256 for i in range(size))
        data += raw + bytes(-len(raw) % 32)
    return gguf([], tensors, data)


EVERY_VALUE = [
    pair("u8", 0, b"\x01"), pair("i8", 1, b"\xff"), pair("u16", 2, b"\1\2"), pair("i16", 3, b"\1\xff"), pair("u32", 4, b"\1\2\3\4"),
    pair("i32", 5, b"\1\2\3\xff"), pair("f32", 6, struct.pack("<f", 0.1)), pair("bool", 7, b"\1"), pair("text", 8, string("gr\u00fc\u00df")),
    pair("u64", 10, b"\xff" * 8), pair("i64", 11, b"\x80" * 8), pair("f64", 12, struct.pack("<d", 0.1)),
    pair("texts", 9, array(8, 2, string("a") + string(""))), pair("i32s", 9, array(5, 2, bytes(8))), pair("f32s", 9, array(6, 1, bytes(4))),
    pair("bools", 9, array(7, 2, b"\1\0")), pair("none", 9, array(4, 0, b"")),
]

ONE = tensor("t", [4], 0, 0)

GGUF = {
    "good_every_type": every_type(),
    "good_every_value": gguf(EVERY_VALUE),
    "good_alignment_8": gguf([pair("general.alignment", 4, struct.pack("<I", 8))], [ONE], bytes(16), align=8),
    "good_gap_and_order": gguf([], [tensor("b", [4], 0, 64), tensor("a", [4], 0, 0)], bytes(80)),
    "good_signalling_nan": gguf([pair("f32", 6, b"\1\0\x80\x7f")]),
    "magic_wrong": b"GGML" + bytes(20),
    "version_1": gguf(version=1),
    "version_big_endian": gguf(version=3 << 24),
    "counts_huge": gguf(counts=(1 << 63, 1 << 63)),
    "pairs_cut": gguf([pair("u32", 4, b"\1\2\3\4")], counts=(0, 2), align=1),
    "key_long": b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 40) + bytes(32),
    "key_twice": gguf([pair("k", 4, bytes(4))] * 2),
    "value_type_unknown": gguf([pair("k", 13, bytes(8))]),
    "bool_two": gguf([pair("k", 7, b"\2")]),
    "text_huge": gguf([pair("k", 8, struct.pack("<Q", 1 << 62))]),
    "array_huge": gguf([pair("k", 9, array(0, 1 << 62, b""))]),
    "array_above_limit": gguf([pair("k", 9, array(8, 1 << 25, b""))]),
    "array_of_arrays": gguf([pair("k", 9, array(9, 1, array(0, 1, b"\1")))]),
    "alignment_zero": gguf([pair("general.alignment", 4, bytes(4))], [ONE], bytes(16)),
    "alignment_24": gguf([pair("general.alignment", 4, struct.pack("<I", 24))], [ONE], bytes(16)),
    "alignment_huge": gguf([pair("general.alignment", 4, struct.pack("<I", 1 << 31))], [ONE], bytes(16)),
    "alignment_text": gguf([pair("general.alignment", 8, string("32"))], [ONE], bytes(16)),
    "tensor_twice": gguf([], [ONE, tensor("t", [4], 0, 32)], bytes(64)),
    "dims_five": gguf([], [tensor("t", [1] * 5, 0, 0)], bytes(16)),
    "dims_negative": gguf([], [tensor("t", [1 << 63], 0, 0)], bytes(16)),
    "dims_overflow": gguf([], [tensor("t", [1 << 40, 1 << 40], 0, 0)], bytes(16)),
    "bytes_overflow": gguf([], [tensor("t", [1 << 62], 0, 0)], bytes(16)),
    "type_withdrawn": gguf([], [tensor("t", [32], 4, 0)], bytes(32)),
    "type_not_read": gguf([], [tensor("t", [256], 16, 0)], bytes(256)),
    "row_not_a_block": gguf([], [tensor("t", [33], 2, 0)], bytes(64)),
    "offset_odd": gguf([], [tensor("t", [4], 0, 4)], bytes(64)),
    "offset_outside": gguf([], [tensor("t", [4], 0, 1 << 20)], bytes(16)),
    "offset_overflow": gguf([], [tensor("t", [4], 0, (1 << 64) - 32)], bytes(16)),
    "data_cut": gguf([], [ONE], bytes(15)),
    "overlap": gguf([], [tensor("t", [16], 0, 0), tensor("u", [1], 0, 32)], bytes(64)),
}


if __name__ == "__main__":
    for name, files in (("safetensors", SAFETENSORS), ("gguf", GGUF)):
        folder = pathlib.Path(sys.argv[1]) / name
        folder.mkdir(parents=True, exist_ok=True)
        for file, raw in files.items():
            (folder / file).write_bytes(raw)
