#!/usr/bin/env python3
"""An installation works from any folder, after it was moved. usage: install.py CMAKE BUILD SOURCE"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

cmake, build, source = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]).resolve()
with tempfile.TemporaryDirectory() as scratch:
    first, prefix, elsewhere = (pathlib.Path(scratch) / name for name in ("first", "moved", "elsewhere"))
    subprocess.run([cmake, "--install", build, "--prefix", first], check=True, stdout=subprocess.DEVNULL)
    shutil.move(first, prefix)
    elsewhere.mkdir()
    env = {"PATH": "/usr/bin:/bin", "HOME": str(elsewhere), "OMP_NUM_THREADS": "1"}

    def slmc(*words, code=0):
        done = subprocess.run([prefix / "bin/slmc", *words], cwd=elsewhere, env=env, capture_output=True, text=True)
        if done.returncode != code:
            sys.exit(f"slmc {' '.join(map(str, words))}: exit code {done.returncode} instead of {code}\n{done.stdout}{done.stderr}")
        return done.stdout

    for folder, least in (("arch", 6), ("recipes", 1), ("data", 5)):
        found = list((prefix / "share/slmc" / folder).iterdir())
        if len(found) < least:
            sys.exit(f"share/slmc/{folder} must hold at least {least} files, but holds {found}")
    slmc("inspect", source / "tests/data/tiny/llama")
    has_engine = (prefix / "libexec/slmc-engine").exists()
    slmc("doctor", code=0 if has_engine else 5)
    # A family that only the installation knows.
    template = (prefix / "share/slmc/arch/llama.json").read_text()
    (prefix / "share/slmc/arch/llamb.json").write_text(template.replace('"llama"', '"llamb"').replace('"mistral"', '"mistrab"'))
    if "llamb" not in slmc("doctor", "--plain", code=0 if has_engine else 5):
        sys.exit("a template in share/slmc/arch must be found, but is not")
    shutil.copytree(source / "tests/data/tiny/llama", elsewhere / "llamb")
    config = (elsewhere / "llamb/config.json").read_text()
    (elsewhere / "llamb/config.json").write_text(config.replace('"llama"', '"llamb"'))
    slmc("convert", "llamb", "-o", "again")
    slmc("convert", "llamb", "-o", "again.gguf")
    for made in ("again", "again.gguf"):
        slmc("inspect", made)
print("install: works after a move, with engine" if has_engine else "install: works after a move, without engine")
