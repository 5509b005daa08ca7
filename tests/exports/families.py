"""Small random models of every family, as transformers writes them."""
import json
import shutil

import torch

from readers import ROOT, fresh

ROPE = {"rope_type": "default", "rope_theta": 10000.0}

# Families with a vocabulary: (config class, tokenizer of tests/data/tokenizers, what the config adds to the sizes that all share).
FAMILIES = {
    "llama": ("LlamaConfig", "smollm", dict(num_key_value_heads=2, rope_parameters=ROPE)),
    "llama-bpe": ("LlamaConfig", "llama3", dict(num_key_value_heads=4, attention_bias=True, tie_word_embeddings=False, rope_parameters=ROPE)),
    "llama-spm": ("LlamaConfig", "llama2", dict(num_key_value_heads=1, head_dim=32, rope_parameters=ROPE)),
    "mistral": ("MistralConfig", "mistral", dict(num_key_value_heads=2, sliding_window=None, rope_parameters=ROPE)),
    "qwen2": ("Qwen2Config", "qwen2", dict(num_key_value_heads=2, rope_parameters=ROPE)),
    "qwen3": ("Qwen3Config", "qwen2", dict(num_key_value_heads=2, head_dim=32, rope_parameters=ROPE)),
    "gpt2": ("GPT2Config", "gpt2", dict()),
    "gpt_neox": ("GPTNeoXConfig", "neox", dict(rope_parameters=ROPE | {"partial_rotary_factor": 0.5})),
    "phi3": ("Phi3Config", "llama2", dict(pad_token_id=0, num_key_value_heads=2, rope_parameters=ROPE, original_max_position_embeddings=512)),
    "opt": ("OPTConfig", "gpt2", dict()),
}

FFN_KEY = {"gpt2": "n_inner", "opt": "ffn_dim"}
HF_ONLY = ("opt",)                        # llama.cpp has no OPT


def random_family(name, blocks=2):
    """A random checkpoint of a family with a trained vocabulary, as transformers writes it."""
    import transformers

    kind, vocabulary, more = FAMILIES[name]
    tokens = json.loads((ROOT / f"tests/data/tokenizers/{vocabulary}.json").read_text())
    size = max(max(tokens["model"]["vocab"].values()), max(t["id"] for t in tokens["added_tokens"])) + 1
    sizes = dict(vocab_size=size, hidden_size=64, num_hidden_layers=blocks, num_attention_heads=4, max_position_embeddings=512)
    sizes[FFN_KEY.get(name, "intermediate_size")] = 96
    config = getattr(transformers, kind)(**sizes, initializer_range=0.3, **{"bos_token_id": 0, "eos_token_id": 0} | more)
    torch.manual_seed(len(name))
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():                             # gains and biases as trained models have them, not ones and zeros
        for key, value in model.named_parameters():
            if value.dim() == 1:
                value.add_(torch.randn_like(value) * 0.2)
    folder = fresh(f"{name}-made")
    model.save_pretrained(folder)
    shutil.copy(ROOT / f"tests/data/tokenizers/{vocabulary}.json", folder / "tokenizer.json")
    return folder
