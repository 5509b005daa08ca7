// bench: how fast a model runs here.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "apps/slmc/commands.h"
#include "apps/slmc/executor.h"
#include "apps/slmc/shared_options.h"
#include "core/units.h"
#include "stage/measures.h"

namespace slmc::cli {
namespace {

int run_bench(Context& context) {
  const std::string model = context.args.text("MODEL");
  load_model(context, model);
  stage::Job job = new_job(context, "bench", model);
  for (const stage::Setting& s : stage::bench_info().settings) job.settings.set(s.name, {.value = context.args.integer(s.name)});
  const Json result = run_alone(context, job);
  if (context.term.json()) {
    context.term.document(context.command, {{"model", model}, {"threads", job.threads}, {"rows", result["rows"]},
                                    {"peak_gflops", result["peak_gflops"]}, {"measured", result["measured"]}});
    return kDone;
  }
  report::Table table{.titles = {"what", "batch", "tokens", "CPU s", "wall s", "tokens/s", "GFLOP/s", "of peak"}, .rows = {},
                      .right = {false, true, true, true, true, true, true, true}};
  for (const Json& row : result["rows"]) {
    table.rows.push_back({row["what"].get<std::string>(), std::to_string(row["batch"].get<std::int64_t>()),
                          std::to_string(row["tokens"].get<std::int64_t>()), fmt::format("{:.3f}", row["cpu_s"].get<double>()),
                          fmt::format("{:.3f}", row["wall_s"].get<double>()), fmt::format("{:.1f}", row["tokens_per_s"].get<double>()),
                          fmt::format("{:.0f}", row["gflops"].get<double>()), fmt::format("{:.0f} %", 100 * row["share_of_peak"].get<double>())});
  }
  context.term.table(table);
  context.term.note(fmt::format("peak: {:.0f} GFLOP/s of fp32 multiply-add on {} threads", result["peak_gflops"].get<double>(), job.threads));
  return kDone;
}

}  // namespace

Command bench_command() {
  return {.name = "bench",
          .summary = stage::bench_info().summary,
          .loads = Loads::Engine,
          .run = run_bench,
          .shares = {.json = true, .plain = true, .device = true, .threads = true, .max_ram = true, .events = true},
          .positionals = {{.name = "MODEL", .help = "The model to time."}},
          .options = options_of(stage::bench_info().settings, "What to time"),
          .examples = {{"slmc bench models/m.gguf --threads 1", "seconds, tokens per second, share of the machine's peak"}},
          .json = {{"model", "as given"},
                   {"threads", "used"},
                   {"rows", "what (forward, prefill, decode), batch, seq, tokens, cpu_s, wall_s, tokens_per_s, flops, gflops, share_of_peak"},
                   {"peak_gflops", "fp32 multiply-add rate of the machine, measured"},
                   {"measured", "seconds, cpu_seconds, peak_bytes of the whole process"}}};
}

}  // namespace slmc::cli
