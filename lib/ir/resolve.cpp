#include "ir/resolve.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "ir/keys.h"

namespace slmc::ir {
namespace {

constexpr std::int64_t kMostBlocks = 1000;
constexpr std::int64_t kLargestAxis = 100'000'000;

// Reads typed values out of the evaluated names.
class Names {
 public:
  Names(const std::map<std::string, Json>& names, const std::string& file) : names_(names), file_(file) {}

  bool has(const std::string& name) const { return names_.contains(name); }
  const Json& at(const std::string& name) const {
    const auto it = names_.find(name);
    if (it == names_.end())
      throw Error(ErrorKind::Recipe, at_file(file_), "a template must define '" + name + "', but does not");
    return it->second;
  }
  std::int64_t whole(const std::string& name, std::int64_t least = 0) const {
    const Json& v = at(name);
    if (v.is_null())
      throw Error(ErrorKind::Model, at_file(file_),
                  "the config must say '" + name + "', but has no key for it");
    const double x = v.is_number() ? v.get<double>() : NAN;
    if (!(x >= static_cast<double>(least)) || x != std::floor(x) || x > static_cast<double>(kLargestAxis))
      throw Error(ErrorKind::Model, at_file(file_),
                  "'" + name + "' must be a whole number from " + std::to_string(least) +
                      " to 100000000, but is " + dump_compact(v));
    return static_cast<std::int64_t>(x);
  }
  double positive(const std::string& name) const {
    const Json& v = at(name);
    const double x = v.is_number() ? v.get<double>() : NAN;
    if (!(x > 0) || !std::isfinite(x))
      throw Error(
          ErrorKind::Model, at_file(file_),
          "'" + name + "' must be a positive number, but is " + (v.is_null() ? "missing" : dump_compact(v)));
    return x;
  }
  std::string text(const std::string& name) const {
    const Json& v = at(name);
    if (!v.is_string())
      throw Error(ErrorKind::Model, at_file(file_),
                  "'" + name + "' must be a text, but is " + dump_compact(v));
    return v.get<std::string>();
  }
  bool truth(const std::string& name) const {
    const Json& v = at(name);
    if (!v.is_boolean())
      throw Error(ErrorKind::Model, at_file(file_),
                  "'" + name + "' must be true or false, but is " + dump_compact(v));
    return v.get<bool>();
  }

 private:
  const std::map<std::string, Json>& names_;
  const std::string& file_;
};

bool is_size(const std::string& name) {
  static const std::set<std::string> sizes = {"vocab", "hidden",   "blocks", "heads", "kv",
                                              "q",     "head_dim", "freq",   "pass",  "vd",
                                              "ffn",   "pos",      "context"};
  return sizes.contains(name);
}

bool says_nothing(const Json& v) {
  return v.is_null() || (v.is_boolean() && !v.get<bool>()) || (v.is_number() && v.get<double>() == 0) ||
         ((v.is_string() || v.is_array() || v.is_object()) && v.empty());
}

// Keys that could change the arithmetic without our noticing are refused.
void refuse_unknown_keys(const ContainerSpec& spec, const std::string& container, const ConfigSource& source,
                         const std::string& prefix) {
  std::set<std::string> known(spec.harmless.begin(), spec.harmless.end());
  auto add = [&](std::string key) {
    if (!key.empty() && key.back() == '?') key.pop_back();
    known.insert(container == "hf" ? key.substr(0, key.find('.')) : key);
  };
  for (const auto& [name, expr] : spec.read)
    for (const std::string& key : expr.keys()) add(key);
  for (const Refusal& r : spec.refuse)
    for (const std::string& key : r.when.keys()) add(key);
  for (const auto& [key, expr] : spec.write) add(key);
  for (const auto& [key, value] : spec.fresh) add(key);
  for (const auto& [key, value] : source.config->items()) {
    std::string own = key;
    if (container != "hf") {
      if (!key.starts_with(prefix)) continue;  // general.*, tokenizer.*: not arithmetic
      own = key.substr(prefix.size());
    }
    if (known.contains(own) || own.starts_with("_") || says_nothing(value)) continue;
    std::string shown = dump_compact(value);
    if (shown.size() > 60) shown = shown.substr(0, 57) + "...";
    throw Error(
        ErrorKind::Unsupported, at_file(source.file),
        "the config must hold only keys that slmc understands, but holds '" + key + "': " + shown,
        "if it changes nothing in the forward pass, name it under 'harmless' in the template, or remove it");
  }
}

Rope rope_of(const Names& names, const ConfigSource& source) {
  Rope rope;
  if (!names.has("rope_theta")) return rope;
  const double theta = as_decimal_float(names.positive("rope_theta"));
  if (names.has("rope_scaling")) {
    return rope_from_json(names.at("rope_scaling"), theta, names.whole("rope_original"), source.file);
  }
  const std::string type = names.text("rope_type");
  if (type == "linear") {
    rope.type = "linear";
    rope.factor = as_decimal_float(names.positive("rope_factor"));
  } else if (type != "none") {
    throw Error(ErrorKind::Unsupported, at_file(source.file),
                "the rotary type must be none or linear, but is '" + type + "'");
  } else {
    rope.type = "default";
  }
  rope.theta = theta;
  if (type != "none" || !source.rope_factors) return rope;
  const std::vector<float> factors = source.rope_factors();
  if (factors.empty()) return rope;
  // The float divisors that llama.cpp reads round; our own key keeps what they were made of, as long as both
  // agree.
  if (const auto own = source.config->find("slmc.rope"); own != source.config->end() && own->is_string()) {
    const Json json = parse_json(own->get<std::string>(), source.file, ErrorKind::Model);
    Rope exact;
    if (const auto list = json.find("frequencies"); list != json.end()) {
      exact.type = "custom";
      exact.theta = theta;
      for (const Json& w : *list) {
        if (!w.is_number() || !(w.get<double>() > 0))
          throw Error(ErrorKind::Model, at_file(source.file),
                      "slmc.rope must hold positive frequencies, but does not");
        exact.own.push_back(w.get<double>());
      }
    } else {
      exact = rope_from_json(json, theta, 0, source.file);
    }
    const auto pairs = static_cast<std::int64_t>(factors.size());
    if ((exact.own.empty() || exact.own.size() == factors.size()) && rope_factors(exact, pairs) == factors)
      return exact;
  }
  return rope_from_factors(factors, theta);
}

// A key that holds a list with one entry per block stands for the entry of the block that is asked about.
class BlockKeys {
 public:
  BlockKeys(const ContainerSpec& spec, const std::string& container, const ConfigSource& source, const std::string& prefix)
      : spec_(spec), container_(container), source_(source), prefix_(prefix) {
    if (spec.per_block.match.empty() || prefix != spec.per_block.match + ".") return;
    for (const std::string& key : spec.per_block.keys) {
      const Json* value = find_key(*source.config, container, prefix, key);
      if (value && value->is_array()) lists_[key] = value;
    }
  }

  bool any() const { return !lists_.empty(); }
  void at(std::int64_t block) { block_ = block; }
  const Json* operator()(std::string_view key) const {
    const auto list = lists_.find(key);
    if (list == lists_.end()) return find_key(*source_.config, container_, prefix_, key);
    const auto i = static_cast<std::size_t>(block_);
    return i < list->second->size() ? &(*list->second)[i] : nullptr;
  }
  void require_lengths(std::int64_t blocks) const {
    for (const auto& [key, list] : lists_)
      if (static_cast<std::int64_t>(list->size()) != blocks)
        throw Error(ErrorKind::Model, at_file(source_.file),
                    "'" + prefix_ + key + "' must hold one entry per block, " + std::to_string(blocks) + ", but holds " +
                        std::to_string(list->size()));
  }

 private:
  const ContainerSpec& spec_;
  const std::string& container_;
  const ConfigSource& source_;
  const std::string& prefix_;
  std::map<std::string, const Json*, std::less<>> lists_;
  std::int64_t block_ = 0;
};

// The axes that may differ, and every name that they are worked out from.
std::set<std::string> names_apart(const ContainerSpec& spec) {
  std::set<std::string> all(spec.per_block.axes.begin(), spec.per_block.axes.end());
  for (auto it = spec.read.rbegin(); it != spec.read.rend(); ++it)  // a name may use earlier ones only
    if (all.contains(it->first))
      for (const std::string& name : it->second.names()) all.insert(name);
  return all;
}

// Sizes of one block where the container says blocks apart: those of block 0 but for the axes that may differ.
BlockSizes sizes_apart(const ContainerSpec& spec, const Names& names, BlockSizes block) {
  for (const AxisField& axis : kBlockAxes)
    if (std::find(spec.per_block.axes.begin(), spec.per_block.axes.end(), axis.name) != spec.per_block.axes.end())
      block.*axis.size = names.whole(axis.name);
  if (block.heads() == 0) block = {.ffn = block.ffn};
  return block;
}

std::vector<bool> window_blocks(const ContainerSpec& spec, Scope scope, std::map<std::string, Json>& names,
                                std::int64_t blocks, const std::string& file) {
  const auto here = std::find_if(spec.read.begin(), spec.read.end(),
                                 [](const auto& r) { return r.first == "window_here"; });
  if (here == spec.read.end())
    throw Error(ErrorKind::Recipe, at_file(file), "a template must define 'window_here', but does not");
  std::vector<bool> result;
  for (std::int64_t b = 0; b < blocks; ++b) {
    names["block"] = b;
    const Json value = here->second.evaluate(scope);
    if (!value.is_boolean())
      throw Error(ErrorKind::Model, at_file(file),
                  "'window_here' must be true or false, but is " + dump_compact(value));
    result.push_back(value.get<bool>());
  }
  names.erase("block");
  return result;
}

Decoder decoder_of(const Names& names, const std::string& file) {
  Decoder d;
  const std::string norm = names.text("norm");
  if (norm != "rms" && norm != "layer")
    throw Error(ErrorKind::Recipe, at_file(file), "'norm' must be 'rms' or 'layer', but is '" + norm + "'");
  d.norm = norm == "rms" ? Norm::Rms : Norm::Layer;
  d.norm_eps = as_decimal_float(names.positive("norm_eps"));
  d.activation = activation_from(names.text("activation"), file);
  d.gated = names.truth("gated");
  d.parallel_residual = names.truth("parallel_residual");
  d.tied_head = names.truth("tied_head");
  d.attn_scale = names.positive("attn_scale");
  if (names.has("pos_offset")) d.pos_offset = names.whole("pos_offset");
  d.context = names.whole("context", 1);
  return d;
}

}  // namespace

double as_decimal_float(double value) {
  char text[32];
  const float f = static_cast<float>(value);
  if (!std::isfinite(f) || f == 0) return value;
  const auto end = std::to_chars(text, text + sizeof text, f);
  double result = value;
  std::from_chars(text, end.ptr, result);
  return result;
}

Activation activation_from(const std::string& name, const std::string& file) {
  if (name == "silu" || name == "swish") return Activation::Silu;
  if (name == "gelu") return Activation::Gelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_fast") return Activation::GeluTanh;
  if (name == "relu") return Activation::Relu;
  throw Error(
      ErrorKind::Unsupported, at_file(file),
      "the activation must be silu, gelu, gelu_new, gelu_pytorch_tanh or relu, but is '" + name + "'");
}

std::string to_string(Activation activation) {
  switch (activation) {
    case Activation::Silu: return "silu";
    case Activation::Gelu: return "gelu";
    case Activation::GeluTanh: return "gelu_new";
    case Activation::Relu: return "relu";
  }
  return "silu";
}

Resolved resolve(const Template& arch, const std::string& container, const ConfigSource& source) {
  const auto found = arch.containers.find(container);
  if (found == arch.containers.end())
    throw Error(
        ErrorKind::Unsupported, at_file(source.file),
        "the family '" + arch.family + "' must have a " + form_name(container) + " form, but has none");
  const ContainerSpec& spec = found->second;
  if (!source.config->is_object())
    throw Error(ErrorKind::Model, at_file(source.file), "the config must be an object, but is not");
  const std::string prefix = prefix_of(*source.config, container);
  Resolved result;
  Scope scope;
  BlockKeys keys(spec, container, source, prefix);
  scope.key = [&keys](std::string_view key) { return keys(key); };
  scope.name = lookup(result.names);
  scope.stored = source.stored;
  scope.rows = source.rows;
  const auto read_names = [&](const std::set<std::string>* only) {
    try {
      for (const auto& [name, expr] : spec.read)
        if (name != "window_here" && (!only || only->contains(name))) {
          result.names[name] = expr.evaluate(scope);
          if (is_size(name) && !result.names[name].is_null())
            Names(result.names, source.file).whole(name);  // before anything follows from it
        }
    } catch (const Error& e) {
      throw Error(e.kind(), at_file(source.file), e.message(), e.diagnostics().front().hint);
    }
  };
  read_names(nullptr);
  for (const Refusal& r : spec.refuse)
    if (const Json when = r.when.evaluate(scope); when.is_boolean() && when.get<bool>())
      throw Error(ErrorKind::Unsupported, at_file(source.file), r.say);
  const Names names(result.names, source.file);
  Sizes& sizes = result.sizes;
  sizes.vocab = names.whole("vocab", 1);
  sizes.hidden = names.whole("hidden", 1);
  sizes.pos = names.whole("pos");
  const std::int64_t blocks = names.whole("blocks", 1);
  if (blocks > kMostBlocks)
    throw Error(ErrorKind::Model, at_file(source.file),
                "a model must have at most 1000 blocks, but has " + std::to_string(blocks));
  BlockSizes block;
  for (const AxisField& axis : kBlockAxes)
    block.*axis.size =
        names.whole(axis.name, axis.size == &BlockSizes::freq || axis.size == &BlockSizes::pass ? 0 : 1);
  if (block.head_dim() == 0)
    throw Error(ErrorKind::Model, at_file(source.file), "a head must have at least one entry, but has none");
  sizes.blocks.assign(static_cast<std::size_t>(blocks), block);
  if (keys.any()) {
    keys.require_lengths(blocks);
    const std::set<std::string> apart = names_apart(spec);
    for (std::int64_t b = blocks - 1; b >= 0; --b) {  // block 0 last: its names stay
      keys.at(b);
      read_names(&apart);
      sizes.blocks[static_cast<std::size_t>(b)] = sizes_apart(spec, names, block);
    }
  }
  result.decoder = decoder_of(names, source.file);
  if (const Json& window = names.at("window"); !window.is_null()) {
    result.decoder.window = names.whole("window", 1);
    result.decoder.window_blocks = window_blocks(spec, scope, result.names, blocks, source.file);
    const auto& in = result.decoder.window_blocks;
    const bool none = std::none_of(in.begin(), in.end(), [](bool b) { return b; });
    if (none || *result.decoder.window >= result.decoder.context) {  // it never cuts anything off
      result.decoder.window.reset();
      result.decoder.window_blocks.clear();
    }
  }
  result.rope = rope_of(names, source);
  if (result.rope.type == "custom" && static_cast<std::int64_t>(result.rope.own.size()) != block.freq)
    throw Error(ErrorKind::Model, at_file(source.file),
                "there must be " + std::to_string(block.freq) + " rotary divisors, but there are " +
                    std::to_string(result.rope.own.size()));
  if (result.rope.type == "none" && block.freq > 0)
    throw Error(ErrorKind::Recipe, at_file(arch.file),
                "a template with rotary pairs must define 'rope_theta', but does not");
  refuse_unknown_keys(spec, container, source, prefix);
  return result;
}

}  // namespace slmc::ir
