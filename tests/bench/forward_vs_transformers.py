#!/usr/bin/env python3
"""Forward pass with all logits, 4 x 512 tokens, one thread: slmc-engine beside transformers on the same machine, in the same minutes.

    python forward_vs_transformers.py ENGINE MODEL HF_FOLDER [ROUNDS]

ENGINE is slmc-engine, MODEL what it loads (.gguf or folder), HF_FOLDER the same weights for transformers in fp32. Each round runs, one
after the other and each in a fresh process: slmc, transformers helped (MKL's AVX-512 kernels on any CPU, malloc that keeps its pages),
transformers as installed. Counted are CPU-seconds (user + system) of one pass; the minimum over all rounds stands for each. slmc takes
the arg-max of every row besides.
"""
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile

RUNS = 3


def transformers_side(folder):
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    ids = torch.randint(0, model.config.vocab_size, (4, 512))

    def cpu():
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime

    best = float("inf")
    with torch.no_grad():
        for _ in range(RUNS):
            start = cpu()
            model(input_ids=ids, use_cache=False).logits
            best = min(best, cpu() - start)
    print(best)


def slmc_side(engine, model, scratch):
    job = scratch / "job.json"
    job.write_text(json.dumps({"slmc_job": 1, "op": "bench", "model": model, "threads": 1,
                               "settings": {"batch": 4, "seq": 512, "decode": 0, "repeat": RUNS}}))
    lines = subprocess.run([engine, job], check=True, capture_output=True, text=True).stdout.splitlines()
    return json.loads(lines[-1])


def helped_environment(scratch):
    shim = scratch / "any_cpu.so"
    source = scratch / "any_cpu.c"
    source.write_text("int mkl_serv_intel_cpu_true(void) { return 1; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, source], check=True)
    return {"LD_PRELOAD": str(shim), "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "KMP_BLOCKTIME": "0"}


def main():
    if sys.argv[1] == "--transformers":
        return transformers_side(sys.argv[2])
    engine, model, folder = sys.argv[1:4]
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 3
    common = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    best = {"slmc": float("inf"), "helped": float("inf"), "as installed": float("inf")}
    flops = peak = 0
    with tempfile.TemporaryDirectory() as name:
        scratch = pathlib.Path(name)
        helped = helped_environment(scratch)
        for i in range(rounds):
            result = slmc_side(engine, model, scratch)
            row = result["rows"][0]
            now = {"slmc": row["cpu_s"]}
            for kind, extra in (("helped", helped), ("as installed", {})):
                command = [sys.executable, __file__, "--transformers", folder]
                now[kind] = float(subprocess.run(command, check=True, capture_output=True, text=True, env=common | extra).stdout)
            best = {k: min(best[k], now[k]) for k in best}
            flops, peak = row["flops"], max(peak, result["peak_gflops"])
            print(f"round {i + 1}: " + "  ".join(f"{k} {now[k]:.3f} s" for k in now), f" slmc {result['gemm']['chosen']}"
                  f" {row['gflops']:.0f} of {result['peak_gflops']:.0f} GFLOP/s", flush=True)
    tokens = 4 * 512
    for kind in ("slmc", "helped", "as installed"):
        print(f"{kind:13} {best[kind]:.3f} CPU-s  {tokens / best[kind]:.0f} tokens per CPU-s  {best['helped'] / best[kind]:.2f}x helped")
    print(f"slmc: {100 * flops / best['slmc'] / 1e9 / peak:.1f} % of {peak:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
