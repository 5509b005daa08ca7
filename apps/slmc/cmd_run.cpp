// run, plan: a whole recipe.
#include "apps/slmc/command_line.h"
#include "apps/slmc/commands.h"
#include "apps/slmc/driver.h"
#include "apps/slmc/registry.h"
#include "apps/slmc/shared_options.h"

namespace slmc::cli {
namespace {

recipe::Keep keep_from(const std::string& word) { return word == "last" ? recipe::Keep::Last : recipe::Keep::All; }

DriveOptions options_of(const Context& context) {
  DriveOptions out;
  out.work = std::filesystem::absolute(context.args.text("work"));
  if (context.args.has("output")) out.output = std::filesystem::absolute(context.args.text("output"));
  out.from = context.args.text("from");
  out.until = context.args.text("until");
  out.force = context.args.all("again");
  out.keep = keep_from(context.args.text("keep"));
  out.plan_only = context.command.name == "plan" || context.args.flag("dry_run");
  out.go_on = "go on with: slmc " + join_words(context.words);
  return out;
}

int run_recipe(Context& context) {
  std::vector<recipe::Recipe> recipes = recipe::read_recipes(context.args.text("RECIPE"), registry(), context.args.all("set"));
  if (recipes.front().variant.empty()) return drive(context, std::move(recipes.front()), options_of(context));
  return drive_sweep(context, std::move(recipes), options_of(context));
}

Positional recipe_positional() { return {.name = "RECIPE", .help = "A recipe in YAML or JSON (`slmc help recipes`)."}; }

Option set_option() {
  return repeated(text_option("set", 0, "KEY=VALUE", "Override a key of the recipe: width.ffn=1280, seed=3, data.calib.samples=64."));
}

Option work_option() {
  Option out = path_option("work", 0, "DIR", "Where stages keep their results; shared by recipes.");
  out.setting.fallback = "work";
  return out;
}

Option from_option() { return text_option("from", 0, "ID", "Start at this stage; those before it must be there."); }
Option until_option() { return text_option("until", 0, "ID", "Stop after this stage."); }

std::vector<JsonField> plan_fields() {
  return {{"name", "the recipe's"}, {"model", "the input model"}, {"input", "container, parameters, bytes (as file_bytes of run), kv_bytes_per_token, sizes"},
          {"stages", "id, use, settings (value and where it comes from), result (as input), key, folder, reused, why, peak_bytes, seconds, assumed"},
          {"disk_bytes", "that a run from here would write"}, {"warnings", "nothing that stops a run"},
          {"variants", "of a sweep, in place of the above but name: values (by swept key), plan (as the above)"}};
}

}  // namespace

Command run_command() {
  return {.name = "run",
          .summary = "run a recipe: every stage, measured, to the last model and its report",
          .loads = Loads::Engine,
          .run = run_recipe,
          .shares = {.json = true, .plain = true, .device = true, .threads = true, .max_ram = true, .events = true, .dry_run = true,
                     .force = true},
          .positionals = {recipe_positional()},
          .options = {path_option("output", 'o', "OUT", "Copy the last model here as well."),
                      work_option(),
                      set_option(),
                      from_option(),
                      until_option(),
                      repeated(text_option("again", 0, "ID", "Run this stage although its result is there; * = every stage.")),
                      choice_option("keep", "Which stage folders stay after success.", "all", {"all", "last"})},
          .examples = {{"slmc run configs/recipes/quickstart.yaml", "drop, prune, distill, quantize; each step measured"},
                       {"slmc run recipe.yaml --set width.ffn=1024 --until width", "another width, and stop there"},
                       {"slmc run recipe.yaml --set 'sweep.width.ffn=[1280, 1024]'", "the chain for each width, one table and one picture"},
                       {"slmc run recipe.yaml -n", "what would happen: shapes, bytes, memory, what is there already"}},
          .json = {{"recipe", "its name"},
                   {"rows", "input and stages: id, use, path, container, parameters, file_bytes (the GGUF file, or the folder's .safetensors files), "
                            "reused, key, metrics, seconds, cpu_seconds, peak_bytes"},
                   {"gates", "metric, min, max, value, met"},
                   {"gates_met", "false gives exit code 3"},
                   {"output", "the last model"},
                   {"report", "the HTML report, or empty"},
                   {"warnings", "nothing that stopped the run"},
                   {"seconds", "of the whole run"},
                   {"variants", "of a sweep, in place of the above but recipe, report, seconds and gates_met: values (by swept key), run (as the above)"},
                   {"csv", "of a sweep: every variant's numbers, beside the report; or empty"}}};
}

Command plan_command() {
  return {.name = "plan",
          .summary = "check a recipe and show what a run would do (= run -n)",
          .loads = Loads::Engine,
          .run = run_recipe,
          .shares = {.json = true, .plain = true, .device = true, .threads = true, .max_ram = true},
          .positionals = {recipe_positional()},
          .options = {work_option(), set_option(), from_option(), until_option()},
          .examples = {{"slmc plan configs/recipes/quickstart.yaml", "shapes, bytes, memory and time of every stage"},
                       {"slmc plan recipe.yaml --json", "the same for scripts"}},
          .json = plan_fields()};
}

}  // namespace slmc::cli
