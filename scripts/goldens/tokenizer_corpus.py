#!/usr/bin/env python3
"""Stored inputs of the tokenizer fuzz target: small good files of each style, and one file per reason to refuse one.

    python scripts/goldens/tokenizer_corpus.py tests/fuzz/corpus/tokenizer   (standard library only; the same bytes every time)
"""
import copy
import json
import pathlib
import struct
import sys

MARK = "\u2581"
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
GPT2 = {**BYTES, "use_regex": True}
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def split(pattern, behavior="Isolated"):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": False}


def sequence(key, *parts):
    return {"type": "Sequence", key: list(parts)}


GOOD = {
    "version": "1.0",
    "added_tokens": [{"id": 4, "content": "<s>", "single_word": False, "lstrip": True, "rstrip": True, "normalized": False, "special": True}],
    "normalizer": None, "pre_tokenizer": GPT2, "post_processor": None, "decoder": GPT2,
    "model": {"type": "BPE", "unk_token": None, "byte_fallback": False, "ignore_merges": False,
              "vocab": {"a": 0, "b": 1, "ab": 2, "abab": 3}, "merges": [["a", "b"], ["ab", "ab"]]},
}
SENTENCEPIECE = {
    "version": "1.0", "added_tokens": [],
    "normalizer": sequence("normalizers", {"type": "Prepend", "prepend": MARK}, {"type": "Replace", "pattern": {"String": " "}, "content": MARK}),
    "pre_tokenizer": None,
    "decoder": sequence("decoders", {"type": "Replace", "pattern": {"String": MARK}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
                        {"type": "Strip", "content": " ", "start": 1, "stop": 0}),
    "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True,
              "vocab": {"<unk>": 0, "<0xC3>": 1, "<0xA9>": 2, MARK: 3, "a": 4, "b": 5, MARK + "a": 6, "ab": 7}, "merges": [f"{MARK} a", "a b"]},
}


def changed(document, path, value):
    document = copy.deepcopy(document)
    at = document
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return document


JSON = {
    "good_gpt2": GOOD,
    "good_smollm": changed(GOOD, ["pre_tokenizer"], sequence("pretokenizers", {"type": "Digits", "individual_digits": True}, GPT2)),
    "good_llama3": changed(changed(GOOD, ["pre_tokenizer"], sequence("pretokenizers", split(LLAMA3), BYTES)), ["model", "ignore_merges"], True),
    "good_qwen2": changed(changed(GOOD, ["pre_tokenizer"], sequence("pretokenizers", split(LLAMA3.replace("{1,3}", "")), BYTES)),
                          ["normalizer"], {"type": "NFC"}),
    "good_sentencepiece": SENTENCEPIECE,
    "good_metaspace": changed(changed(SENTENCEPIECE, ["normalizer"], None), ["pre_tokenizer"],
                              {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "first", "split": False}),
    "good_every_behavior": changed(GOOD, ["pre_tokenizer"], sequence("pretokenizers", *[split("[ab]+", b) for b in (
        "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous", "Removed")], BYTES)),
    "id_negative": changed(GOOD, ["model", "vocab", "a"], -1),
    "id_huge": changed(GOOD, ["model", "vocab", "a"], 1 << 62),
    "id_twice": changed(GOOD, ["model", "vocab", "a"], 1),
    "id_fraction": changed(GOOD, ["model", "vocab", "a"], 0.5),
    "id_largest": changed(GOOD, ["model", "vocab", "a"], (1 << 20) - 1),
    "added_id_wrong": changed(GOOD, ["added_tokens", 0, "id"], 3),
    "merge_unknown": changed(GOOD, ["model", "merges", 0], ["a", "z"]),
    "merge_without_result": changed(GOOD, ["model", "merges", 0], ["b", "a"]),
    "merge_three": changed(GOOD, ["model", "merges", 0], ["a", "b", "c"]),
    "merge_empty": changed(GOOD, ["model", "merges", 0], ["", "a"]),
    "model_unigram": changed(GOOD, ["model", "type"], "Unigram"),
    "normalizer_unknown": changed(GOOD, ["normalizer"], {"type": "Precompiled"}),
    "decoder_unknown": changed(GOOD, ["decoder"], {"type": "WordPiece"}),
    "pattern_wrong": changed(GOOD, ["pre_tokenizer"], sequence("pretokenizers", split("(("), BYTES)),
    "pattern_slow": changed(GOOD, ["pre_tokenizer"], sequence("pretokenizers", split("(a+|b|ab)+(a|ab)+$z"), BYTES)),
    "pattern_empty_matches": changed(GOOD, ["pre_tokenizer"], sequence("pretokenizers", split("b*"), BYTES)),
    "growing_normalizer": changed(GOOD, ["normalizer"], sequence("normalizers", *[
        {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 64)),
    "growing_words": changed(GOOD, ["pre_tokenizer"], sequence("pretokenizers", *[
        split("."), {"type": "Metaspace", "replacement": "x"}, {"type": "Metaspace", "replacement": "y"}] * 21)),
    "growing_decoder": changed(GOOD, ["decoder"], sequence("decoders", *[{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 64)),
    "steps_too_many": changed(GOOD, ["decoder"], sequence("decoders", *[{"type": "Fuse"}] * 65)),
    "nested": changed(GOOD, ["normalizer"], json.loads('{"type":"Sequence","normalizers":[' * 40 + '{"type":"NFC"}' + "]}" * 40)),
}


def gguf(pairs):
    def text(s):
        return struct.pack("<Q", len(s.encode())) + s.encode()

    def value(v):
        if isinstance(v, str):
            return struct.pack("<I", 8) + text(v)
        if isinstance(v, int):
            return struct.pack("<II", 4, v)
        kind = 8 if isinstance(v[0], str) else 5 if isinstance(v[0], int) else 6
        items = b"".join(text(x) if kind == 8 else struct.pack("<i" if kind == 5 else "<f", x) for x in v)
        return struct.pack("<IIQ", 9, kind, len(v)) + items
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + b"".join(text(f"tokenizer.ggml.{k}") + value(v) for k, v in pairs.items())


BPE = {"model": "gpt2", "pre": "gpt-2", "tokens": ["a", "b", "ab", "<s>"], "token_type": [1, 1, 1, 3], "merges": ["a b"], "bos_token_id": 3}
SPM = {"model": "llama", "tokens": ["<unk>", MARK, "a", "b", MARK + "a", "ab"], "token_type": [2, 1, 1, 1, 1, 1],
       "scores": [0.0, -9.0, -9.0, -9.0, -1.0, -2.0]}
GGUF = {
    "gguf_good_bpe": BPE, "gguf_good_spm": SPM, "gguf_pre_unknown": {**BPE, "pre": "tekken"}, "gguf_merge_unknown": {**BPE, "merges": ["a z"]},
    "gguf_token_twice": {**BPE, "tokens": ["a", "a", "ab", "<s>"]}, "gguf_types_short": {**BPE, "token_type": [1]},
    "gguf_scores_nan": {**SPM, "scores": [float("nan")] * 6}, "gguf_model_unknown": {**BPE, "model": "t5"},
}


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for name, document in JSON.items():
        (out / name).write_bytes(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode())
    for name, pairs in GGUF.items():
        (out / name).write_bytes(gguf(pairs))


if __name__ == "__main__":
    main()
