// A sweep: the chain of a recipe for every combination of the swept values.
#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <set>

#include "apps/slmc/driver.h"
#include "apps/slmc/event_log.h"
#include "apps/slmc/executor.h"
#include "apps/slmc/output_file.h"
#include "core/file.h"
#include "core/units.h"
#include "report/sweep.h"

namespace slmc::cli {
namespace {

using Values = std::vector<std::pair<std::string, std::string>>;

std::string text_of(const Values& values) {
  std::string out;
  for (const auto& [key, value] : values) out += fmt::format("{}{} {}", out.empty() ? "" : ", ", key, value);
  return out;
}

Json json_of(const Values& values) {
  Json out = Json::object();
  for (const auto& [key, value] : values) out[key] = value;
  return out;
}

std::filesystem::path csv_of(const recipe::Recipe& recipe) {
  return recipe.report.empty() ? recipe.report : std::filesystem::path(recipe.report).replace_extension(".csv");
}

// All chains, checked before anything runs.
std::vector<recipe::Chain> resolve_all(Context& context, std::vector<recipe::Recipe> recipes, const recipe::Environment& around) {
  std::vector<recipe::Chain> chains;
  std::set<std::string> said;
  for (recipe::Recipe& recipe : recipes) {
    const Values variant = recipe.variant;
    try {
      chains.push_back(recipe::resolve(std::move(recipe), around));
    } catch (Error& error) {
      error.while_doing("with " + text_of(variant));
      throw;
    }
    for (const std::string& warning : chains.back().warnings) {
      if (said.insert(warning).second) context.term.warning(warning);
    }
  }
  return chains;
}

// Stages whose result no chain before had, and which are not there already.
std::size_t new_stages(const recipe::Chain& chain, std::set<std::string>& known) {
  std::size_t out = 0;
  for (const recipe::StageForecast& stage : chain.stages) out += !stage.reused && (stage.key.empty() || known.insert(stage.key).second);
  return out;
}

void show_plans(Context& context, const std::vector<recipe::Chain>& chains) {
  if (context.term.json()) {
    Json variants = Json::array();
    for (const recipe::Chain& chain : chains) variants.push_back({{"values", json_of(chain.recipe.variant)}, {"plan", recipe::to_json(chain)}});
    context.term.document(*find_command("plan"), {{"name", chains.front().recipe.name}, {"variants", variants}});
    return;
  }
  report::Table table;
  for (const auto& [key, value] : chains.front().recipe.variant) table.titles.push_back(key);
  const std::size_t words = table.titles.size();
  table.titles.insert(table.titles.end(), {"as", "parameters", "bytes", "memory", "time", "stages to run"});
  std::set<std::string> known;
  std::uint64_t disk = 0;
  for (const recipe::Chain& chain : chains) {
    std::vector<std::string> cells;
    for (const auto& [key, value] : chain.recipe.variant) cells.push_back(value);
    const recipe::Artefact& last = chain.stages.back().out;
    std::uint64_t memory = 0;
    double seconds = 0;
    for (const recipe::StageForecast& stage : chain.stages) {
      memory = std::max(memory, stage.peak_bytes), seconds += stage.seconds;
      if (!stage.reused && !known.contains(stage.key)) disk += static_cast<std::uint64_t>(stage.out.bytes);
    }
    const std::size_t fresh = new_stages(chain, known);
    const std::string about = last.exact ? "" : "~";
    cells.insert(cells.end(), {last.container, about + format_count(static_cast<std::uint64_t>(last.parameters)), about + format_bytes(static_cast<std::uint64_t>(last.bytes)),
                               format_bytes(memory), seconds > 0 ? format_seconds(seconds) : "", fmt::format("{} of {}", fresh, chain.stages.size())});
    table.rows.push_back(std::move(cells));
  }
  table.right.assign(table.titles.size(), true);
  for (std::size_t i = 0; i <= words; ++i) table.right[i] = false;
  context.term.table(table);
  context.term.note(fmt::format("{} combinations; --json has the stages of each", chains.size()));
  if (chains.front().environment.facts) context.term.note(fmt::format("disk needed: {}", format_bytes(disk)));
}

struct Sweep {
  report::SweepReport report;
  Json variants = Json::array();
  bool gates_met = true;
};

void add_result(Sweep& sweep, const recipe::Chain& chain, const recipe::RunResult& result) {
  report::SweepRow row;
  for (const auto& [key, value] : chain.recipe.variant) row.values.push_back(value);
  row.last = report_row(result.rows.back());
  row.last.path = result.output.string();
  double seconds = 0;
  for (const recipe::Row& r : result.rows) {
    seconds += r.seconds;
    if (r.peak_bytes) row.last.peak_bytes = std::max(row.last.peak_bytes.value_or(0), static_cast<double>(r.peak_bytes));
  }
  row.last.seconds = seconds;
  sweep.report.rows.push_back(std::move(row));
  sweep.report.environment = environment_lines(result.facts);
  sweep.gates_met = sweep.gates_met && result.gates_met;
  sweep.variants.push_back({{"values", json_of(chain.recipe.variant)}, {"run", run_json(chain, result)}});
}

void write_reports(const recipe::Recipe& recipe, const report::SweepReport& report) {
  if (recipe.report.empty()) return;
  std::filesystem::create_directories(recipe.report.parent_path());
  write_text(recipe.report, report::html(report));
  write_text(csv_of(recipe), report::sweep_csv(report));
}

Json sweep_json(const Sweep& sweep, const recipe::Recipe& recipe) {
  return {{"recipe", recipe.name}, {"variants", sweep.variants}, {"gates_met", sweep.gates_met}, {"report", recipe.report.string()},
          {"csv", csv_of(recipe).string()}, {"seconds", sweep.report.seconds}};
}

void show_result(Context& context, const Sweep& sweep, const recipe::Recipe& recipe) {
  if (context.term.json()) {
    context.term.document(context.command, sweep_json(sweep, recipe));
    return;
  }
  context.term.table(report::sweep_table(sweep.report));
  for (const Json& variant : sweep.variants) {
    if (!variant["run"]["gates_met"].get<bool>()) context.term.warning(fmt::format("a gate is not met with {}", dump_compact(variant["values"])));
  }
  context.term.note(fmt::format("done in {}: {} combinations", format_seconds(sweep.report.seconds), sweep.report.rows.size()));
  if (!recipe.report.empty()) context.term.note(fmt::format("report: {}, numbers: {}", recipe.report.string(), csv_of(recipe).string()));
}

void refuse_output(const DriveOptions& options) {
  if (options.output.empty()) return;
  throw Error(ErrorKind::Usage, "the option --output must name one model, but a sweep makes many", "they stay in the work folder; the CSV names their paths");
}

}  // namespace

int drive_sweep(Context& context, std::vector<recipe::Recipe> recipes, const DriveOptions& options) {
  refuse_output(options);
  const recipe::Environment around = environment(context, options);
  if (!options.plan_only) require_engine(context);
  std::vector<recipe::Chain> chains = resolve_all(context, std::move(recipes), around);
  const recipe::RunOptions how = run_options(context, options);
  for (recipe::Chain& chain : chains) {
    const std::size_t stages = recipe::check_run(chain, how).size();
    if (options.plan_only) recipe::keep_first(chain, stages);
  }
  if (options.plan_only) {
    if (!around.facts) context.term.warning("there is no engine beside slmc: nothing can be said about results that are there already");
    show_plans(context, chains);
    return kDone;
  }
  Sweep sweep;
  const recipe::Recipe& first = chains.front().recipe;
  sweep.report.name = first.name;
  sweep.report.recipe = first.text;
  for (const auto& [key, value] : first.variant) sweep.report.keys.push_back(key);
  EventLog log(context.term, context.args.text("events"));
  log.watch([&](const recipe::Sink& sink) {
    const auto began = std::chrono::steady_clock::now();
    for (std::size_t i = 0; i < chains.size(); ++i) {
      sink({{"event", "note"}, {"text", fmt::format("{} of {}: {}", i + 1, chains.size(), text_of(chains[i].recipe.variant))},
            {"values", json_of(chains[i].recipe.variant)}});
      add_result(sweep, chains[i], recipe::run(chains[i], how, make_executor(context, options.go_on), sink));
    }
    sweep.report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    return sweep_json(sweep, first);
  });
  sweep.report.finished = local_time();
  write_reports(first, sweep.report);
  show_result(context, sweep, first);
  return sweep.gates_met ? kDone : kGateNotMet;
}

}  // namespace slmc::cli
