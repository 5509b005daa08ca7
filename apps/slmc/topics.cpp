// The topics of `slmc help TOPIC`. What can be made from a table is made from it.
#include <fmt/format.h>

#include "apps/slmc/help.h"
#include "apps/slmc/registry.h"
#include "recipe/run.h"

namespace slmc::cli {
namespace {

std::string exit_codes() {
  return R"(Exit codes

    0    done, and every gate of the recipe was met
    1    failed: a computation went wrong (not a number, a matrix without a factor), or a bug
    2    wrong usage or wrong recipe; nothing was run
    3    ran to the end, but a gate was not met: the code that CI branches on
    4    a model or data is missing, corrupt or not supported
    5    memory, disk or a device is lacking, or the engine can't start
  130    interrupted by Ctrl-C; what could be saved is saved
  143    the same by SIGTERM

With several errors at once the code is that of their kind. A second Ctrl-C or SIGTERM stops at once; the next run of the
same command goes on from what is on disk.
)";
}

std::string recipes() {
  return R"(Recipes

A recipe is a chain of stages in YAML or JSON; the same decoder reads both. Relative paths are relative to the recipe's folder.

  slmc: 1                          version of the format
  name: smaller
  model: models/model.gguf         a Hugging Face folder, a GGUF file, or hf:org/name from the local cache
  data:
    calib: {files: [calib.jsonl], samples: 128, seq: 512}
    train: {mix: {wiki: {files: [wiki.jsonl], weight: 2}, books: {files: [books.jsonl]}}, seq: 512}
  stages:                          in order; id is free, use names the stage, with holds its settings
    - {id: width, use: prune, with: {ffn: 1280}}
    - {id: heal, use: distill, with: {teacher: $model, tokens: 60k}}
  eval: {every_stage: true, reference: $model, tasks: [{ppl: wiki.test.txt, window: 512, windows: 64}]}
  gates: {ppl_ratio: {max: 1.5}, file_bytes: {max: 82MB}}
  sweep: {width.ffn: [1280, 1024], seed: [1, 2]}
  report: report.html
  seed: 0

$model is the input, $ID what the stage ID made. A stage that ran with the same inputs, settings, data and program is not
run again. `sweep` runs the chain for every combination of its values: one table, one CSV, pictures; seeds become means.
`slmc recipe check` finds every mistake at once, `slmc plan` also follows the shapes and the bytes,
`slmc recipe schema` gives editors a JSON Schema, `slmc help settings` lists stages and settings, `slmc help gates` metrics.
)";
}

std::string environment() {
  return R"(Environment

  SLMC_CACHE      folder for statistics; default $XDG_CACHE_HOME/slmc or ~/.cache/slmc
  SLMC_DEVICE     default of --device
  SLMC_THREADS    default of --threads
  HF_HOME         where hf:org/name is looked for; default ~/.cache/huggingface. Nothing is downloaded.
  OMP_WAIT_POLICY how threads of the engine wait; passive unless set
  NO_COLOR        not empty: no colour            FORCE_COLOR    not empty: colour in pipes too
  TERM=dumb       no colour, no progress bar      COLUMNS        width when there is no terminal

A setting has its default, unless the recipe says otherwise, unless a flag says otherwise. The environment changes nothing else.
)";
}

std::string settings() { return stage::settings_reference(registry()); }

std::string gates() {
  std::string out = "Metrics that gates can name: METRIC: {max: X} or {min: X}; METRIC:TASK for one task of several\n\n";
  for (const recipe::MetricInfo& m : recipe::metric_table()) {
    out += fmt::format("  {:<20} {}{}{}\n", m.name, m.help, m.unit.empty() ? "" : " (" + m.unit + ")",
                       m.needs_reference ? "; needs eval.reference" : "");
  }
  return out;
}

std::string plans() {
  return R"(Plan files

A plan is JSON that says how one model becomes another; `slmc edit MODEL --plan PLAN -o OUT` carries it out, and each stage keeps the
one it made. Keys are applied in this order:

  take     {"block": [0,1,4], "block.4.ffn": [..], "hidden": [..]}: entries that stay, in coordinates of the base;
           order permutes, repeats copy, [] removes the part
  set      {"block.1.ffn.down": {"file": "plan.safetensors", "tensor": "block.1.ffn.down"}}: new values, or {"copy": "embed"}
  config   {"context": 2048}: options of the decoder
  format   {"*": "q4_0", "embed": "q8_0"}: stored type by tensor; the last that matches wins

  {"slmc_plan": 1, "base": {"shape": HASH, "content": HASH or ""}, "take": .., "set": .., "config": .., "format": ..}

`slmc inspect MODEL --json` gives the base's shape hash. A plan for another shape is refused.
)";
}

}  // namespace

const std::vector<Topic>& topics() {
  static const std::vector<Topic> all = {
      {"exit-codes", "what the exit codes mean", exit_codes},
      {"recipes", "the recipe file on one page", recipes},
      {"settings", "every stage with its methods and settings", settings},
      {"gates", "metrics that gates and tables know", gates},
      {"plans", "plan files: what `edit` takes", plans},
      {"environment", "variables that are read", environment},
  };
  return all;
}

}  // namespace slmc::cli
