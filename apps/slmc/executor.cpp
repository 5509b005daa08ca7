#include "apps/slmc/executor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "apps/slmc/engine_process.h"
#include "apps/slmc/event_log.h"
#include "apps/slmc/front_stages.h"
#include "recipe/resolve.h"

namespace slmc::cli {
namespace {

void add_measured(Json& result, const Usage& usage) {
  result["measured"] = {{"seconds", usage.seconds}, {"cpu_seconds", usage.cpu_seconds}, {"peak_bytes", usage.peak_bytes}};
}

Json run_engine(const Context& context, stage::Job job, const recipe::Sink& sink) {
  job.templates = context.around.templates.string();
  EngineProcess engine(require_engine(context), job);
  std::optional<Json> last;
  while (const std::optional<Json> event = engine.next()) {
    const std::string kind = (*event)["event"];
    if (kind == "result" || kind == "error") last = *event;
    if (kind != "result" && kind != "error") sink(*event);
  }
  const Usage usage = engine.finish(last.has_value());
  if ((*last)["event"] == "error") throw stage::error_from_event(*last);
  add_measured(*last, usage);
  return *last;
}

// A dead engine's sentence gets the command that goes on.
Error with_way_on(const Error& error, const std::string& go_on) {
  if (go_on.empty()) return error;
  std::vector<Diagnostic> all = error.diagnostics();
  std::string& hint = all.back().hint;
  if (!hint.empty()) hint += "; ";
  hint += go_on;
  Error out(error.kind(), std::move(all));
  for (const std::string& step : error.trail()) out.while_doing(step);
  return out;
}

bool deserves_way_on(ErrorKind kind) {
  return kind == ErrorKind::Interrupted || kind == ErrorKind::Resource || kind == ErrorKind::Internal;
}

}  // namespace

stage::Job new_job(const Context& context, const std::string& op, const std::string& model) {
  stage::Job job;
  job.op = op;
  const std::string found = recipe::find_model(model, context.around.hf_cache);
  job.model = found.empty() ? "" : std::filesystem::absolute(found).string();
  job.seed = static_cast<std::uint64_t>(context.args.maybe_integer("seed").value_or(0));
  job.device = device(context);
  job.threads = threads(context);
  job.max_ram = max_ram(context);
  if (context.args.has("gemm")) job.gemm = context.args.text("gemm");
  job.cache = context.around.cache.string();
  job.templates = context.around.templates.string();
  return job;
}

const std::filesystem::path& require_engine(const Context& context) {
  if (!context.around.engine.empty()) return context.around.engine;
  throw Error(ErrorKind::Resource, "the program slmc-engine must be beside slmc, but is not there",
              fmt::format("looked for {}; build it with -DSLMC_ENGINE=ON", fmt::join(context.around.engine_tried, " and ")));
}

recipe::Executor make_executor(const Context& context, std::string go_on) {
  return [&context, go_on = std::move(go_on)](const stage::Job& job, const recipe::Sink& sink) {
    try {
      if (is_front_stage(job.op)) return run_front_stage(context, job, sink);
      return run_engine(context, job, sink);
    } catch (const Error& error) {
      if (!deserves_way_on(error.kind())) throw;
      throw with_way_on(error, go_on);
    }
  };
}

Json run_alone(const Context& context, const stage::Job& job) {
  EventLog log(context.term, context.args.text("events"));
  Json result = log.watch([&](const recipe::Sink& sink) { return make_executor(context)(job, sink); });
  result.erase("event");
  return result;
}

std::optional<recipe::EngineFacts> engine_facts(const Context& context, const std::string& gemm) {
  if (context.around.engine.empty()) return std::nullopt;
  stage::Job job = new_job(context, "doctor", "");
  job.gemm = gemm;
  const Json said = run_engine(context, job, [](const Json&) {});
  const auto text = [](const Json& in, const char* key) { return in.value(key, std::string()); };
  return recipe::EngineFacts{.torch = text(said, "torch"), .device = text(said, "device"),
                             .gemm = text(said.value("gemm", Json::object()), "chosen")};
}

}  // namespace slmc::cli
