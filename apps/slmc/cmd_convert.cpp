// convert, edit: the stages that compute nothing, straight from model to output without a recipe.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "apps/slmc/commands.h"
#include "apps/slmc/event_log.h"
#include "apps/slmc/executor.h"
#include "apps/slmc/front_stages.h"
#include "apps/slmc/inspect.h"
#include "apps/slmc/output_file.h"
#include "apps/slmc/shared_options.h"
#include "core/units.h"
#include "ir/plan.h"

namespace slmc::cli {
namespace {

namespace fs = std::filesystem;

// The settings as typed; the output's name says the container.
stage::Settings settings_of(const Context& context, const stage::StageInfo& info) {
  Json given = Json::object();
  for (const stage::Setting& s : info.settings) {
    if (context.args.has(s.name)) given[s.name] = context.args.text(s.name);
  }
  given["to"] = container_of(context.args.text("output"));
  std::vector<Diagnostic> problems;
  stage::Settings out = stage::parse_settings(info.settings, given, [](std::string_view) { return Place{}; }, problems);
  if (!problems.empty()) throw Error(ErrorKind::Usage, std::move(problems));
  return out;
}

void show_made(Context& context, const fs::path& output) {
  const Summary made = summarise(load_model(context, output.string()));
  if (context.term.json()) {
    context.term.document(context.command, {{"output", output.string()}, {"container", made.container},
                                                 {"parameters", made.cost.parameters}, {"file_bytes", made.file_bytes}});
  } else {
    context.term.text(fmt::format("{}: {}, {} parameters, {}", output.string(), made.container, format_count(static_cast<std::uint64_t>(made.cost.parameters)),
                                  format_bytes(made.file_bytes)));
  }
}

void show_dry(Context& context, const ir::Verdict& verdict) {
  std::string out;
  for (const auto& [container, why] : verdict.cannot) {
    for (const ir::Violation& v : why) out += fmt::format("{} can't hold the result: {}\n", container, v.message);
  }
  context.term.text(out.empty() ? "every container can hold the result" : out);
}

int run_front(Context& context) {
  const stage::StageInfo& info = context.command.name == "edit" ? edit_info() : convert_info();
  stage::Job job;
  job.op = info.name;
  job.model = context.args.text("MODEL");
  job.settings = settings_of(context, info);
  const fs::path output = context.args.text("output");
  if (context.args.flag("dry_run")) {
    const ir::Model model = load_model(context, job.model);
    const ir::Plan plan = info.name == "edit" ? ir::read_plan(job.settings.text("plan")) : ir::Plan(model);
    const ir::Verdict verdict = ir::check(plan, model);
    ir::require_ok(verdict, job.settings.text("to"));
    show_dry(context, verdict);
    return kDone;
  }
  EventLog log(context.term, context.args.text("events"));
  write_whole(output, context.args.flag("force"), [&](const fs::path& path) {
    job.out = path.string();
    run_front_stage(context, job, [&](const Json& event) { log.see(event); });
  });
  context.term.end_progress();
  show_made(context, output);
  return kDone;
}

// Without `to`: the output's name says it.
std::vector<Option> options_for(const stage::StageInfo& info) {
  std::vector<Option> out = {required(path_option("output", 'o', "OUT", "A folder, or a file whose name ends in .gguf."))};
  for (Option& option : options_of(info.settings, "")) {
    if (option.setting.name != "to") out.push_back(std::move(option));
  }
  return out;
}

std::vector<JsonField> made_fields() {
  return {{"output", "what was written"}, {"container", "hf or gguf"}, {"parameters", "of the result"}, {"file_bytes", "of the GGUF file, or of the folder's .safetensors files"}};
}

}  // namespace

Command convert_command() {
  return {.name = "convert",
          .summary = convert_info().summary,
          .loads = Loads::Headers,
          .run = run_front,
          .shares = {.json = true, .threads = true, .events = true, .dry_run = true, .force = true},
          .positionals = {{.name = "MODEL", .help = "A Hugging Face folder, a GGUF file, or hf:org/name."}},
          .options = options_for(convert_info()),
          .examples = {{"slmc convert model.gguf -o folder", "a Hugging Face folder, values exactly those of the file"},
                       {"slmc convert folder -o model.gguf --type q8_0", "a GGUF file that llama.cpp loads"}},
          .json = made_fields()};
}

Command edit_command() {
  return {.name = "edit",
          .summary = edit_info().summary,
          .loads = Loads::Headers,
          .run = run_front,
          .shares = {.json = true, .threads = true, .events = true, .dry_run = true, .force = true},
          .positionals = {{.name = "MODEL", .help = "The model that the plan is for, or one of the same shape."}},
          .options = options_for(edit_info()),
          .examples = {{"slmc edit model.gguf --plan plan.json -o smaller", "what a stage decided, or you did"},
                       {"slmc edit model.gguf --plan plan.json -o smaller.gguf -n", "check only: who can hold the result?"}},
          .json = made_fields()};
}

}  // namespace slmc::cli
