#include "recipe/walk.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/units.h"
#include "io/ggml_types.h"
#include "ir/cost.h"
#include "ir/plan.h"
#include "ir/template.h"
#include "ir/vocabulary.h"
#include "ir/write.h"
#include "recipe/targets.h"

namespace slmc::recipe {
using stage::Effect;
using stage::Value;

namespace {

constexpr std::int64_t kVocabularyMultiple = 64;  // of rows of the head: what matrix kernels like, and GPUs most of all
constexpr std::int64_t kUsualBlock = 32;  // rows of the common block types

Place place_of(const StageEntry& entry, const std::string& setting) {
  const auto it = entry.places.find(setting);
  return it == entry.places.end() ? entry.place : it->second;
}

std::vector<std::int64_t> first(std::int64_t n) {
  std::vector<std::int64_t> out(static_cast<std::size_t>(n));
  std::iota(out.begin(), out.end(), 0);
  return out;
}

// Weights that share a scale in what this stage writes: the block of the GGUF type, or the group of a packed
// one. 0 = not known.
std::int64_t group_of(const StageEntry& entry) {
  const std::string container = stage::output_of(*entry.info, entry.settings);
  if (container == "packed") return given(entry, "group") ? entry.settings.integer("group") : 0;
  if (!given(entry, "type") || container != "gguf") return 0;
  const io::GgmlTypeInfo* type = io::ggml_type(std::string_view(entry.settings.text("type")));
  return type ? static_cast<std::int64_t>(type->block) : 0;
}

// Lengths of the rows that a quantizer cuts into groups: input widths of every matrix inside the blocks.
std::vector<std::int64_t> row_lengths(const ir::Model& model) {
  std::vector<std::int64_t> out;
  for (const ir::TensorSpec& t : model.tensors()) {
    if (t.block >= 0 && t.shape.size() == 2 && !t.derived) out.push_back(t.shape[1]);
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

void set_auto(StageEntry& entry, const std::string& setting, std::int64_t value) {
  entry.settings.set(setting, {.value = value, .from = Value::From::Auto});
}

// `auto` that follows from shapes: align from the quantizer that comes later, group from the row lengths.
void resolve_autos(Recipe& recipe, std::size_t i, const ir::Model& model) {
  StageEntry& entry = recipe.stages[i];
  if (entry.settings.is_auto("align")) {
    std::int64_t align = kUsualBlock;
    for (std::size_t later = i + 1; later < recipe.stages.size(); ++later) {
      if (recipe.stages[later].info->quantizes)
        align = std::lcm(align, std::max<std::int64_t>(group_of(recipe.stages[later]), 1));
    }
    set_auto(entry, "align", align);
  }
  if (entry.settings.is_auto("group") && entry.info->quantizes &&
      stage::output_of(*entry.info, entry.settings) != "gguf") {
    const std::vector<std::int64_t> rows = row_lengths(model);
    for (const std::int64_t group : {128, 64, 32, 16}) {
      if (std::all_of(rows.begin(), rows.end(), [&](std::int64_t n) { return n % group == 0; })) {
        set_auto(entry, "group", group);
        break;
      }
    }
  }
}

// The largest size of an axis over the blocks.
std::int64_t size_of(const ir::Model& model, const std::string& axis) {
  if (axis == "vocab" || axis == "hidden" || axis == "block") return model.sizes().of(axis);
  std::int64_t most = 0;
  for (std::int64_t b = 0; b < model.blocks(); ++b) most = std::max(most, model.sizes().of(axis, b));
  return most;
}

void check_align(const StageEntry& entry, const Effect& effect, std::int64_t size, Problems& problems) {
  if (effect.axis != "ffn" || !given(entry, "align")) return;
  const std::int64_t align = entry.settings.integer("align");
  if (align <= 1 || size % align == 0) return;
  const std::int64_t below = std::max(size / align * align, align);
  problems.push_back({fmt::format("the setting '{}' must be a multiple of {} (align), but is {}",
                                  effect.setting, align, size),
                      place_of(entry, effect.setting),
                      fmt::format("nearest: {} and {}", below, below + align)});
}

void resize(const StageEntry& entry, const Effect& effect, const Walk& walk, ir::Plan& plan,
            Problems& problems) {
  const std::int64_t size = entry.settings.integer(effect.setting), most = size_of(walk.model, effect.axis);
  if (size > most) {
    problems.push_back({fmt::format("the setting '{}' must be at most {}, what '{}' has, but is {}",
                                    effect.setting, most, walk.at.id, size),
                        place_of(entry, effect.setting),
                        {}});
    return;
  }
  check_align(entry, effect, size, problems);
  if (effect.axis == "hidden" || effect.axis == "block") {
    plan.take[effect.axis] = first(size);
    return;
  }
  if (effect.axis == "vocab") {
    if (size != most && size % kVocabularyMultiple != 0) {
      const std::int64_t below = std::max(size / kVocabularyMultiple * kVocabularyMultiple, kVocabularyMultiple);
      problems.push_back({fmt::format("the setting '{}' must be a multiple of {}, but is {}", effect.setting, kVocabularyMultiple, size),
                          place_of(entry, effect.setting), fmt::format("nearest: {} and {}", below, below + kVocabularyMultiple)});
    }
    try {
      plan.take[effect.axis] = ir::first_tokens(walk.model, size);
    } catch (const Error& error) {
      problems.push_back({error.message(), place_of(entry, effect.setting), {}});
    }
    return;
  }
  for (std::int64_t b = 0; b < walk.model.blocks(); ++b) {
    if (walk.model.sizes().of(effect.axis, b) <= size) continue;
    if (effect.axis != "q") {
      plan.take[fmt::format("block.{}.{}", b, effect.axis)] = first(size);
      continue;
    }
    for (std::int64_t g = 0; g < walk.model.sizes().of("kv", b); ++g) plan.take[fmt::format("block.{}.kv.{}.q", b, g)] = first(size);
  }
}

// The shapes of merged groups: the first of each run of neighbours stays, with as many query heads as all of them have. Stands behind the
// effect on query heads.
void merge(const StageEntry& entry, const Effect& effect, const Walk& walk, ir::Plan& plan, Problems& problems) {
  const std::int64_t groups = entry.settings.integer(effect.setting), most = size_of(walk.model, effect.axis);
  if (groups > most) {
    problems.push_back({fmt::format("the setting '{}' must be at most {}, what '{}' has, but is {}", effect.setting, most, walk.at.id, groups),
                        place_of(entry, effect.setting), {}});
    return;
  }
  for (std::int64_t b = 0; b < walk.model.blocks(); ++b) {
    const std::int64_t all = walk.model.sizes().of(effect.axis, b);
    if (all <= groups) continue;
    if (all % groups != 0) {
      std::vector<std::int64_t> divisors;
      for (std::int64_t n = 1; n < all; ++n)
        if (all % n == 0) divisors.push_back(n);
      problems.push_back({fmt::format("the setting '{}' must divide {}, the groups that are merged, but is {}", effect.setting, all, groups),
                          place_of(entry, effect.setting), fmt::format("possible: {}", fmt::join(divisors, ", "))});
      return;
    }
    for (std::int64_t g = 0; g < all; ++g) {
      const std::string axis = fmt::format("block.{}.kv.{}.q", b, g);
      const std::vector<std::int64_t> own = plan.take.contains(axis) ? plan.take[axis] : first(walk.model.sizes().of("q", b));
      plan.take.erase(axis);
      if (g % (all / groups) != 0) continue;
      plan.take[fmt::format("block.{}.{}", b, effect.axis)].push_back(g);
      for (std::int64_t k = 0; k < all / groups; ++k) plan.take[axis].insert(plan.take[axis].end(), own.begin(), own.end());
    }
  }
}

void remove_count(const StageEntry& entry, const Effect& effect, const Walk& walk, ir::Plan& plan,
                  std::vector<std::string>& assumed, Problems& problems) {
  const std::int64_t count = entry.settings.integer(effect.setting), all = size_of(walk.model, effect.axis);
  if (count >= all) {
    problems.push_back(
        {fmt::format("the setting '{}' must leave at least one of the {} {}s of '{}', but is {}",
                     effect.setting, all, effect.axis, walk.at.id, count),
         place_of(entry, effect.setting),
         {}});
    return;
  }
  if (count > 0) plan.take[effect.axis] = first(all - count);
  const auto& blocks = walk.model.sizes().blocks;
  if (effect.axis == "block" &&
      std::adjacent_find(blocks.begin(), blocks.end(), std::not_equal_to<>()) != blocks.end()) {
    assumed.push_back("blocks differ and which ones go is measured; the last are assumed");
  }
}

void remove_list(const StageEntry& entry, const Effect& effect, const Walk& walk, ir::Plan& plan,
                 Problems& problems) {
  const std::vector<std::int64_t> list = entry.settings.integers(effect.setting);
  const std::int64_t all = size_of(walk.model, effect.axis);
  std::vector<std::int64_t> kept;
  for (std::int64_t k = 0; k < all; ++k) {
    if (std::find(list.begin(), list.end(), k) == list.end()) kept.push_back(k);
  }
  for (const std::int64_t k : list) {
    if (k >= 0 && k < all) continue;
    problems.push_back({fmt::format("the setting '{}' must name {}s from 0 to {}, but names {}",
                                    effect.setting, effect.axis, all - 1, k),
                        place_of(entry, effect.setting),
                        {}});
    return;
  }
  if (kept.empty()) {
    problems.push_back({fmt::format("the setting '{}' must leave at least one {}, but names all",
                                    effect.setting, effect.axis),
                        place_of(entry, effect.setting),
                        {}});
  } else if (static_cast<std::int64_t>(kept.size()) < all) {
    plan.take[effect.axis] = std::move(kept);
  }
}

// A stage that changes shapes must be told how, and only once per axis.
void check_effects(const StageEntry& entry, Problems& problems) {
  std::vector<std::string> names;
  std::map<std::string, std::string> by_axis;
  bool any = false;
  for (const Effect& effect : entry.info->effects) {
    names.push_back(effect.setting);
    if (!entry.settings.has(effect.setting)) continue;
    any = true;
    const auto [other, is_first] = by_axis.emplace(effect.axis, effect.setting);
    if (is_first || other->second == effect.setting) continue;
    problems.push_back({fmt::format("the stage '{}' ({}) must have one of '{}' and '{}', but has both",
                                    entry.id, entry.use, other->second, effect.setting),
                        place_of(entry, effect.setting),
                        {}});
  }
  if (any || names.empty()) return;
  problems.push_back({fmt::format("the stage '{}' ({}) must have one of {}, but has none", entry.id,
                                  entry.use, fmt::join(names, ", ")),
                      entry.place,
                      {}});
}

// A stage without effects that takes a plan file does what the file says.
ir::Plan plan_of(const StageEntry& entry, const Walk& walk, std::vector<std::string>& assumed,
                 Problems& problems) {
  if (entry.info->effects.empty() && given(entry, "plan") && !entry.info->quantizes)
    return ir::read_plan(entry.settings.text("plan"));
  ir::Plan plan(walk.model);
  check_effects(entry, problems);
  for (const Effect& effect : entry.info->effects) {
    if (!effect.only_beside.empty() && entry.settings.text(effect.only_beside) != effect.only_value) continue;
    if (!given(entry, effect.setting)) {
      if (entry.settings.is_auto(effect.setting))
        assumed.push_back(
            fmt::format("'{}' is measured; sizes are those of '{}'", effect.setting, walk.at.id));
      continue;
    }
    switch (effect.kind) {
      case Effect::Kind::Resize: resize(entry, effect, walk, plan, problems); break;
      case Effect::Kind::Merge: merge(entry, effect, walk, plan, problems); break;
      case Effect::Kind::RemoveCount: remove_count(entry, effect, walk, plan, assumed, problems); break;
      case Effect::Kind::RemoveList: remove_list(entry, effect, walk, plan, problems); break;
    }
  }
  return plan;
}

// Which blocks of the input are left.
void follow_blocks(const ir::Plan& plan, const StageEntry& entry, Artefact& out) {
  const auto kept = plan.take.find("block");
  if (kept == plan.take.end()) return;
  std::vector<std::int64_t> blocks;
  for (const std::int64_t i : kept->second) blocks.push_back(out.blocks[static_cast<std::size_t>(i)]);
  out.blocks = std::move(blocks);
  for (const Effect& effect : entry.info->effects)
    if (effect.kind == Effect::Kind::RemoveCount && effect.axis == "block" && given(entry, effect.setting)) out.blocks_known = false;
}

void check_order(const StageEntry& entry, const Walk& walk, Problems& problems) {
  if (walk.quantized_by.empty() || !stage::needs_of(*entry.info, entry.settings).dense) return;
  problems.push_back(
      {fmt::format("the stage '{}' ({}) must come before quantization, but '{}' has quantized the weights",
                   entry.id, entry.use, walk.quantized_by),
       entry.place, fmt::format("move it before '{}'", walk.quantized_by)});
}

void check_groups(const StageEntry& entry, const Walk& walk, const std::string& container,
                  std::vector<std::string>& assumed, Problems& problems) {
  if (!entry.info->quantizes) return;
  const std::int64_t group = group_of(entry);
  std::vector<std::int64_t> rows = row_lengths(walk.model);
  std::erase_if(rows, [&](std::int64_t row) { return group <= 1 || row % group == 0; });
  if (rows.empty()) return;
  const std::string list = fmt::format("{}", fmt::join(rows, ", "));
  if (container == "gguf") {  // ggml's fallback rules take such rows
    assumed.push_back(
        fmt::format("rows of {} are no multiple of {} and are stored in a wider type", list, group));
  } else {
    problems.push_back(
        {fmt::format("the group must divide every row, but {} does not divide {}", group, list),
         place_of(entry, "group"), "take group: auto"});
  }
}

std::map<std::string, std::string> why_not(const ir::Verdict& verdict) {
  std::map<std::string, std::string> out;
  for (const auto& [container, violations] : verdict.cannot) {
    if (!violations.empty()) out[container] = violations.front().message;
  }
  return out;
}

std::int64_t packed_bytes(const ir::Model& model, const StageEntry& entry) {
  const ir::Cost cost = ir::cost(model);
  const double bits = given(entry, "bits") && entry.settings.text("bits") == "8" ? 8 : 4,
               group = std::max<double>(static_cast<double>(group_of(entry)), 32);
  const double body = static_cast<double>(cost.parameters_body);
  return static_cast<std::int64_t>(body * (bits / 8 + 2 / group) +
                                   (static_cast<double>(cost.parameters) - body) * 2);
}

std::string word_of(const StageEntry& entry, const std::string& setting, const std::string& otherwise) {
  if (!given(entry, setting)) return otherwise;
  const auto* word = std::get_if<std::string>(&entry.settings.all().at(setting).value);
  return word ? *word : otherwise;
}

// The float type that a stage's own settings ask for.
std::optional<DType> dtype_asked(const StageEntry& entry) {
  std::string name = word_of(entry, "type", word_of(entry, "dtype", ""));
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return dtype_from(name);
}

// A stage with a setting `embedding` stores that and the head apart, q8_0 unless told (ir::gguf_types).
std::vector<std::pair<std::string, std::string>> gguf_format(const ir::Model& model, const StageEntry& entry, DType usual) {
  const bool chooses = std::any_of(entry.info->settings.begin(), entry.info->settings.end(), [](const stage::Setting& s) { return s.name == "type"; });
  const std::string type = word_of(entry, "type", chooses ? "f16" : std::string(to_string(usual)));
  if (!entry.settings.has("embedding")) return {{"*", type}};
  std::vector<std::pair<std::string, std::string>> out;
  for (const auto& [name, stored] : ir::gguf_types(model, type)) {
    const bool apart = (name == "embed" || name == "head") && given(entry, "embedding");
    out.emplace_back(name, apart ? entry.settings.text("embedding") : stored);
  }
  return out;
}

std::int64_t bytes_of(const Walk& walk, const StageEntry& entry, const std::string& container) {
  const ir::Model& model = walk.model;
  if (container == "gguf") return ir::gguf_bytes(model, gguf_format(model, entry, walk.dtype));
  if (container == "packed") return packed_bytes(model, entry);
  return ir::hf_bytes(model, dtype_asked(entry).value_or(walk.dtype));
}

}  // namespace

bool given(const StageEntry& entry, const std::string& setting) {
  return entry.settings.has(setting) && !entry.settings.is_auto(setting);
}

Json sizes_json(const ir::Model& model) {
  const ir::Sizes& sizes = model.sizes();
  Json out = {{"blocks", model.blocks()}, {"hidden", sizes.hidden}, {"vocab", sizes.vocab}};
  const auto per_block = [&](const char* name, const auto& of) {
    Json values = Json::array();
    for (const ir::BlockSizes& b : sizes.blocks) values.push_back(of(b));
    const bool same = !values.empty() && std::all_of(values.begin(), values.end(),
                                                     [&](const Json& v) { return v == values[0]; });
    out[name] = same ? Json(values[0]) : values;
  };
  per_block("ffn", [](const ir::BlockSizes& b) { return b.ffn; });
  per_block("kv", [](const ir::BlockSizes& b) { return b.kv; });
  per_block("heads", [](const ir::BlockSizes& b) { return b.heads(); });
  per_block("head_dim", [](const ir::BlockSizes& b) { return b.head_dim(); });
  return out;
}

namespace {

void describe(Artefact& out, const ir::Model& model) {
  const ir::Cost cost = ir::cost(model);
  out.family = model.family();
  out.arch = model.arch().hash;
  out.parameters = cost.parameters;
  out.kv_bytes_per_token = cost.kv_bytes_per_token;
  out.sizes = std::make_shared<const Json>(sizes_json(model));
  out.shape = model.sizes();
}

}  // namespace

Walk start_walk(const ir::Model& input) {
  Walk walk{input, {}, "", ir::common_dtype(input)};
  walk.at.id = "model";
  walk.at.container = input.container();
  describe(walk.at, input);
  walk.at.blocks = first(input.blocks());
  walk.at.cannot = why_not(ir::check(ir::Plan(input), input));
  return walk;
}

// What the packed form can't hold, before anything runs.
void check_packed(const StageEntry& entry, const Walk& walk, Problems& problems) {
  try {
    ir::require_packable(walk.model);
  } catch (const Error& error) {
    problems.push_back({error.message(), entry.place, error.diagnostics().front().hint});
  }
  if (entry.settings.is_auto("group")) {
    problems.push_back({"the setting 'group' must divide the rows of every matrix, but none of 128, 64, 32 and 16 does", entry.place, "give one that does"});
  }
  if (given(entry, "embedding") && entry.settings.text("embedding").front() == 'q') {
    problems.push_back({fmt::format("the setting 'embedding' must be f16, bf16 or f32 in a packed folder, but is {}", entry.settings.text("embedding")),
                        place_of(entry, "embedding"), {}});
  }
}

Artefact walk_stage(Walk& walk, Recipe& recipe, std::size_t i, std::vector<std::string>& assumed,
                    Problems& problems) {
  resolve_autos(recipe, i, walk.model);
  const std::size_t before = problems.size();
  resolve_targets(recipe, i, walk.model, problems);
  const StageEntry& entry = recipe.stages[i];
  check_order(entry, walk, problems);
  const ir::Plan plan = plan_of(entry, walk, assumed, problems);
  Artefact out;
  out.id = entry.id;
  out.container = stage::output_of(*entry.info, entry.settings);
  out.quantized = entry.info->quantizes || walk.at.quantized;
  out.blocks = walk.at.blocks;
  out.blocks_known = walk.at.blocks_known;
  const std::string holder = out.container == "packed" ? "hf" : out.container;
  if (problems.size() == before) {
    const ir::Verdict verdict = ir::check(plan, walk.model);
    for (const ir::Violation& v : verdict.violations) {
      problems.push_back({fmt::format("{}, in stage '{}'", v.message, entry.id), entry.place,
                          v.nearest.empty() ? "" : "nearest: " + v.nearest});
    }
    if (verdict.ok()) {
      out.cannot = why_not(verdict);
      const auto refused = verdict.cannot.find(holder);
      for (const ir::Violation& v :
           refused == verdict.cannot.end() ? std::vector<ir::Violation>{} : refused->second) {
        problems.push_back({fmt::format("the result of stage '{}' must fit {}, but does not: {}", entry.id,
                                        holder, v.message),
                            entry.place, v.nearest.empty() ? "" : "nearest: " + v.nearest});
      }
      walk.model = ir::apply(plan, walk.model);
      follow_blocks(plan, entry, out);
      check_apart(entry, walk.model, holder, assumed, problems);
    }
  }
  out.exact = assumed.empty() && walk.at.exact;
  check_groups(entry, walk, out.container, assumed, problems);
  if (out.container == "packed") check_packed(entry, walk, problems);
  describe(out, walk.model);
  if (problems.size() == before) out.bytes = bytes_of(walk, entry, out.container);
  walk.dtype = dtype_asked(entry).value_or(out.quantized ? DType::F32 : walk.dtype);
  if (entry.info->quantizes) walk.quantized_by = entry.id;
  walk.at = out;
  return out;
}

}  // namespace slmc::recipe
