#!/usr/bin/env python3
"""Makes tests/data/tiny: one small random checkpoint per decoder family as a Hugging Face folder, and golden logits beside it.

    python scripts/goldens/tiny_models.py tests/data/tiny          needs torch, transformers 5.23, safetensors

Weights have the spread of trained models (attention is not uniform, norm gains are not one, biases are not zero), sizes are odd and
all different, so that a swapped axis or a forgotten bias changes every logit. The goldens are the public implementation in fp64
throughout: its norms, rotary tables and softmax compute in fp32 whatever the weights are, so those casts are patched to fp64 first.

NAME/config.json, NAME/model.safetensors      the checkpoint, in the dtype that the table below names
NAME.golden.safetensors                       for T in 1, 7, 33: ids.T [2, T] I64, logits.T [2, T, vocab] F64;
                                              embed_grad [2, 7, hidden] F64: gradient of the summed next-token cross-entropy of
                                              ids.7 with respect to the input embeddings
"""
import importlib
import json
import linecache
import pathlib
import sys
import types

import torch
import transformers
from safetensors.torch import save_file

LENGTHS = (1, 7, 33)
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}

# name: (module, prefix of its classes, stored dtype, config, keys written over config.json in the spelling of older files)
MODELS = {
    "llama": ("llama", "Llama", torch.float32, dict(
        vocab_size=67, hidden_size=30, intermediate_size=44, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2, head_dim=10,
        max_position_embeddings=64, rms_norm_eps=1e-5, rope_parameters=ROPE, tie_word_embeddings=False), {}),
    "llama_tied": ("llama", "Llama", torch.bfloat16, dict(
        vocab_size=83, hidden_size=28, intermediate_size=38, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=1, head_dim=6,
        max_position_embeddings=64, rms_norm_eps=1e-6, rope_parameters=ROPE | {"rope_theta": 500000.0}, tie_word_embeddings=True,
        attention_bias=True, mlp_bias=True), {"rope_parameters": None, "rope_theta": 500000.0, "rope_scaling": None}),
    "mistral": ("mistral", "Mistral", torch.float16, dict(
        vocab_size=71, hidden_size=32, intermediate_size=54, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=12,
        max_position_embeddings=64, rms_norm_eps=1e-5, rope_parameters=ROPE, sliding_window=8), {}),
    "qwen2": ("qwen2", "Qwen2", torch.float32, dict(
        vocab_size=79, hidden_size=36, intermediate_size=46, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=3,
        max_position_embeddings=64, rms_norm_eps=1e-6, rope_parameters=ROPE | {"rope_theta": 1000000.0}, tie_word_embeddings=True), {}),
    "qwen3": ("qwen3", "Qwen3", torch.bfloat16, dict(
        vocab_size=73, hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=14,
        max_position_embeddings=64, rms_norm_eps=1e-6, rope_parameters=ROPE, tie_word_embeddings=False), {}),
    "gpt2": ("gpt2", "GPT2", torch.float32, dict(
        vocab_size=89, n_embd=30, n_inner=50, n_layer=2, n_head=5, n_positions=48, layer_norm_epsilon=1e-5), {}),
    "gpt_neox": ("gpt_neox", "GPTNeoX", torch.float16, dict(
        vocab_size=97, hidden_size=40, intermediate_size=58, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64,
        layer_norm_eps=1e-5, rope_parameters=ROPE | {"partial_rotary_factor": 0.4}, use_parallel_residual=True,
        tie_word_embeddings=False), {"rope_parameters": None, "rotary_pct": 0.4, "rotary_emb_base": 10000}),
    "gpt_neox_serial": ("gpt_neox", "GPTNeoX", torch.float32, dict(
        vocab_size=61, hidden_size=24, intermediate_size=42, num_hidden_layers=2, num_attention_heads=3, max_position_embeddings=64,
        layer_norm_eps=1e-6, rope_parameters=ROPE | {"partial_rotary_factor": 1.0}, use_parallel_residual=False,
        hidden_act="gelu_new", tie_word_embeddings=True), {}),
    "phi3": ("phi3", "Phi3", torch.bfloat16, dict(
        vocab_size=77, hidden_size=32, intermediate_size=42, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=64, original_max_position_embeddings=64, rms_norm_eps=1e-5,
        rope_parameters=ROPE | {"partial_rotary_factor": 0.75}, sliding_window=9, tie_word_embeddings=False), {}),
    "opt": ("opt", "OPT", torch.float16, dict(
        vocab_size=69, hidden_size=30, ffn_dim=52, num_hidden_layers=2, num_attention_heads=3, max_position_embeddings=46,
        word_embed_proj_dim=30), {}),
}


def fp64_module(family):
    """The modelling file with every fp32 cast turned into fp64, as a module of its own."""
    public = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    source = pathlib.Path(public.__file__).read_text()
    casts = sum(source.count(word) for word in ("torch.float32", ".float()", "dtype=torch.float)"))
    source = source.replace("torch.float32", "torch.float64").replace(".float()", ".double()").replace("dtype=torch.float)", "dtype=torch.float64)")
    module = types.ModuleType(public.__name__ + "_fp64")
    module.__package__, module.__file__ = public.__package__, public.__file__ + "_fp64.py"
    linecache.cache[module.__file__] = (len(source), None, source.splitlines(True), module.__file__)
    sys.modules[module.__name__] = module
    exec(compile(source, module.__file__, "exec"), module.__dict__)
    return module, casts


def fill(model, seed):
    """Trained-looking values: linear maps keep the scale of their input, gains around one, biases and positions that matter."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator, dtype=torch.float64)
        if "norm" in name or ".ln_" in name:
            value = 1 + 0.3 * noise if name.endswith("weight") else 0.2 * noise
        elif name.endswith("bias"):
            value = 0.3 * noise
        elif ".wpe" in name or "embed_positions" in name:
            value = 0.3 * noise
        elif "embed" in name or ".wte" in name:
            value = 0.7 * noise
        else:
            inputs = p.shape[0] if ".c_" in name else p.shape[1]           # GPT-2 stores [in, out]
            value = noise * 1.1 / inputs**0.5
        p.data.copy_(value)


def write_checkpoint(name, folder, seed):
    family, prefix, dtype, options, raw = MODELS[name]
    config = getattr(transformers, prefix + "Config")(**SPECIAL, **options)
    model = getattr(transformers, prefix + ("LMHeadModel" if family == "gpt2" else "ForCausalLM"))(config).double()
    fill(model, seed)
    model.to(dtype).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    file = folder / "config.json"
    text = json.loads(file.read_text())
    for key, value in raw.items():
        text.pop(key, None)
        if value is not None:
            text[key] = value
    file.write_text(json.dumps(text, indent=2, sort_keys=True) + "\n")


def golden(name, folder, seed):
    family, prefix, *_ = MODELS[name]
    module, casts = fp64_module(family)
    head = prefix + ("LMHeadModel" if family == "gpt2" else "ForCausalLM")
    config = transformers.AutoConfig.from_pretrained(folder)
    model = getattr(module, head).from_pretrained(folder, config=config, dtype=torch.float64, attn_implementation="eager").eval()
    assert all(t.dtype == torch.float64 for t in model.parameters())
    rotary = [b for n, b in model.named_buffers() if n.endswith("inv_freq")]
    assert all(b.dtype == torch.float64 for b in rotary) and bool(rotary) == (family not in ("gpt2", "opt"))
    public = getattr(transformers, head).from_pretrained(folder, dtype=torch.float64, attn_implementation="sdpa").eval()
    generator = torch.Generator().manual_seed(seed + 1000)
    out = {}
    for length in LENGTHS:
        ids = torch.randint(0, config.vocab_size, (2, length), generator=generator)
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits
            apart = (logits - public(input_ids=ids, use_cache=False).logits).abs().max().item()
        assert logits.dtype == torch.float64 and apart < 1e-3, apart         # the patch changes rounding, nothing else
        out[f"ids.{length}"], out[f"logits.{length}"] = ids, logits.contiguous()
        print(f"{name:16} T={length:2}  casts {casts}  std of logits {logits.std().item():.2f}  unpatched differs by {apart:.1e}")
    embeds = model.get_input_embeddings()(out["ids.7"]).detach().requires_grad_()
    logits = model(inputs_embeds=embeds, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), out["ids.7"][:, 1:].flatten(), reduction="sum")
    out["embed_grad"] = torch.autograd.grad(loss, embeds)[0].contiguous()
    return out


def main():
    root = pathlib.Path(sys.argv[1])
    torch.set_num_threads(1)
    for seed, name in enumerate(MODELS):
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        write_checkpoint(name, folder, seed)
        save_file(golden(name, folder, seed), root / f"{name}.golden.safetensors", metadata={
            "command": "python scripts/goldens/tiny_models.py tests/data/tiny",
            "made_by": f"transformers {transformers.__version__}, torch {torch.__version__}, fp32 casts patched to fp64"})


if __name__ == "__main__":
    main()
