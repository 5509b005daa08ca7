// diff, log: how two models differ, and where one comes from.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "apps/slmc/commands.h"
#include "apps/slmc/context.h"
#include "apps/slmc/inspect.h"
#include "apps/slmc/output_file.h"
#include "apps/slmc/picture.h"
#include "apps/slmc/registry.h"
#include "apps/slmc/shared_options.h"
#include "core/file.h"
#include "core/units.h"
#include "ir/write.h"
#include "recipe/lineage.h"
#include "recipe/resolve.h"

namespace slmc::cli {
namespace {

// ---- diff ---------------------------------------------------------------------------------------------------------

struct Change {
  std::string what, a, b;
};

void add(std::vector<Change>& out, std::string what, std::string a, std::string b) {
  if (a != b) out.push_back({std::move(what), std::move(a), std::move(b)});
}

std::vector<Change> changes_of(const Summary& a, const Summary& b) {
  std::vector<Change> out;
  const auto number = [](auto x) { return fmt::format("{}", x); };
  add(out, "family", a.family, b.family);
  add(out, "container", a.container, b.container);
  add(out, "parameters", number(a.cost.parameters), number(b.cost.parameters));
  add(out, "file_bytes", number(a.file_bytes), number(b.file_bytes));
  add(out, "blocks", number(a.sizes.blocks.size()), number(b.sizes.blocks.size()));
  add(out, "hidden", number(a.sizes.hidden), number(b.sizes.hidden));
  add(out, "vocab", number(a.sizes.vocab), number(b.sizes.vocab));
  add(out, "pos", number(a.sizes.pos), number(b.sizes.pos));
  for (const auto& [name, axis] : {std::pair{"ffn", &ir::BlockSizes::ffn}, {"kv", &ir::BlockSizes::kv}, {"q", &ir::BlockSizes::q},
                                   {"freq", &ir::BlockSizes::freq}, {"pass", &ir::BlockSizes::pass}, {"vd", &ir::BlockSizes::vd}}) {
    add(out, name, per_block(a.sizes, axis), per_block(b.sizes, axis));
  }
  add(out, "context", number(a.decoder.context), number(b.decoder.context));
  add(out, "tied_head", number(a.decoder.tied_head), number(b.decoder.tied_head));
  add(out, "tokenizer", a.tokenizer_hash.substr(0, 16), b.tokenizer_hash.substr(0, 16));
  for (const TypeShare& s : a.types) {
    const auto same = std::find_if(b.types.begin(), b.types.end(), [&](const TypeShare& t) { return t.type == s.type; });
    add(out, "bytes of " + s.type, number(s.bytes), same == b.types.end() ? "0" : number(same->bytes));
  }
  for (const TypeShare& s : b.types) {
    const auto same = std::find_if(a.types.begin(), a.types.end(), [&](const TypeShare& t) { return t.type == s.type; });
    if (same == a.types.end()) add(out, "bytes of " + s.type, "0", number(s.bytes));
  }
  return out;
}

// 0-3, 5, 9-12
std::string ranges(const std::vector<std::int64_t>& indices) {
  std::vector<std::string> parts;
  for (std::size_t i = 0; i < indices.size();) {
    std::size_t j = i;
    while (j + 1 < indices.size() && indices[j + 1] == indices[j] + 1) ++j;
    parts.push_back(j == i ? std::to_string(indices[i]) : fmt::format("{}-{}", indices[i], indices[j]));
    i = j + 1;
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

Json origin_json(const ir::Origin& origin) {
  Json axes = Json::object();
  for (const auto& [axis, indices] : origin.axes) axes[axis] = indices;
  return {{"ancestor", origin.ancestor}, {"blocks", origin.blocks}, {"axes", axes}};
}

std::string origin_text(const ir::Origin& origin) {
  std::string out;
  if (!origin.blocks.empty()) out += "  blocks kept: " + ranges(origin.blocks) + "\n";
  for (const auto& [axis, indices] : origin.axes) out += fmt::format("  {}: {} kept: {}\n", axis, indices.size(), ranges(indices));
  return out;
}

// Stages that one model has and the other has not.
Json other_stages(const Json& mine, const Json& theirs) {
  std::set<std::string> keys;
  for (const Json& entry : theirs) keys.insert(entry.value("key", std::string()));
  Json out = Json::array();
  for (const Json& entry : mine) {
    if (!keys.count(entry.value("key", std::string()))) out.push_back({{"id", entry["id"]}, {"stage", entry["stage"]}, {"settings", entry["settings"]}});
  }
  return out;
}

std::string stages_text(const char* side, const Json& stages) {
  std::string out;
  for (const Json& s : stages) {
    out += fmt::format("  only {}: {} ({}) {}\n", side, s["id"].get<std::string>(), s["stage"].get<std::string>(), dump_compact(s["settings"]));
  }
  return out;
}

Json weights_json(const std::vector<std::pair<std::string, double>>& differences) {
  Json out = Json::object();
  for (const auto& [name, most] : differences) out[name] = std::isfinite(most) ? Json(most) : Json();
  return out;
}

// The smaller one beside the one that it was cut from; nothing when neither was, or nothing went.
std::string picture(const ir::Model& a, const ir::Model& b) {
  const bool turned = !kept_between(a, b);
  std::optional<report::Kept> kept = turned ? kept_between(b, a) : kept_between(a, b);
  if (!kept || !report::anything_went(*kept)) return {};
  kept->title = turned ? "what is left of B in A" : "what is left of A in B";
  return report::text(*kept);
}

int run_diff(Context& context) {
  const ir::Model a = load_model(context, context.args.text("A")), b = load_model(context, context.args.text("B"));
  const std::vector<Change> changes = changes_of(summarise(a), summarise(b));
  const Json lineage_a = recipe::read_lineage(a.source()), lineage_b = recipe::read_lineage(b.source());
  const Json only_a = other_stages(lineage_a, lineage_b), only_b = other_stages(lineage_b, lineage_a);
  std::vector<std::pair<std::string, double>> weights;
  if (context.args.flag("weights")) weights = ir::compare(a, b);
  if (context.term.json()) {
    Json list = Json::array();
    for (const Change& c : changes) list.push_back({{"what", c.what}, {"a", c.a}, {"b", c.b}});
    context.term.document(context.command, {{"changes", list}, {"origin_a", origin_json(a.origin())}, {"origin_b", origin_json(b.origin())},
                                   {"only_a", only_a}, {"only_b", only_b}, {"weights", weights_json(weights)}});
    return kDone;
  }
  if (changes.empty()) {
    context.term.text("shapes, types and tokenizer are equal");
  } else {
    report::Table table{.titles = {"what", "A", "B"}, .rows = {}, .right = {false, true, true}};
    for (const Change& c : changes) table.rows.push_back({c.what, c.a, c.b});
    context.term.table(table);
  }
  if (const std::string drawn = picture(a, b); !drawn.empty() && !context.args.flag("plain")) context.term.text(drawn);
  const std::string from_a = origin_text(a.origin()), from_b = origin_text(b.origin());
  if (!from_a.empty()) context.term.text("A, by the numbers of its first ancestor\n" + from_a);
  if (!from_b.empty()) context.term.text("B, by the numbers of its first ancestor\n" + from_b);
  const std::string stages = stages_text("A", only_a) + stages_text("B", only_b);
  if (!stages.empty()) context.term.text("stages\n" + stages);
  if (context.args.flag("weights")) {
    report::Table table{.titles = {"tensor", "largest difference"}, .rows = {}, .right = {false, true}};
    for (const auto& [name, most] : weights) table.rows.push_back({name, std::isfinite(most) ? fmt::format("{:.3g}", most) : "only in one"});
    context.term.table(table);
  }
  return kDone;
}

// ---- log ----------------------------------------------------------------------------------------------------------

std::string metrics_text(const Json& entry, const char* when) {
  const Json metrics = entry.value("metrics", Json::object()).value(when, Json::object());
  std::vector<std::string> parts;
  for (const auto& [name, value] : metrics.items()) {
    if (value.is_number()) parts.push_back(fmt::format("{} {:.5g}", name, value.get<double>()));
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::string entry_text(const Json& entry) {
  std::string out = fmt::format("{} ({})  {}\n", entry["id"].get<std::string>(), entry["stage"].get<std::string>(),
                                entry.value("key", std::string()).substr(0, 16));
  out += "    settings  " + dump_compact(entry.value("settings", Json::object())) + "\n";
  const Json inputs = entry.value("inputs", Json::object());        // items() of a temporary would dangle
  for (const auto& [name, input] : inputs.items()) {
    out += fmt::format("    {:<9} {}\n", name, input.value("source", std::string()));
  }
  const std::string before = metrics_text(entry, "before"), after = metrics_text(entry, "after");
  if (!before.empty()) out += "    before    " + before + "\n";
  if (!after.empty()) out += "    after     " + after + "\n";
  const Json measured = entry.value("measured", Json::object());
  if (measured.contains("seconds")) {
    out += fmt::format("    took      {}, {} CPU, peak {}\n", format_seconds(measured.value("seconds", 0.0)), format_seconds(measured.value("cpu_seconds", 0.0)),
                       format_bytes(measured.value("peak_bytes", std::uint64_t{0})));
  }
  const Json versions = entry.value("versions", Json::object());
  out += fmt::format("    made with slmc {}, torch {}, {}, seed {}\n", versions.value("slmc", std::string("?")), versions.value("torch", std::string("?")),
                     versions.value("device", std::string("?")), entry.value("seed", std::uint64_t{0}));
  return out;
}

// Printed, it may be put anywhere: its paths are absolute. Written, those below its folder are relative to that.
void show_recipe(Context& context, const Json& entries) {
  if (!context.args.has("output")) return context.term.text(recipe::recipe_from_lineage(entries, registry(), {}));
  const std::filesystem::path file = std::filesystem::absolute(context.args.text("output"));
  require_free_file(file, context.args.flag("force"));
  write_text(file, recipe::recipe_from_lineage(entries, registry(), file.parent_path()));
  context.term.note(fmt::format("wrote {}; next: slmc plan {}", file.string(), context.args.text("output")));
}

int run_log(Context& context) {
  const std::string where = recipe::find_model(context.args.text("MODEL"), context.around.hf_cache);
  std::error_code code;
  if (!std::filesystem::exists(where, code)) throw Error(ErrorKind::Model, fmt::format("the model {} must exist, but does not", where));
  if (!std::filesystem::is_directory(where, code)) require_file(where, ErrorKind::Model);
  if (context.args.has("output") && !context.args.flag("recipe")) throw Error(ErrorKind::Usage, "the option --output must stand beside --recipe, but stands alone");
  const Json entries = recipe::read_lineage(where);
  if (context.args.flag("recipe")) {
    if (entries.empty()) throw Error(ErrorKind::Model, fmt::format("the model {} must have a lineage, but has none", where), "only models that slmc made have one");
    show_recipe(context, entries);
  } else if (context.term.json()) {
    context.term.document(context.command, {{"model", where}, {"stages", entries}});
  } else if (entries.empty()) {
    context.term.text(fmt::format("{}: no stage of slmc made this model", where));
  } else {
    std::string out;
    for (auto it = entries.rbegin(); it != entries.rend(); ++it) out += (out.empty() ? "" : "\n") + entry_text(*it);
    context.term.text(out);
  }
  return kDone;
}

}  // namespace

Command diff_command() {
  return {.name = "diff",
          .summary = "how two models differ: shapes, bytes, what was kept, stages; with --weights the values",
          .loads = Loads::Headers,
          .run = run_diff,
          .shares = {.json = true, .plain = true},
          .positionals = {{.name = "A", .help = "A model."}, {.name = "B", .help = "Another one."}},
          .options = {flag_option("weights", 0, "Read both and print the largest difference of each tensor.")},
          .examples = {{"slmc diff models/m.gguf out/small.gguf", "what was cut, by block and coordinate"}},
          .json = {{"changes", "what, a, b: only what differs"},
                   {"origin_a", "ancestor, blocks, axes: where A's entries were in its first ancestor"},
                   {"origin_b", "the same for B"},
                   {"only_a", "stages of A's lineage that B's has not: id, stage, settings"},
                   {"only_b", "and the other way"},
                   {"weights", "with --weights: largest absolute difference by tensor, null when only one model has it"}}};
}

Command log_command() {
  return {.name = "log",
          .summary = "where a model comes from, newest stage first",
          .loads = Loads::Headers,
          .run = run_log,
          .shares = {.json = true, .force = true},
          .positionals = {{.name = "MODEL", .help = "A model that slmc made."}},
          .options = {flag_option("recipe", 0, "Print a recipe that makes the same model again, with the evaluation and gates of its run (a GGUF "
                                  "keeps those in the .lineage.json beside it). Its paths are absolute: it works wherever it is put."),
                      path_option("output", 'o', "FILE", "With --recipe: write it here; paths below its folder are then relative to that folder.")},
          .examples = {{"slmc log out/small.gguf", "settings, metrics, time, versions of every stage"},
                       {"slmc log out/small.gguf --recipe -o again.yaml", "a recipe that rebuilds it"}},
          .json = {{"model", "where it is"}, {"stages", "the lineage, oldest first"}}};
}

}  // namespace slmc::cli
