#include "ir/resolve.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"

namespace slmc::ir {
namespace {

constexpr std::int64_t kMostBlocks = 10'000;
constexpr std::int64_t kLargestAxis = 100'000'000;

Place at_file(const std::string& file) { return Place{file, 0, 0, 1, {}}; }

std::string form_name(const std::string& container) { return container == "hf" ? "Hugging Face" : "GGUF"; }

// Prefix of a family's own keys: "llama." in GGUF, nothing in Hugging Face.
std::string prefix_of(const Json& config, const std::string& container) {
  if (container == "hf") return {};
  const auto it = config.find("general.architecture");
  return it != config.end() && it->is_string() ? it->get<std::string>() + "." : std::string{};
}

const Json* find_key(const Json& config, const std::string& container, const std::string& prefix, std::string_view key) {
  if (container != "hf") {
    const auto it = config.find(prefix + std::string(key));
    return it == config.end() ? nullptr : &*it;
  }
  const Json* at = &config;
  while (true) {
    const std::size_t dot = key.find('.');
    if (!at->is_object()) return nullptr;
    const auto it = at->find(std::string(key.substr(0, dot)));
    if (it == at->end()) return nullptr;
    at = &*it;
    if (dot == std::string_view::npos) return at;
    key.remove_prefix(dot + 1);
  }
}

// Reads typed values out of the evaluated names.
class Names {
 public:
  Names(const std::map<std::string, Json>& names, const std::string& file) : names_(names), file_(file) {}

  bool has(const std::string& name) const { return names_.contains(name); }
  const Json& at(const std::string& name) const {
    const auto it = names_.find(name);
    if (it == names_.end()) throw Error(ErrorKind::Recipe, at_file(file_), "a template must define '" + name + "', but does not");
    return it->second;
  }
  std::int64_t whole(const std::string& name, std::int64_t least = 0) const {
    const Json& v = at(name);
    if (v.is_null()) throw Error(ErrorKind::Model, at_file(file_), "the config must say '" + name + "', but has no key for it");
    const double x = v.is_number() ? v.get<double>() : NAN;
    if (!(x >= static_cast<double>(least)) || x != std::floor(x) || x > static_cast<double>(kLargestAxis))
      throw Error(ErrorKind::Model, at_file(file_), "'" + name + "' must be a whole number from " + std::to_string(least) + " to 100000000, but is " + dump_compact(v));
    return static_cast<std::int64_t>(x);
  }
  double positive(const std::string& name) const {
    const Json& v = at(name);
    const double x = v.is_number() ? v.get<double>() : NAN;
    if (!(x > 0) || !std::isfinite(x))
      throw Error(ErrorKind::Model, at_file(file_), "'" + name + "' must be a positive number, but is " + (v.is_null() ? "missing" : dump_compact(v)));
    return x;
  }
  std::string text(const std::string& name) const {
    const Json& v = at(name);
    if (!v.is_string()) throw Error(ErrorKind::Model, at_file(file_), "'" + name + "' must be a text, but is " + dump_compact(v));
    return v.get<std::string>();
  }
  bool truth(const std::string& name) const {
    const Json& v = at(name);
    if (!v.is_boolean()) throw Error(ErrorKind::Model, at_file(file_), "'" + name + "' must be true or false, but is " + dump_compact(v));
    return v.get<bool>();
  }

 private:
  const std::map<std::string, Json>& names_;
  const std::string& file_;
};

bool is_size(const std::string& name) {
  static const std::set<std::string> sizes = {"vocab", "hidden", "blocks", "heads", "kv", "q", "head_dim", "freq", "pass", "vd", "ffn", "pos", "context"};
  return sizes.contains(name);
}

bool says_nothing(const Json& v) {
  return v.is_null() || (v.is_boolean() && !v.get<bool>()) || (v.is_number() && v.get<double>() == 0) ||
         ((v.is_string() || v.is_array() || v.is_object()) && v.empty());
}

// Keys that could change the arithmetic without our noticing are refused.
void refuse_unknown_keys(const ContainerSpec& spec, const std::string& container, const ConfigSource& source, const std::string& prefix) {
  std::set<std::string> known(spec.harmless.begin(), spec.harmless.end());
  auto add = [&](std::string key) {
    if (!key.empty() && key.back() == '?') key.pop_back();
    known.insert(container == "hf" ? key.substr(0, key.find('.')) : key);
  };
  for (const auto& [name, expr] : spec.read)
    for (const std::string& key : expr.keys()) add(key);
  for (const auto& [key, expr] : spec.write) add(key);
  for (const auto& [key, value] : spec.fresh) add(key);
  for (const auto& [key, value] : source.config->items()) {
    std::string own = key;
    if (container != "hf") {
      if (!key.starts_with(prefix)) continue;                  // general.*, tokenizer.*: not arithmetic
      own = key.substr(prefix.size());
    }
    if (known.contains(own) || own.starts_with("_") || says_nothing(value)) continue;
    std::string shown = dump_compact(value);
    if (shown.size() > 60) shown = shown.substr(0, 57) + "...";
    throw Error(ErrorKind::Unsupported, at_file(source.file), "the config must hold only keys that slmc understands, but holds '" + key + "': " + shown,
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
    throw Error(ErrorKind::Unsupported, at_file(source.file), "the rotary type must be none or linear, but is '" + type + "'");
  } else {
    rope.type = "default";
  }
  rope.theta = theta;
  if (type != "none" || !source.rope_factors) return rope;
  const std::vector<float> factors = source.rope_factors();
  if (factors.empty()) return rope;
  // The float divisors that llama.cpp reads round; our own key keeps what they were made of, as long as both agree.
  if (const auto own = source.config->find("slmc.rope"); own != source.config->end() && own->is_string()) {
    const Json json = parse_json(own->get<std::string>(), source.file, ErrorKind::Model);
    Rope exact;
    if (const auto list = json.find("frequencies"); list != json.end()) {
      exact.type = "custom";
      exact.theta = theta;
      for (const Json& w : *list) {
        if (!w.is_number() || !(w.get<double>() > 0)) throw Error(ErrorKind::Model, at_file(source.file), "slmc.rope must hold positive frequencies, but does not");
        exact.own.push_back(w.get<double>());
      }
    } else {
      exact = rope_from_json(json, theta, 0, source.file);
    }
    const auto pairs = static_cast<std::int64_t>(factors.size());
    if ((exact.own.empty() || exact.own.size() == factors.size()) && rope_factors(exact, pairs) == factors) return exact;
  }
  return rope_from_factors(factors, theta);
}

std::vector<bool> window_blocks(const ContainerSpec& spec, Scope scope, std::map<std::string, Json>& names, std::int64_t blocks, const std::string& file) {
  const auto here = std::find_if(spec.read.begin(), spec.read.end(), [](const auto& r) { return r.first == "window_here"; });
  if (here == spec.read.end()) throw Error(ErrorKind::Recipe, at_file(file), "a template must define 'window_here', but does not");
  std::vector<bool> result;
  for (std::int64_t b = 0; b < blocks; ++b) {
    names["block"] = b;
    const Json value = here->second.evaluate(scope);
    if (!value.is_boolean()) throw Error(ErrorKind::Model, at_file(file), "'window_here' must be true or false, but is " + dump_compact(value));
    result.push_back(value.get<bool>());
  }
  names.erase("block");
  return result;
}

Decoder decoder_of(const Names& names, const std::string& file) {
  Decoder d;
  const std::string norm = names.text("norm");
  if (norm != "rms" && norm != "layer") throw Error(ErrorKind::Recipe, at_file(file), "'norm' must be 'rms' or 'layer', but is '" + norm + "'");
  d.norm = norm == "rms" ? Norm::Rms : Norm::Layer;
  d.norm_eps = as_decimal_float(names.positive("norm_eps"));
  d.activation = activation_from(names.text("activation"), file);
  d.gated = names.truth("gated");
  d.parallel_residual = names.truth("parallel_residual");
  d.tied_head = names.truth("tied_head");
  d.attn_scale = names.positive("attn_scale");
  d.context = names.whole("context", 1);
  return d;
}

// ---- writing ------------------------------------------------------------------------------------

// 2 * freq / head_dim such that floor(head_dim * partial) is 2 * freq again.
double partial_of(std::int64_t freq, std::int64_t head_dim) {
  if (head_dim == 0) return 1;
  double p = static_cast<double>(2 * freq) / static_cast<double>(head_dim);
  while (std::floor(static_cast<double>(head_dim) * p) < static_cast<double>(2 * freq)) p = std::nextafter(p, 2.0);
  return p;
}

std::map<std::string, Json> names_of(const Facts& facts, const BlockSizes& block, const Rope& rope) {
  std::map<std::string, Json> n;
  const Sizes& s = facts.sizes;
  n["vocab"] = s.vocab;
  n["hidden"] = s.hidden;
  n["pos"] = s.pos;
  n["blocks"] = static_cast<std::int64_t>(s.blocks.size());
  n["kv"] = block.kv;
  n["q"] = block.q;
  n["freq"] = block.freq;
  n["pass"] = block.pass;
  n["vd"] = block.vd;
  n["ffn"] = block.ffn;
  n["heads"] = block.heads();
  n["head_dim"] = block.head_dim();
  n["partial"] = partial_of(block.freq, block.head_dim());
  const Decoder& d = facts.decoder;
  n["context"] = d.context;
  n["norm"] = d.norm == Norm::Rms ? "rms" : "layer";
  n["norm_eps"] = d.norm_eps;
  n["activation"] = to_string(d.activation);
  n["gated"] = d.gated;
  n["parallel_residual"] = d.parallel_residual;
  n["tied_head"] = d.tied_head;
  n["window"] = d.window ? Json(*d.window) : Json();
  Json types = Json::array();
  for (std::size_t b = 0; b < s.blocks.size(); ++b)
    types.push_back(b < d.window_blocks.size() && d.window_blocks[b] ? "sliding_attention" : "full_attention");
  n["layer_types"] = std::move(types);
  n["rope_theta"] = rope.theta;
  n["rope_type"] = rope.type;
  n["rope_factor"] = rope.factor;
  Json parameters = to_json(rope);
  if (block.pass > 0 && block.freq > 0) parameters["partial_rotary_factor"] = n["partial"];
  n["rope_parameters"] = std::move(parameters);
  n["bos"] = facts.bos ? Json(*facts.bos) : Json();
  n["eos"] = facts.eos ? Json(*facts.eos) : Json();
  return n;
}

struct AxisField {
  const char* name;
  std::int64_t BlockSizes::*size;
};
constexpr AxisField kBlockAxes[] = {{"kv", &BlockSizes::kv}, {"q", &BlockSizes::q}, {"freq", &BlockSizes::freq},
                                    {"pass", &BlockSizes::pass}, {"vd", &BlockSizes::vd}, {"ffn", &BlockSizes::ffn}};

std::vector<Violation> differing_blocks(const Facts& facts, const std::string& form) {
  std::vector<Violation> all;
  const std::vector<BlockSizes>& blocks = facts.sizes.blocks;
  if (blocks.empty()) return {{"block", form + " must have at least one block, but has none", "1"}};
  for (const AxisField& axis : kBlockAxes)
    for (std::size_t b = 1; b < blocks.size(); ++b)
      if (blocks[b].*axis.size != blocks[0].*axis.size) {
        const std::string name = "block." + std::to_string(b) + "." + axis.name;
        all.push_back({name, "all blocks of " + form + " must have the same " + axis.name + ", but block 0 has " + std::to_string(blocks[0].*axis.size) +
                                 " and block " + std::to_string(b) + " has " + std::to_string(blocks[b].*axis.size),
                       std::to_string(blocks[0].*axis.size)});
        break;
      }
  if (all.empty() && (blocks[0].heads() == 0 || blocks[0].ffn == 0))
    all.push_back({blocks[0].heads() == 0 ? "block.0.kv" : "block.0.ffn", "every block of " + form + " must have attention and a feed-forward part, but has not", ""});
  for (std::size_t b = 1; b < facts.ropes.size(); ++b)
    if (facts.ropes[b] != facts.ropes[0]) {
      all.push_back({"block." + std::to_string(b) + ".freq", "all blocks of " + form + " must have the same rotary frequencies, but block " + std::to_string(b) + " differs", ""});
      break;
    }
  return all;
}

std::vector<Violation> broken_laws(const ContainerSpec& spec, const Facts& facts, const Rope& rope, const std::string& form) {
  const BlockSizes& block = facts.sizes.blocks[0];
  auto holds = [&](const Law& law, const std::map<std::string, Json>& names) {
    Scope scope;
    scope.name = [&](std::string_view n) -> const Json* {
      const auto it = names.find(std::string(n));
      return it == names.end() ? nullptr : &it->second;
    };
    const Json v = law.must.evaluate(scope);
    return v.is_boolean() && v.get<bool>();
  };
  // Names as they would be with another size of one axis.
  auto with = [&](const std::string& axis, std::int64_t n) {
    Facts other;
    other.sizes = facts.sizes;
    other.decoder = facts.decoder;
    BlockSizes b = block;
    if (axis == "hidden") other.sizes.hidden = n;
    for (const AxisField& f : kBlockAxes)
      if (axis == f.name) b.*f.size = n;
    return names_of(other, b, rope);
  };
  std::vector<Violation> all;
  for (const Law& law : spec.laws) {
    const std::map<std::string, Json> now = with("", 0);
    if (holds(law, now)) continue;
    const std::int64_t size = now.at(law.axis).get<std::int64_t>();
    std::string nearest;
    for (std::int64_t d = 1; d <= 8192 && nearest.empty(); ++d)
      for (std::int64_t n : {size - d, size + d}) {
        if (n < 0 || (n == 0 && law.axis != "pass" && law.axis != "freq")) continue;
        const auto names = with(law.axis, n);
        const bool good = std::all_of(spec.laws.begin(), spec.laws.end(), [&](const Law& l) { return l.axis != law.axis || holds(l, names); });
        if (good) {
          nearest = std::to_string(n);
          break;
        }
      }
    const bool outer = law.axis == "hidden" || law.axis == "vocab" || law.axis == "pos";
    all.push_back({outer ? law.axis : "block.0." + law.axis, form + " can't hold " + law.axis + " " + std::to_string(size) + ": " + law.say, nearest});
  }
  return all;
}

std::vector<Violation> differences(const Facts& facts, const Rope& rope, const Resolved& again, const std::string& form) {
  std::vector<Violation> all;
  auto differ = [&](const std::string& what, const std::string& want, const std::string& got) {
    all.push_back({what, form + " must read back the same " + what + ", but would give " + got + " instead of " + want, got});
  };
  auto size = [&](const std::string& axis, std::int64_t want, std::int64_t got) {
    if (want != got) differ(axis, std::to_string(want), std::to_string(got));
  };
  size("vocab", facts.sizes.vocab, again.sizes.vocab);
  size("hidden", facts.sizes.hidden, again.sizes.hidden);
  size("pos", facts.sizes.pos, again.sizes.pos);
  size("block", static_cast<std::int64_t>(facts.sizes.blocks.size()), static_cast<std::int64_t>(again.sizes.blocks.size()));
  if (!again.sizes.blocks.empty())
    for (const AxisField& axis : kBlockAxes) size(std::string("block.0.") + axis.name, facts.sizes.blocks[0].*axis.size, again.sizes.blocks[0].*axis.size);
  auto option = [&](const std::string& what, const Json& want, const Json& got) {
    if (want != got) differ(what, dump_compact(want), dump_compact(got));
  };
  const Decoder &a = facts.decoder, &b = again.decoder;
  option("norm", static_cast<int>(a.norm), static_cast<int>(b.norm));
  option("norm_eps", a.norm_eps, b.norm_eps);
  option("activation", to_string(a.activation), to_string(b.activation));
  option("gated", a.gated, b.gated);
  option("parallel_residual", a.parallel_residual, b.parallel_residual);
  option("tied_head", a.tied_head, b.tied_head);
  option("rope_factor", a.rope_factor, b.rope_factor);
  option("context", a.context, b.context);
  option("window", a.window ? Json(*a.window) : Json(), b.window ? Json(*b.window) : Json());
  if (a.window_blocks != b.window_blocks && a.window == b.window)
    all.push_back({"window", form + " must have the attention window in the same blocks, but can't say which", ""});
  const std::int64_t pairs = facts.sizes.blocks[0].freq;
  if (all.empty() && pairs > 0 && (again.rope.type == "none" || frequencies(rope, pairs) != frequencies(again.rope, pairs)))
    all.push_back({"block.0.freq", form + " has no key for rotary frequencies of one's own: they follow from the base and the head width", ""});
  return all;
}

// "'label' of this spec, if the template asks for it": evaluates `when`.
bool wanted(const StoredSpec& spec, const Scope& scope, const std::string& file) {
  if (spec.when.empty()) return !spec.optional;
  const Json v = spec.when.evaluate(scope);
  if (!v.is_boolean()) throw Error(ErrorKind::Recipe, at_file(file), "'when' of " + spec.name + " must be true or false, but is " + dump_compact(v));
  return v.get<bool>();
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
  throw Error(ErrorKind::Unsupported, at_file(file), "the activation must be silu, gelu, gelu_new, gelu_pytorch_tanh or relu, but is '" + name + "'");
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
    throw Error(ErrorKind::Unsupported, at_file(source.file), "the family '" + arch.family + "' must have a " + form_name(container) + " form, but has none");
  const ContainerSpec& spec = found->second;
  if (!source.config->is_object()) throw Error(ErrorKind::Model, at_file(source.file), "the config must be an object, but is not");
  const std::string prefix = prefix_of(*source.config, container);
  Resolved result;
  Scope scope;
  scope.key = [&](std::string_view key) { return find_key(*source.config, container, prefix, key); };
  scope.name = [&](std::string_view name) -> const Json* {
    const auto it = result.names.find(std::string(name));
    return it == result.names.end() ? nullptr : &it->second;
  };
  scope.stored = source.stored;
  scope.rows = source.rows;
  try {
    for (const auto& [name, expr] : spec.read)
      if (name != "window_here") {
        result.names[name] = expr.evaluate(scope);
        if (is_size(name) && !result.names[name].is_null()) Names(result.names, source.file).whole(name);   // before anything follows from it
      }
  } catch (const Error& e) {
    throw Error(e.kind(), at_file(source.file), e.message(), e.diagnostics().front().hint);
  }
  const Names names(result.names, source.file);
  Sizes& sizes = result.sizes;
  sizes.vocab = names.whole("vocab", 1);
  sizes.hidden = names.whole("hidden", 1);
  sizes.pos = names.whole("pos");
  const std::int64_t blocks = names.whole("blocks", 1);
  if (blocks > kMostBlocks) throw Error(ErrorKind::Model, at_file(source.file), "a model must have at most 10000 blocks, but has " + std::to_string(blocks));
  BlockSizes block;
  for (const AxisField& axis : kBlockAxes) block.*axis.size = names.whole(axis.name, axis.size == &BlockSizes::freq || axis.size == &BlockSizes::pass ? 0 : 1);
  if (block.head_dim() == 0) throw Error(ErrorKind::Model, at_file(source.file), "a head must have at least one entry, but has none");
  sizes.blocks.assign(static_cast<std::size_t>(blocks), block);
  result.decoder = decoder_of(names, source.file);
  if (const Json& window = names.at("window"); !window.is_null()) {
    result.decoder.window = names.whole("window", 1);
    result.decoder.window_blocks = window_blocks(spec, scope, result.names, blocks, source.file);
    const auto& in = result.decoder.window_blocks;
    const bool none = std::none_of(in.begin(), in.end(), [](bool b) { return b; });
    if (none || *result.decoder.window >= result.decoder.context) {      // it never cuts anything off
      result.decoder.window.reset();
      result.decoder.window_blocks.clear();
    }
  }
  result.rope = rope_of(names, source);
  if (result.rope.type == "custom" && static_cast<std::int64_t>(result.rope.own.size()) != block.freq)
    throw Error(ErrorKind::Model, at_file(source.file), "there must be " + std::to_string(block.freq) + " rotary divisors, but there are " + std::to_string(result.rope.own.size()));
  if (result.rope.type == "none" && block.freq > 0)
    throw Error(ErrorKind::Recipe, at_file(arch.file), "a template with rotary pairs must define 'rope_theta', but does not");
  refuse_unknown_keys(spec, container, source, prefix);
  return result;
}

void set_key(Json& config, const std::string& container, const KeyChange& change) {
  Json* at = &config;
  std::string key = change.key;
  if (container == "hf")
    for (std::size_t dot; (dot = key.find('.')) != std::string::npos; key = key.substr(dot + 1)) {
      at = &(*at)[key.substr(0, dot)];
      if (!at->is_object()) *at = Json::object();
    }
  const auto old = at->find(key);
  if (old != at->end() && old->is_number() && change.value.is_number() && old->get<double>() == change.value.get<double>()) return;
  (*at)[key] = change.value;
}

Fit fit(const Facts& facts, const std::string& container, const Json* base) {
  Fit result;
  result.decoder = facts.decoder;
  const std::string form = "the " + form_name(container) + " form of " + facts.arch->family;
  const auto found = facts.arch->containers.find(container);
  if (found == facts.arch->containers.end()) {
    result.violations.push_back({"", "the family '" + facts.arch->family + "' has no " + form_name(container) + " form", ""});
    return result;
  }
  const ContainerSpec& spec = found->second;
  result.violations = differing_blocks(facts, form);
  if (!result.violations.empty()) return result;
  const Rope rope = facts.ropes.empty() ? Rope{} : facts.ropes[0];
  result.violations = broken_laws(spec, facts, rope, form);
  if (!result.violations.empty()) return result;

  // Which stored tensors the model's own tensors make up.
  std::set<std::string> logical;
  for (const TensorSpec& t : facts.tensors)
    if (!t.derived) logical.insert(t.name);
  std::map<std::string, StoredTensor> planned;
  const auto each_stored = [&](const auto& body) {
    for (const StoredSpec& s : spec.tensors) {
      if (s.ignored || s.rope_factors) continue;
      const bool in_block = s.name.find("{block}") != std::string::npos;
      const std::int64_t count = in_block ? static_cast<std::int64_t>(facts.sizes.blocks.size()) : 1;
      for (std::int64_t b = 0; b < count; ++b) body(s, in_block ? b : -1);
    }
  };
  each_stored([&](const StoredSpec& s, std::int64_t b) {
    StoredTensor t = place(s, *facts.arch, facts.sizes, b);
    if (!t.parts.empty() && std::all_of(t.parts.begin(), t.parts.end(), [&](const Part& p) { return logical.contains(p.tensor); }))
      planned.emplace(t.name, std::move(t));
  });

  // The config: the base with its keys set, or a new one.
  Json config = base ? *base : Json::object();
  if (!base && container == "gguf") config["general.architecture"] = spec.match.front();
  const std::string prefix = prefix_of(config, container);
  const std::map<std::string, Json> names = names_of(facts, facts.sizes.blocks[0], rope);
  const Json before = config;
  Scope scope;
  scope.key = [&](std::string_view key) { return find_key(before, container, prefix, key); };
  scope.name = [&](std::string_view name) -> const Json* {
    const auto it = names.find(std::string(name));
    return it == names.end() ? nullptr : &it->second;
  };
  scope.has = [&](std::string_view name) { return logical.contains(std::string(name)); };
  scope.stored = [&](std::string_view name) { return planned.contains(std::string(name)); };
  auto change = [&](const std::string& key, Json value) {
    KeyChange c{container == "hf" ? key : prefix + key, std::move(value)};
    set_key(config, container, c);
    result.changes.push_back(std::move(c));
  };
  if (!base)
    for (const auto& [key, value] : spec.fresh)
      if (Json v = value->is_string() ? Expr::parse(value->get<std::string>(), facts.arch->file).evaluate(scope) : *value; !v.is_null()) change(key, std::move(v));
  for (auto [key, expr] : spec.write) {
    const bool only_present = key.back() == '?';
    if (only_present) key.pop_back();
    const bool present = find_key(before, container, prefix, key) != nullptr;
    if (only_present && !present) continue;
    Json value = expr.evaluate(scope);
    if (value.is_null() && (!present || container == "gguf")) continue;
    change(key, std::move(value));
  }
  const bool takes_factors = std::any_of(spec.tensors.begin(), spec.tensors.end(), [](const StoredSpec& s) { return s.rope_factors; });
  result.rope_factors = takes_factors && (rope.type == "llama3" || rope.type == "custom");
  if (result.rope_factors) {
    Json exact = rope.type == "custom" ? Json{{"frequencies", rope.own}} : to_json(rope);
    config["slmc.rope"] = dump_compact(exact);
    result.changes.push_back({"slmc.rope", config["slmc.rope"]});
  }

  ConfigSource source;
  source.config = &config;
  source.file = form;
  source.stored = scope.stored;
  source.rows = [&](std::string_view name) -> std::int64_t {
    const auto it = planned.find(std::string(name));
    return it == planned.end() ? 0 : it->second.shape[0];
  };
  source.rope_factors = [&] { return result.rope_factors ? rope_factors(rope, facts.sizes.blocks[0].freq) : std::vector<float>{}; };
  Resolved again;
  try {
    again = resolve(*facts.arch, container, source);
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::Internal || e.kind() == ErrorKind::Recipe) throw;
    result.violations.push_back({"", form + " can't hold it: " + e.message(), ""});
    return result;
  }
  result.violations = differences(facts, rope, again, form);
  if (!result.violations.empty()) return result;
  result.decoder = again.decoder;
  result.fold_q = facts.decoder.attn_scale / again.decoder.attn_scale;

  Scope when = scope;
  when.name = [&](std::string_view name) -> const Json* {
    const auto it = again.names.find(std::string(name));
    return it == again.names.end() ? nullptr : &it->second;
  };
  when.key = [&](std::string_view key) { return find_key(config, container, prefix, key); };
  each_stored([&](const StoredSpec& s, std::int64_t b) {
    const auto it = planned.find(with_block(s.name, b));
    const bool want = wanted(s, when, facts.arch->file);
    if (want && it == planned.end()) result.violations.push_back({with_block(s.name, b), form + " must have the tensor " + with_block(s.name, b) + ", but the model has nothing for it", ""});
    if (it == planned.end()) return;
    if (want || s.optional) result.stored.push_back(it->second);
  });
  if (result.violations.empty())
    if (const std::string problem = covering_problem(result.stored, facts.tensors); !problem.empty())
      result.violations.push_back({"", form + " must store each tensor once, but " + problem, ""});
  return result;
}

}  // namespace slmc::ir
