#include "apps/slmc/driver.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <ctime>
#include <nlohmann/json.hpp>

#include "apps/slmc/build_info.h"
#include "apps/slmc/event_log.h"
#include "apps/slmc/executor.h"
#include "apps/slmc/output_file.h"
#include "apps/slmc/picture.h"
#include "core/file.h"
#include "core/units.h"
#include "recipe/lineage.h"
#include "report/html.h"

namespace slmc::cli {
namespace {

std::string limit_text(const recipe::Gate& gate) {
  std::vector<std::string> parts;
  if (gate.least) parts.push_back("at least " + report::metric_text(gate.metric, *gate.least));
  if (gate.most) parts.push_back("at most " + report::metric_text(gate.metric, *gate.most));
  return fmt::format("{}", fmt::join(parts, ", "));
}

report::Report report_of(const Context& context, const recipe::Chain& chain, const recipe::RunResult& result) {
  report::Report out;
  out.name = chain.recipe.name;
  out.finished = local_time();
  out.seconds = result.seconds;
  for (const recipe::Row& row : result.rows) out.rows.push_back(report_row(row));
  for (const recipe::GateResult& g : result.gates) {
    out.gates.push_back({.metric = g.gate.metric, .limit = limit_text(g.gate),
                         .value = g.value ? report::metric_text(g.gate.metric, *g.value) : "not measured", .met = g.met, .least = g.gate.least,
                         .most = g.gate.most});
  }
  out.environment = environment_lines(result.facts);
  out.recipe = chain.recipe.text;
  out.warnings = result.warnings;
  if (!chain.recipe.report.empty() && !chain.input.blank) {
    out.kept = kept_between(load_model(context, chain.model_path), load_model(context, result.output.string()));
    if (out.kept) out.kept->title = fmt::format("what is left of '{}' in '{}'", chain.input.id, result.rows.back().artefact.id);
  }
  return out;
}

void write_report(const recipe::Chain& chain, const recipe::RunResult& result, report::Report report) {
  if (chain.recipe.report.empty()) return;
  const Json lineage = recipe::read_lineage(result.output);
  report.lineage = &lineage;
  std::filesystem::create_directories(chain.recipe.report.parent_path());
  write_text(chain.recipe.report, report::html(report));
}

Json row_json(const recipe::Row& row) {
  Json metrics = Json::object();
  for (const auto& [name, value] : row.metrics) metrics[name] = value;
  return {{"id", row.artefact.id}, {"use", row.use}, {"path", row.path.string()}, {"container", row.artefact.container},
          {"parameters", row.artefact.parameters}, {"file_bytes", row.file_bytes}, {"reused", row.reused}, {"key", row.key},
          {"metrics", metrics}, {"seconds", row.seconds}, {"cpu_seconds", row.cpu_seconds}, {"peak_bytes", row.peak_bytes}};
}

Json gate_json(const recipe::GateResult& g) {
  const auto number = [](const std::optional<double>& x) { return x ? Json(*x) : Json(); };
  return {{"metric", g.gate.metric}, {"min", number(g.gate.least)}, {"max", number(g.gate.most)}, {"value", number(g.value)}, {"met", g.met}};
}

void show_result(Context& context, const recipe::Chain& chain, const recipe::RunResult& result, const report::Report& report) {
  if (context.term.json()) {
    context.term.document(context.command, run_json(chain, result));
    return;
  }
  context.term.table(report::run_table(report));
  for (const report::ReportGate& g : report.gates) {
    const std::string line = fmt::format("gate {}: {} ({}), {}", g.metric, g.value, g.limit, g.met ? "met" : "not met");
    g.met ? context.term.note(line) : context.term.warning(line);        // with -q too: it is why the exit code is 3
  }
  context.term.note(fmt::format("done in {}: {}", format_seconds(result.seconds), result.output.string()));
  if (!chain.recipe.report.empty()) context.term.note(fmt::format("report: {}", chain.recipe.report.string()));
}

std::string bytes_text(std::uint64_t bytes) { return bytes == 0 ? "" : format_bytes(bytes); }

std::vector<std::string> plan_row(const recipe::Artefact& a, const std::string& use, const recipe::StageForecast* stage) {
  const std::string about = a.exact ? "" : "~";
  return {a.id, use, a.container, about + format_count(static_cast<std::uint64_t>(a.parameters)), about + format_bytes(static_cast<std::uint64_t>(a.bytes)),
          stage ? bytes_text(stage->peak_bytes) : "", stage && stage->seconds > 0 ? format_seconds(stage->seconds) : "",
          stage ? (stage->reused ? "there already" : stage->why) : ""};
}

std::string remarks(const recipe::Artefact& a) {
  std::string out;
  for (const auto& [container, why] : a.cannot) out += fmt::format("  {}: no {}, because {}\n", a.id, container, why);
  return out;
}

// What a run would leave of the input's blocks and widths; nothing when shapes stay.
std::string picture(const recipe::Chain& chain) {
  if (chain.stages.empty()) return {};
  const recipe::Artefact& last = chain.stages.back().out;
  report::Kept kept = kept_of(chain.input.shape, last.shape, last.blocks, last.blocks_known);
  if (!report::anything_went(kept)) return {};
  kept.title = fmt::format("what would be left of '{}' in '{}'{}", chain.input.id, last.id,
                           !last.blocks_known ? "; which blocks go is measured" : last.exact ? "" : "; some sizes are measured and assumed here");
  return "\n" + report::text(kept);
}

void show_plan(Context& context, const recipe::Chain& chain) {
  if (context.term.json()) {
    context.term.document(*find_command("plan"), recipe::to_json(chain));
    return;
  }
  context.term.text(plan_text(chain, context.args.flag("plain")));
}

}  // namespace

recipe::Environment environment(const Context& context, const DriveOptions& options) {
  const std::string kept = recipe::kept_gemm(options.work, device(context));
  const std::string asked = context.args.text("gemm");
  return {.hf_cache = context.around.hf_cache, .templates = context.around.templates, .work = options.work,
          .facts = engine_facts(context, asked != "auto" || kept.empty() ? asked : kept), .threads = threads(context)};
}

recipe::RunOptions run_options(const Context& context, const DriveOptions& options) {
  recipe::RunOptions out;
  out.work = options.work;
  out.cache = context.around.cache.empty() ? options.work / "cache" : context.around.cache;
  out.output = options.output;
  out.replace_output = context.args.flag("force");
  out.from = options.from;
  out.until = options.until;
  out.force = options.force;
  out.keep = options.keep;
  out.device = device(context);
  out.threads = threads(context);
  out.max_ram = max_ram(context);
  return out;
}

std::string local_time() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm parts{};
  localtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M", &parts);
  return text;
}

report::ReportRow report_row(const recipe::Row& row) {
  report::ReportRow out{.id = row.artefact.id, .use = row.use, .container = row.artefact.container, .reused = row.reused,
                        .parameters = static_cast<double>(row.artefact.parameters), .file_bytes = static_cast<double>(row.file_bytes),
                        .metrics = row.metrics, .path = row.path.string()};
  if (!row.use.empty()) out.seconds = row.seconds;
  if (row.peak_bytes) out.peak_bytes = static_cast<double>(row.peak_bytes);
  return out;
}

std::vector<std::pair<std::string, std::string>> environment_lines(const recipe::EngineFacts& facts) {
  const BuildInfo build = build_info();
  return {{"slmc", build.version + " (" + build.revision + ")"}, {"torch", facts.torch}, {"device", facts.device}, {"kernel path", facts.gemm}};
}

Json run_json(const recipe::Chain& chain, const recipe::RunResult& result) {
  Json rows = Json::array(), gates = Json::array();
  for (const recipe::Row& row : result.rows) rows.push_back(row_json(row));
  for (const recipe::GateResult& gate : result.gates) gates.push_back(gate_json(gate));
  return {{"recipe", chain.recipe.name}, {"rows", rows}, {"gates", gates}, {"gates_met", result.gates_met},
          {"output", result.output.string()}, {"report", chain.recipe.report.string()}, {"warnings", result.warnings},
          {"seconds", result.seconds}};
}

std::string plan_text(const recipe::Chain& chain, bool plain) {
  report::Table table{.titles = {"id", "stage", "as", "parameters", "bytes", "memory", "time", "would run because"}, .rows = {},
                      .right = {false, false, false, true, true, true, true, false}};
  table.rows.push_back(plan_row(chain.input, "", nullptr));
  std::string notes = remarks(chain.input);
  for (std::size_t i = 0; i < chain.stages.size(); ++i) {
    const recipe::StageForecast& stage = chain.stages[i];
    table.rows.push_back(plan_row(stage.out, chain.recipe.stages[i].use, &stage));
    for (const std::string& assumed : stage.assumed) notes += fmt::format("  {}: {}\n", stage.out.id, assumed);
    notes += remarks(stage.out);
  }
  std::string out = report::render(table, {.plain = plain});
  if (!out.empty() && out.back() != '\n') out += '\n';
  if (plain) return out;
  if (!notes.empty()) out += "\n" + notes;
  out += picture(chain);
  return chain.environment.facts ? out + fmt::format("\ndisk needed: {}\n", format_bytes(chain.disk_bytes)) : out;
}

int drive(Context& context, recipe::Recipe recipe, const DriveOptions& options) {
  const recipe::Environment around = environment(context, options);
  if (!options.plan_only) {
    require_engine(context);
    if (!options.output.empty()) require_free(options.output, context.args.flag("force"));
  }
  recipe::Chain chain = recipe::resolve(std::move(recipe), around);
  for (const std::string& warning : chain.warnings) context.term.warning(warning);
  if (options.plan_only) {
    recipe::keep_first(chain, recipe::check_run(chain, run_options(context, options)).size());
    if (!around.facts) context.term.warning("there is no engine beside slmc: nothing can be said about results that are there already");
    show_plan(context, chain);
    return kDone;
  }
  EventLog log(context.term, context.args.text("events"));
  recipe::RunResult result;
  log.watch([&](const recipe::Sink& sink) {
    const auto began = std::chrono::steady_clock::now();
    result = recipe::run(chain, run_options(context, options), make_executor(context, options.go_on), sink);
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    if (!options.keeps_work) result.rows.back().path = result.output;
    return run_json(chain, result);
  });
  const report::Report report = report_of(context, chain, result);
  write_report(chain, result, report);
  show_result(context, chain, result, report);
  return result.gates_met ? kDone : kGateNotMet;
}

}  // namespace slmc::cli
