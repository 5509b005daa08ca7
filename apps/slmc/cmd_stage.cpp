// prune, drop, shear, distill, train, quantize: a stage of the registry as a command. Options come from its settings table, and what runs
// is a recipe of one stage.
#include <fmt/format.h>

#include <algorithm>

#include "apps/slmc/command_line.h"
#include "apps/slmc/commands.h"
#include "apps/slmc/driver.h"
#include "apps/slmc/registry.h"
#include "apps/slmc/shared_options.h"
#include "core/text.h"

namespace slmc::cli {
namespace {

namespace fs = std::filesystem;

bool may_need(const stage::StageInfo& info, bool stage::Needs::*what) {
  const auto in = [&](const stage::MethodInfo& m) { return m.needs.*what; };
  return info.needs.*what || std::any_of(info.methods.begin(), info.methods.end(), in);
}

// Sections of data have no form on a command line: settings that take one are for recipes.
std::vector<stage::Setting> command_settings(const stage::StageInfo& info) {
  std::vector<stage::Setting> out;
  for (const stage::Setting& s : info.settings) {
    if (s.type != stage::Type::Data) out.push_back(s);
  }
  return out;
}

std::vector<Option> data_options(const stage::StageInfo& info) {
  const bool calib = may_need(info, &stage::Needs::calib), train = may_need(info, &stage::Needs::train);
  std::vector<Option> out;
  if (calib) out.push_back(repeated(path_option("calib", 0, "FILE", "Calibration text, .jsonl or plain.")));
  if (train) out.push_back(repeated(path_option("train", 0, "FILE", "Training text, .jsonl or plain.")));
  if (calib) out.push_back(integer_option("samples", "Windows of calibration text.", "128", 1, 1 << 24, "windows"));
  if (calib || train) out.push_back(integer_option("seq", "Tokens of a window.", "512", 2, 1 << 20, "tokens"));
  for (Option& option : out) option.group = "Data";
  return out;
}

std::string methods_text(const stage::StageInfo& info) {
  if (info.methods.empty()) return "";
  std::string out = "Methods\n";
  for (const stage::MethodInfo& m : info.methods) {
    const std::string left = fmt::format("  --{} {}", m.setting, m.name);
    const std::string right = m.summary + (m.paper.empty() ? "" : " [" + m.paper + "]");
    out += fmt::format("{:<32}", left);
    for (char c : wrap(right, 66)) out += c == '\n' ? "\n" + std::string(32, ' ') : std::string(1, c);
    out += '\n';
  }
  return out;
}

// `-o model.gguf` says as much as `--to gguf`.
void follow_output(const stage::StageInfo& info, const Arguments& args, std::map<std::string, std::string>& settings) {
  const auto to = std::find_if(info.settings.begin(), info.settings.end(), [](const stage::Setting& s) { return s.name == "to"; });
  if (to == info.settings.end() || settings.count("to")) return;
  const bool gguf = fs::path(args.text("output")).extension() == ".gguf";
  if (gguf && std::find(to->choices.begin(), to->choices.end(), "gguf") != to->choices.end()) settings["to"] = "gguf";
}

recipe::StageRequest request_of(const Context& context, const stage::StageInfo& info) {
  recipe::StageRequest out;
  out.use = info.name;
  out.model = context.args.text("MODEL");
  out.folder = context.around.folder;
  out.seed = static_cast<std::uint64_t>(context.args.integer("seed"));
  for (const stage::Setting& s : command_settings(info)) {
    if (context.args.has(s.name)) out.settings[s.name] = context.args.text(s.name);
  }
  follow_output(info, context.args, out.settings);
  for (const char* which : {"calib", "train"}) {
    if (context.args.has(which)) out.data[which] = context.args.all(which);
  }
  if (const auto samples = context.args.maybe_integer("samples")) out.samples = *samples;
  if (const auto seq = context.args.maybe_integer("seq")) out.seq = *seq;
  return out;
}

// The name of the output must say what is written: a .gguf file, or a folder.
void require_extension(const stage::StageInfo& info, const stage::Settings& settings, const fs::path& output) {
  const std::string container = stage::output_of(info, settings);
  if ((container == "gguf") == (output.extension() == ".gguf")) return;
  if (container == "gguf") {
    throw Error(ErrorKind::Usage, fmt::format("the output of `slmc {}` to gguf must end in .gguf, but is {}", info.name, output.filename().string()));
  }
  throw Error(ErrorKind::Usage, fmt::format("the output of `slmc {}` must be a folder here, but is {}", info.name, output.filename().string()),
              "`slmc convert` makes a GGUF of a folder");
}

int run_stage(Context& context) {
  const stage::StageInfo& info = *registry().find(context.command.name);
  recipe::Recipe recipe = recipe::one_stage_recipe(request_of(context, info), registry());
  if (context.args.flag("print_recipe")) {
    context.term.text(recipe::to_yaml(recipe, context.around.folder));
    return kDone;
  }
  DriveOptions options;
  options.output = fs::absolute(context.args.text("output"));
  require_extension(info, recipe.stages.front().settings, options.output);
  options.plan_only = context.args.flag("dry_run");
  const fs::path work = options.output.parent_path() / ("." + options.output.filename().string() + ".work");
  options.work = work;
  options.go_on = "go on with: slmc " + join_words(context.words);
  options.keeps_work = false;
  if (options.plan_only) return drive(context, std::move(recipe), options);
  const bool was_there = fs::exists(work);                 // of a command that was interrupted, which this one goes on with
  try {
    const int code = drive(context, std::move(recipe), options);
    fs::remove_all(work);                                  // the model is delivered; nothing else was asked for
    return code;
  } catch (const Error&) {
    if (!was_there && !recipe::holds_progress(work)) fs::remove_all(work);
    throw;
  }
}

std::vector<Option> options_for(const stage::StageInfo& info) {
  std::vector<Option> out = {required(path_option("output", 'o', "OUT", "Folder, or .gguf file where the stage can write one, for the result.")),
                             flag_option("print_recipe", 0, "Print the recipe of this one stage and run nothing.")};
  for (Option& option : options_of(command_settings(info), "Settings, as in a recipe's `with`")) out.push_back(std::move(option));
  for (Option& option : data_options(info)) out.push_back(std::move(option));
  return out;
}

std::string example_line(const stage::StageInfo& info) {
  static const std::map<std::string, std::string> known = {
      {"prune", "slmc prune models/m.gguf -o out/narrow --ffn 1280 --calib configs/data/calib.jsonl"},
      {"shear", "slmc shear models/m.gguf -o out/sheared --ffn 1024 --tokens 2M --train configs/data/train/wiki.jsonl"},
      {"drop", "slmc drop models/m.gguf -o out/shallow --layers 3 --calib configs/data/calib.jsonl"},
      {"distill", "slmc distill out/narrow -o out/healed --teacher models/m.gguf --tokens 60k --train configs/data/train/wiki.jsonl"},
      {"train", "slmc train out/narrow -o out/trained --tokens 60k --train configs/data/train/wiki.jsonl"},
      {"quantize", "slmc quantize out/healed -o out/small.gguf --type q4_0 --calib configs/data/calib.jsonl"},
  };
  const auto it = known.find(info.name);
  return it == known.end() ? "" : it->second;
}

}  // namespace

Command stage_command(const stage::StageInfo& info) {
  Command out = {.name = info.name,
                 .summary = info.summary,
                 .loads = Loads::Engine,
                 .run = run_stage,
                 .shares = {.json = true, .plain = true, .device = true, .threads = true, .max_ram = true, .seed = true, .events = true,
                            .dry_run = true, .force = true},
                 .positionals = {{.name = "MODEL", .help = "The model to start from: a Hugging Face folder, a GGUF file, or hf:org/name."}},
                 .options = options_for(info),
                 .json = run_command().json,
                 .details = methods_text(info)};
  if (const std::string line = example_line(info); !line.empty()) {
    out.examples = {{line, "one stage, the result in its own folder or file"}, {line + " --print-recipe", "the recipe that this is"}};
  }
  return out;
}

}  // namespace slmc::cli
