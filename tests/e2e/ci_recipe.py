#!/usr/bin/env python3
"""The recipe for CI on the tiny trained model: its gates are met with a report and a table, and one that is not met gives exit code 3.

usage: ci_recipe.py SLMC RECIPE
Without the distillation the same chain must fail the recipe's own gate of quality: a gate that nothing can fail proves nothing.
"""
import json
import pathlib
import subprocess
import sys
import tempfile


def run(work, *more):
    command = [sys.argv[1], "run", sys.argv[2], "--work", str(work), "--set", f"report={work}/report.html", "--threads", "1", "--json", "-q", *more]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 3):
        sys.exit(f"run failed with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.returncode, json.loads(done.stdout)


def expect(holds, what):
    if not holds:
        sys.exit(f"ci_recipe: {what}")


def main():
    with tempfile.TemporaryDirectory() as scratch:
        work = pathlib.Path(scratch)
        code, result = run(work)
        expect(code == 0 and result["gates_met"], f"the gates must be met, but are not: {result['gates']}")
        ppl = {row["id"]: row["metrics"]["ppl"] for row in result["rows"]}
        expect(list(ppl) == ["model", "depth", "width", "heal", "int4"], f"the rows are {list(ppl)}")
        expect(ppl["model"] < 150, f"the tiny model's perplexity is {ppl['model']}; it was 110 when it was made")
        kl = {row["id"]: row["metrics"]["kl"] for row in result["rows"]}
        expect(ppl["heal"] < ppl["width"] and kl["heal"] < 0.8 * kl["width"], f"distillation must recover something: {ppl}, {kl}")
        expect(all(row["metrics"]["kl"] > 0 for row in result["rows"][1:]), "KL to the original must be above 0")
        output = pathlib.Path(result["output"])
        expect(output.read_bytes()[:4] == b"GGUF" and output.stat().st_size == result["rows"][-1]["file_bytes"], f"no GGUF at {output}")
        report = (work / "report.html").read_text()
        expect("<svg" in report and all(name in report for name in ppl), "the report must have a picture and every stage")
        seconds = [sum(row["cpu_seconds"] for row in result["rows"])]

        code, again = run(work)
        expect(code == 0 and all(row["reused"] for row in again["rows"][1:]), "the second run must compute nothing")
        code, worse = run(work, "--set", "heal.tokens=640")
        expect(code == 3 and not worse["gates_met"], "without distillation the gate of perplexity must not be met")
        unmet = [gate["metric"] for gate in worse["gates"] if not gate["met"]]
        expect(unmet == ["ppl_ratio", "kl"], f"not met are {unmet}")
        print(f"ci_recipe: gates met, perplexity {ppl['model']:.1f} to {ppl['int4']:.1f}, {seconds[0]:.1f} CPU-seconds in the stages")


main()
