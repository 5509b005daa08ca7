#!/usr/bin/env python3
"""The completion scripts hold every option of every subcommand, are sound in their shells (those that are here), and complete.
usage: completion.py SLMC"""
import re
import shutil
import subprocess
import sys

slmc = sys.argv[1]


def output(*words):
    return subprocess.run([slmc, *words], capture_output=True, text=True, check=True).stdout


def subcommands():
    names, inside = [], False
    for line in output("--help").splitlines():
        if line.startswith("usage:"):
            inside = True
        elif line.startswith("Topics"):
            break
        elif inside and (found := re.match(r"  ([a-z]+(?: [a-z]+)?)(?:  |$)", line)):
            names.append(found.group(1))
    return names


def options(name):
    return set(re.findall(r"(?:^|[ ,])(--[a-z0-9-]+)", "\n".join(
        line[:60] for line in output(*name.split(), "--help").splitlines() if re.match(r"  (-., |    )--", line))))


def bash_replies(script, *words):
    listing = subprocess.run(["bash", "-c", script + f"\nCOMP_WORDS=(slmc {' '.join(repr(w) for w in words)}); COMP_CWORD={len(words)}; _slmc; "
                              'printf "%s\\n" "${COMPREPLY[@]}"'], capture_output=True, text=True, check=True)
    return set(listing.stdout.split())


scripts = {shell: output("completion", shell) for shell in ("bash", "zsh", "fish")}
names = subcommands()
if len(names) < 8:
    sys.exit(f"only these subcommands were found: {names}")
for name in names:
    for option in options(name):
        for shell, script in scripts.items():
            wanted = f"-l {option[2:]}" if shell == "fish" else option
            if not re.search(re.escape(wanted) + r"(?![a-z0-9-])", script):
                sys.exit(f"{shell}: {option} of {name} is missing")
    found = bash_replies(scripts["bash"], *name.split(), "-")
    if not options(name) <= found:
        sys.exit(f"bash: completing 'slmc {name} -' lacks {sorted(options(name) - found)}")
if "inspect" not in bash_replies(scripts["bash"], "ins"):
    sys.exit("bash: 'slmc ins' does not complete to inspect")
if "exit-codes" not in bash_replies(scripts["bash"], "help", "exit"):
    sys.exit("bash: 'slmc help exit' does not complete to exit-codes")
for shell, flag in (("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")):
    if shutil.which(shell):
        subprocess.run([shell, flag], input=scripts[shell], text=True, check=True)
print(f"completion: {len(names)} subcommands, checked in {[s for s in scripts if shutil.which(s)]}")
