#!/usr/bin/env python3
"""Trains one small tokenizer of each style on configs/data/train and stores it in tests/data/tokenizers, with golden ids.

usage: python3.11 scripts/goldens/make_tokenizers.py      needs the packages tokenizers and transformers
"""
import hashlib
import json
import pathlib
import struct
import sys

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import tokenizer_texts as texts

OUT = texts.ROOT / "tests/data/tokenizers"
TRAIN = sorted((texts.ROOT / "configs/data/train").glob("*.jsonl"))
GOLDEN = [texts.ROOT / "configs/data" / name for name in ("calib.jsonl", "heldout.jsonl", "wiki.test.txt")]
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
MARK = "\u2581"


def train(tokenizer, size, special=(), alphabet=(), limit=400):
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(special), initial_alphabet=list(alphabet),
                                  limit_alphabet=limit, show_progress=False)
    corpus = [d for path in TRAIN for d in texts.documents(path)]
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def byte_level(words, size, special, normalizer=None, **model):
    tokenizer = Tokenizer(models.BPE(**model))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = words
    tokenizer.decoder = decoders.ByteLevel()
    return train(tokenizer, size, special, pre_tokenizers.ByteLevel.alphabet(), 256)


def no_regex(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated", False),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def smollm():
    words = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return byte_level(words, 2000, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])


def gpt2():
    return byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), 1500, ["<|endoftext|>"])


def neox():
    tokenizer = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), 1200, ["<|endoftext|>", "<|padding|>"], normalizers.NFC())
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in range(2, 25)])      # as GPT-NeoX and Pythia have
    return tokenizer


def llama3():
    tokenizer = byte_level(no_regex(LLAMA3), 2000, ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"], ignore_merges=True)
    bos = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=True),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
                                      special_tokens=[("<|begin_of_text|>", bos)])])
    return tokenizer


def qwen2():
    tokenizer = byte_level(no_regex(QWEN2), 1500, [], normalizers.NFC())
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    tokenizer.add_tokens([AddedToken("<think>", normalized=False), AddedToken("caf\u00e9 au lait", normalized=True)])
    return tokenizer


def sentencepiece(size, words):
    """Pieces by BPE over blanks marked with U+2581, then every way to join two pieces to a third is a merge, by falling score:
    what transformers' converter makes of a SentencePiece model (Llama-2, TinyLlama, Mistral)."""
    from transformers.convert_slow_tokenizer import generate_merges
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=MARK, prepend_scheme="always", split=True)
    train(tokenizer, size, ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)], [MARK], 120)
    model = json.loads(tokenizer.to_str())["model"]
    control = {"<unk>", "<s>", "</s>"} | {f"<0x{b:02X}>" for b in range(256)}
    scores = {piece: -float(i) for piece, i in model["vocab"].items() if piece not in control}
    merges = generate_merges({p: i for p, i in model["vocab"].items() if p not in control}, scores)
    tokenizer = Tokenizer(models.BPE(vocab=model["vocab"], merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    strip = [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(strip)
    if words:
        tokenizer.pre_tokenizer = words
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    return tokenizer


def llama2():
    tokenizer = sentencepiece(2000, None)
    tokenizer.add_special_tokens([AddedToken("<|user|>", special=True, normalized=False, rstrip=True)])          # as Phi-3
    return tokenizer


def mistral():
    return sentencepiece(1200, pre_tokenizers.Metaspace(replacement=MARK, prepend_scheme="first", split=False))


def flags():
    """Every flag of added tokens, and pre-tokenizers that take the general path."""
    words = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.Split(Regex(r"\p{P}"), "merged_with_previous", False),
                                     pre_tokenizers.Split("\n", "merged_with_next", False),
                                     pre_tokenizers.Split(Regex(r"[A-Z]+"), "contiguous", True),
                                     pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)])
    tokenizer = byte_level(words, 900, ["<|endoftext|>"])
    tokenizer.add_tokens([AddedToken("whole", single_word=True), AddedToken("<l>", lstrip=True), AddedToken("<r>", rstrip=True),
                          AddedToken("<lr>", lstrip=True, rstrip=True, normalized=False), AddedToken("<|user|>", special=True)])
    return tokenizer


def legacy(text):
    """Merges as "left right", the form before tokenizers 0.20."""
    document = json.loads(text)
    document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    return json.dumps(document, ensure_ascii=False)


EXAMPLES = ["", " ", "Hello world", " Hello  world! It's 12:34.\n\n\tdef f(x):\n        return x\r\n", "caf\u00e9 cafe\u0301 cafe\u0301 au lait",
            "<|endoftext|>a<|im_start|> b <s>x</s>", "\u6f22\u5b57\u3068\u304b\u306a \U0001f469\u200d\U0001f4bb \u2581x", "a   whole  wholesome <l>  <r>  b <lr> 7",
            "I'M you'LL we're it'\u017f", "\x00\u0085\u00a0 \u3000 1\u00bd\u2167 3", "<|user|>   hi <think> there"]


def digest(encoded):
    h = hashlib.sha256()
    for ids in encoded:
        h.update(struct.pack(f"<I{len(ids)}i", len(ids), *ids))
    return {"texts": len(encoded), "tokens": sum(map(len, encoded)), "sha256": h.hexdigest()}


def goldens(tokenizer):
    encode = lambda batch: [e.ids for e in tokenizer.encode_batch(batch, add_special_tokens=False)]
    out = {path.name: digest(encode(texts.documents(path))) for path in GOLDEN}
    out["random"] = digest(encode(list(texts.random_strings())))
    out["examples"] = []
    for text in EXAMPLES:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        out["examples"].append({"text": text, "ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False),
                                "without_special": tokenizer.decode(ids, skip_special_tokens=True)})
    return out


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    texts.write_assigned()
    all_goldens = {"made_by": "scripts/goldens/make_tokenizers.py", "tokenizers": tokenizers.__version__}
    for style in (smollm, gpt2, neox, llama3, qwen2, llama2, mistral, flags):
        tokenizer = style()
        text = json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":"))
        text = legacy(text) if style is gpt2 else text
        (OUT / f"{style.__name__}.json").write_text(text + "\n", encoding="utf-8")
        all_goldens[style.__name__] = goldens(Tokenizer.from_str(text))
    (OUT / "goldens.json").write_text(json.dumps(all_goldens, indent=1) + "\n")


if __name__ == "__main__":
    main()
