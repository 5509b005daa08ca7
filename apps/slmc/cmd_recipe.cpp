// recipe check, recipe schema, recipe init: recipes as text, nothing is opened but the recipe.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "apps/slmc/commands.h"
#include "apps/slmc/context.h"
#include "apps/slmc/output_file.h"
#include "apps/slmc/registry.h"
#include "apps/slmc/shared_options.h"
#include "core/file.h"
#include "recipe/recipe.h"

namespace slmc::cli {
namespace {

int run_check(Context& context) {
  const std::vector<recipe::Recipe> variants = recipe::read_recipes(context.args.text("FILE"), registry(), context.args.all("set"));
  const recipe::Recipe& recipe = variants.front();
  if (context.term.json()) {
    Json stages = Json::array();
    for (const recipe::StageEntry& entry : recipe.stages) {
      stages.push_back({{"id", entry.id}, {"use", entry.use}, {"settings", stage::to_json(entry.settings)}});
    }
    context.term.document(context.command, {{"name", recipe.name}, {"model", recipe.model}, {"stages", stages}, {"variants", variants.size()}});
  } else {
    const std::string each = recipe.variant.empty() ? "" : fmt::format(" for each of {} combinations", variants.size());
    context.term.text(fmt::format("{}: {} stages{}, nothing wrong; `slmc plan` follows shapes and bytes too", recipe.file, recipe.stages.size(), each));
  }
  return kDone;
}

int run_schema(Context& context) {
  context.term.text(recipe::recipe_schema(registry()).dump(2));
  return kDone;
}

// A recipe's paths are relative to its folder, a command line's to where one stands.
std::string seen_from(const std::string& model, const std::string& file) {
  if (file.empty() || model.starts_with("hf:") || std::filesystem::path(model).is_absolute()) return model;
  return std::filesystem::absolute(model).lexically_proximate(std::filesystem::absolute(file).parent_path()).string();
}

int run_init(Context& context) {
  const std::string file = context.args.text("output");
  const std::string text = recipe::starter_recipe(seen_from(context.args.text("MODEL"), file));
  if (file.empty()) {
    context.term.text(text);
    return kDone;
  }
  require_free_file(file, context.args.flag("force"));
  write_text(file, text);
  context.term.note(fmt::format("wrote {}; next: name your texts in it, then slmc plan {}", file, file));
  return kDone;
}

}  // namespace

Command recipe_check_command() {
  return {.name = "recipe check",
          .summary = "find every mistake of a recipe, with its place",
          .run = run_check,
          .shares = {.json = true},
          .positionals = {{.name = "FILE", .help = "A recipe in YAML or JSON."}},
          .options = {repeated(text_option("set", 0, "KEY=VALUE", "Override a key before checking."))},
          .examples = {{"slmc recipe check configs/recipes/quickstart.yaml", "exit code 2 and a caret under each mistake"}},
          .json = {{"name", "the recipe's"}, {"model", "where the input is"}, {"stages", "id, use, settings with defaults filled in, of a sweep's first combination"}, {"variants", "combinations of a sweep; 1 without"}}};
}

Command recipe_schema_command() {
  return {.name = "recipe schema",
          .summary = "print the JSON Schema of recipes, for editors",
          .run = run_schema,
          .examples = {{"slmc recipe schema", "point your editor's YAML plug-in at it"}}};
}

Command recipe_init_command() {
  return {.name = "recipe init",
          .summary = "write a recipe to start from",
          .run = run_init,
          .shares = {.force = true},
          .positionals = {{.name = "MODEL", .help = "The model that it is for."}},
          .options = {path_option("output", 'o', "FILE", "Write it here instead of printing it.")},
          .examples = {{"slmc recipe init models/m.gguf -o recipe.yaml", "then edit it, and `slmc plan recipe.yaml`"}}};
}

}  // namespace slmc::cli
