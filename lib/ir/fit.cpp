// The reverse of resolve.cpp: the config and the stored tensors that hold a model in a container, or why none
// can.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "ir/keys.h"
#include "ir/resolve.h"

namespace slmc::ir {
namespace {

// 2 * freq / head_dim such that floor(head_dim * partial) is 2 * freq again.
double partial_of(std::int64_t freq, std::int64_t head_dim) {
  if (head_dim == 0) return 1;
  double p = static_cast<double>(2 * freq) / static_cast<double>(head_dim);
  while (std::floor(static_cast<double>(head_dim) * p) < static_cast<double>(2 * freq))
    p = std::nextafter(p, 2.0);
  return p;
}

std::map<std::string, Json> names_of(const Facts& facts, const BlockSizes& block, const Rope& rope) {
  std::map<std::string, Json> n;
  const Sizes& s = facts.sizes;
  n["vocab"] = s.vocab;
  n["hidden"] = s.hidden;
  n["pos"] = s.pos;
  n["pos_offset"] = facts.decoder.pos_offset;
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
    types.push_back(b < d.window_blocks.size() && d.window_blocks[b] ? "sliding_attention"
                                                                     : "full_attention");
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

// The first block that breaks a law speaks for all.
std::vector<Violation> broken_laws(const ContainerSpec& spec, const Facts& facts, const Rope& rope,
                                   const std::string& form) {
  auto holds = [&](const Law& law, const std::map<std::string, Json>& names) {
    Scope scope;
    scope.name = lookup(names);
    const Json v = law.must.evaluate(scope);
    return v.is_boolean() && v.get<bool>();
  };
  // Names of a block as they would be with another size of one axis.
  auto with = [&](std::size_t number, const std::string& axis, std::int64_t n) {
    Facts other;
    other.sizes = facts.sizes;
    other.decoder = facts.decoder;
    BlockSizes b = facts.sizes.blocks[number];
    if (axis == "hidden") other.sizes.hidden = n;
    if (axis == "kv" && b.heads() == 0)  // attention that comes back is as the other blocks have it
      for (const BlockSizes& another : facts.sizes.blocks)
        if (another.heads() > 0) {
          const std::int64_t ffn = b.ffn;
          b = another;
          b.ffn = ffn;
          break;
        }
    for (const AxisField& f : kBlockAxes)
      if (axis == f.name) b.*f.size = n;
    std::map<std::string, Json> names = names_of(other, b, rope);
    names["block"] = static_cast<std::int64_t>(number);
    return names;
  };
  std::vector<Violation> all;
  for (const Law& law : spec.laws) {
    std::size_t number = 0;
    const std::size_t blocks = facts.sizes.blocks.size();
    while (number < blocks && holds(law, with(number, "", 0))) ++number;
    if (number == blocks) continue;
    const std::int64_t size = with(number, "", 0).at(law.axis).get<std::int64_t>();
    std::string nearest;
    for (std::int64_t d = 1; d <= 8192 && nearest.empty(); ++d)
      for (std::int64_t n : {size - d, size + d}) {
        if (n < 0 || (n == 0 && law.axis != "pass" && law.axis != "freq")) continue;
        const auto names = with(number, law.axis, n);
        const bool good = std::all_of(spec.laws.begin(), spec.laws.end(),
                                      [&](const Law& l) { return l.axis != law.axis || holds(l, names); });
        if (good) {
          nearest = std::to_string(n);
          break;
        }
      }
    const bool outer = law.axis == "hidden" || law.axis == "vocab" || law.axis == "pos";
    all.push_back({outer ? law.axis : "block." + std::to_string(number) + "." + law.axis,
                   form + " can't hold " + law.axis + " " + std::to_string(size) + ": " + law.say, nearest});
  }
  return all;
}

// Parts that some block lacks where the container asks every block for both.
std::vector<Violation> missing_parts(const Facts& facts, const std::string& form) {
  std::vector<Violation> all;
  const std::vector<BlockSizes>& blocks = facts.sizes.blocks;
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    if (blocks[b].heads() > 0 && blocks[b].ffn > 0) continue;
    const bool attention = blocks[b].heads() == 0;
    all.push_back({"block." + std::to_string(b) + (attention ? ".kv" : ".ffn"),
                   "every block of " + form + " must have attention and a feed-forward part, but block " +
                       std::to_string(b) + " has no " + (attention ? "attention" : "feed-forward part"),
                   "1"});
  }
  return all;
}

// What all blocks could have of an axis: as many as block 0 has, unless a law asks for another size.
std::string common_size(const ContainerSpec& spec, const Facts& facts, const Rope& rope, const AxisField& axis, const std::string& form) {
  Facts alike;
  alike.sizes = facts.sizes;
  alike.decoder = facts.decoder;
  for (BlockSizes& b : alike.sizes.blocks) b = facts.sizes.blocks[0];
  for (const Violation& v : broken_laws(spec, alike, rope, form))
    if (v.axis_or_tensor == std::string("block.0.") + axis.name && !v.nearest.empty()) return v.nearest;
  return std::to_string(facts.sizes.blocks[0].*axis.size);
}

// Sizes that differ between blocks where the container can't say so.
std::vector<Violation> differing_blocks(const Facts& facts, const ContainerSpec& spec, const Rope& rope,
                                        const std::string& form) {
  const PerBlock& may = spec.per_block;
  const std::vector<BlockSizes>& blocks = facts.sizes.blocks;
  if (blocks.empty()) return {{"block", form + " must have at least one block, but has none", "1"}};
  std::vector<Violation> all;
  if (may.match.empty()) all = missing_parts(facts, form);
  if (!all.empty()) return all;  // their other sizes are 0, which would only be said again
  const auto can_lack = [&](std::size_t b) { return !may.match.empty() && blocks[b].heads() == 0; };
  for (const AxisField& axis : kBlockAxes)
    for (std::size_t b = 1; b < blocks.size(); ++b)
      if (blocks[b].*axis.size != blocks[0].*axis.size) {
        if (std::find(may.axes.begin(), may.axes.end(), axis.name) != may.axes.end()) break;
        if (std::string(axis.name) != "ffn" && (can_lack(b) || can_lack(0))) continue;
        const std::string name = "block." + std::to_string(b) + "." + axis.name;
        all.push_back({name,
                       "all blocks of " + form + " must have the same " + axis.name + ", but block 0 has " +
                           std::to_string(blocks[0].*axis.size) + " and block " + std::to_string(b) +
                           " has " + std::to_string(blocks[b].*axis.size),
                       common_size(spec, facts, rope, axis, form)});
        break;
      }
  for (std::size_t b = 1; b < facts.ropes.size(); ++b)
    if (facts.ropes[b] != facts.ropes[0] && !can_lack(b) && !can_lack(0)) {
      all.push_back({"block." + std::to_string(b) + ".freq",
                     "all blocks of " + form + " must have the same rotary frequencies, but block " +
                         std::to_string(b) + " differs",
                     "those of block 0"});
      break;
    }
  return all;
}

std::vector<Violation> differences(const Facts& facts, const Rope& rope, const Resolved& again,
                                   const std::string& form) {
  std::vector<Violation> all;
  auto differ = [&](const std::string& what, const std::string& want, const std::string& got) {
    all.push_back(
        {what, form + " must read back the same " + what + ", but would give " + got + " instead of " + want,
         got});
  };
  auto size = [&](const std::string& axis, std::int64_t want, std::int64_t got) {
    if (want != got) differ(axis, std::to_string(want), std::to_string(got));
  };
  size("vocab", facts.sizes.vocab, again.sizes.vocab);
  size("hidden", facts.sizes.hidden, again.sizes.hidden);
  size("pos", facts.sizes.pos, again.sizes.pos);
  size("block", static_cast<std::int64_t>(facts.sizes.blocks.size()),
       static_cast<std::int64_t>(again.sizes.blocks.size()));
  for (std::size_t b = 0; b < std::min(facts.sizes.blocks.size(), again.sizes.blocks.size()) && all.empty(); ++b)
    for (const AxisField& axis : kBlockAxes)
      size("block." + std::to_string(b) + "." + axis.name, facts.sizes.blocks[b].*axis.size,
           again.sizes.blocks[b].*axis.size);
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
  option("pos_offset", a.pos_offset, b.pos_offset);
  option("rope_factor", a.rope_factor, b.rope_factor);
  option("context", a.context, b.context);
  option("window", a.window ? Json(*a.window) : Json(), b.window ? Json(*b.window) : Json());
  if (a.window_blocks != b.window_blocks && a.window == b.window)
    all.push_back(
        {"window", form + " must have the attention window in the same blocks, but can't say which", ""});
  const std::int64_t pairs = facts.sizes.blocks[0].freq;
  if (all.empty() && pairs > 0 &&
      (again.rope.type == "none" || frequencies(rope, pairs) != frequencies(again.rope, pairs)))
    all.push_back(
        {"block.0.freq",
         form +
             " has no key for rotary frequencies of one's own: they follow from the base and the head width",
         "those of whole heads"});
  return all;
}

// "'label' of this spec, if the template asks for it": evaluates `when`.
bool wanted(const StoredSpec& spec, const Scope& scope, const std::string& file) {
  if (spec.when.empty()) return !spec.optional;
  const Json v = spec.when.evaluate(scope);
  if (!v.is_boolean())
    throw Error(ErrorKind::Recipe, at_file(file),
                "'when' of " + spec.name + " must be true or false, but is " + dump_compact(v));
  return v.get<bool>();
}

// One model on its way into one container, step by step: each step adds violations or leaves what the next
// one needs.
class Fitting {
 public:
  Fitting(const Facts& facts, const std::string& container, const ContainerSpec& spec,
          const std::string& form)
      : facts_(facts),
        container_(container),
        spec_(spec),
        form_(form),
        rope_(facts.ropes.empty() ? Rope{} : facts.ropes[0]),
        names_(names_of(facts, facts.sizes.blocks[0], rope_)) {
    for (const TensorSpec& t : facts.tensors)
      if (!t.derived) logical_.insert(t.name);
  }

  Fit run(const Json* base) {
    result_.decoder = facts_.decoder;
    plan_tensors();
    write_config(base);
    if (std::optional<Resolved> again = read_back()) choose_tensors(*again);
    return std::move(result_);
  }

 private:
  template <class Body>
  void each_stored(const Body& body) const {
    for (const StoredSpec& s : spec_.tensors) {
      if (s.ignored || s.rope_factors) continue;
      const bool in_block = s.name.find("{block}") != std::string::npos;
      const std::int64_t count = in_block ? static_cast<std::int64_t>(facts_.sizes.blocks.size()) : 1;
      for (std::int64_t b = 0; b < count; ++b) body(s, in_block ? b : -1);
    }
  }

  // The stored tensors that the model's own tensors make up.
  void plan_tensors() {
    each_stored([&](const StoredSpec& s, std::int64_t b) {
      StoredTensor t = place(s, *facts_.arch, facts_.sizes, b);
      const bool whole = std::all_of(t.parts.begin(), t.parts.end(),
                                     [&](const Part& p) { return logical_.contains(p.tensor); });
      if (whole && !t.parts.empty()) planned_.emplace(t.name, std::move(t));
    });
  }

  Scope scope_over(const Json& config, const std::map<std::string, Json>& names) const {
    Scope scope;
    scope.key = [this, &config](std::string_view key) { return find_key(config, container_, prefix_, key); };
    scope.name = lookup(names);
    scope.has = [this](std::string_view name) { return logical_.contains(std::string(name)); };
    scope.stored = [this](std::string_view name) { return planned_.contains(std::string(name)); };
    return scope;
  }

  void change(const std::string& key, Json value) {
    KeyChange c{container_ == "hf" ? key : prefix_ + key, std::move(value)};
    set_key(config_, container_, c);
    result_.changes.push_back(std::move(c));
  }

  // Whether a key that may be said block by block has to be.
  bool differ(const PerBlock& may) const {
    const std::vector<BlockSizes>& blocks = facts_.sizes.blocks;
    return !may.match.empty() && std::any_of(blocks.begin(), blocks.end(), [&](const BlockSizes& b) { return b != blocks[0]; });
  }

  // The name that the container gives a model of these blocks: the usual one, or its own one, unless blocks differ.
  std::string architecture(const Json* base) const {
    if (differ(spec_.per_block)) return spec_.per_block.match;
    const auto own = base ? base->find("general.architecture") : Json::const_iterator();
    const bool keeps = base && own != base->end() && own->is_string() && *own != spec_.per_block.match;
    return keeps ? own->get<std::string>() : spec_.match.front();
  }

  // One entry per block where they differ.
  Json value_of(const std::string& key, const Expr& expr, const Scope& scope, const Json& before) const {
    const std::vector<std::string>& keys = spec_.per_block.keys;
    Json first = expr.evaluate(scope);
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) return first;
    Json list = Json::array();
    for (const BlockSizes& block : facts_.sizes.blocks) {
      const std::map<std::string, Json> names = names_of(facts_, block, rope_);
      list.push_back(expr.evaluate(scope_over(before, names)));
    }
    const bool same = std::all_of(list.begin(), list.end(), [&](const Json& v) { return v == first; });
    return same ? first : list;
  }

  // The base with its keys set, or a new config.
  void write_config(const Json* base) {
    config_ = base ? *base : Json::object();
    if (container_ == "gguf") {
      result_.architecture = architecture(base);
      config_ = renamed_architecture(config_, result_.architecture);
    }
    prefix_ = prefix_of(config_, container_);
    const Json before = config_;
    const Scope scope = scope_over(before, names_);
    if (!base)
      for (const auto& [key, value] : spec_.fresh) {
        Json v = value->is_string()
                     ? Expr::parse(value->get<std::string>(), facts_.arch->file).evaluate(scope)
                     : *value;
        if (!v.is_null()) change(key, std::move(v));
      }
    for (auto [key, expr] : spec_.write) {
      const bool only_present = key.back() == '?';
      if (only_present) key.pop_back();
      const bool present = find_key(before, container_, prefix_, key) != nullptr;
      if (only_present && !present) continue;
      Json value = value_of(key, expr, scope, before);
      if (value.is_null() && (!present || container_ == "gguf")) continue;
      change(key, std::move(value));
    }
    write_factors();
  }

  // Rotary frequencies that no key says go into a tensor of divisors, where the container has one. Divisors
  // are floats: our own key keeps what they were made of.
  void write_factors() {
    const bool takes = std::any_of(spec_.tensors.begin(), spec_.tensors.end(),
                                   [](const StoredSpec& s) { return s.rope_factors; });
    result_.rope_factors = takes && (rope_.type == "llama3" || rope_.type == "custom");
    if (!result_.rope_factors) return;
    const Json exact = rope_.type == "custom" ? Json{{"frequencies", rope_.own}} : to_json(rope_);
    config_["slmc.rope"] = dump_compact(exact);
    result_.changes.push_back({"slmc.rope", config_["slmc.rope"]});
  }

  // Resolves what was written (R1). Nothing when it reads back as another model.
  std::optional<Resolved> read_back() {
    ConfigSource source;
    source.config = &config_;
    source.file = form_;
    source.stored = [this](std::string_view name) { return planned_.contains(std::string(name)); };
    source.rows = [this](std::string_view name) -> std::int64_t {
      const auto it = planned_.find(std::string(name));
      return it == planned_.end() ? 0 : it->second.shape[0];
    };
    source.rope_factors = [this] {
      return result_.rope_factors ? rope_factors(rope_, facts_.sizes.blocks[0].freq) : std::vector<float>{};
    };
    try {
      Resolved again = resolve(*facts_.arch, container_, source);
      result_.violations = differences(facts_, rope_, again, form_);
      if (!result_.violations.empty()) return std::nullopt;
      result_.decoder = again.decoder;
      result_.fold_q = facts_.decoder.attn_scale / again.decoder.attn_scale;
      return again;
    } catch (const Error& e) {
      if (e.kind() == ErrorKind::Internal || e.kind() == ErrorKind::Recipe) throw;
      result_.violations.push_back({"", form_ + " can't hold it: " + e.message(), ""});
      return std::nullopt;
    }
  }

  void choose_tensors(const Resolved& again) {
    const Scope when = scope_over(config_, again.names);
    each_stored([&](const StoredSpec& s, std::int64_t b) {
      const std::string name = with_block(s.name, b);
      const auto it = planned_.find(name);
      const bool want = wanted(s, when, facts_.arch->file);
      if (want && it == planned_.end() && !is_absent(place(s, *facts_.arch, facts_.sizes, b), facts_.sizes))
        result_.violations.push_back(
            {name, form_ + " must have the tensor " + name + ", but the model has nothing for it", ""});
      if (it != planned_.end() && (want || s.optional)) result_.stored.push_back(it->second);
    });
    if (!result_.violations.empty()) return;
    if (const std::string problem = covering_problem(result_.stored, facts_.tensors); !problem.empty())
      result_.violations.push_back({"", form_ + " must store each tensor once, but " + problem, ""});
  }

  const Facts& facts_;
  const std::string& container_;
  const ContainerSpec& spec_;
  const std::string& form_;
  const Rope rope_;
  const std::map<std::string, Json> names_;
  std::set<std::string> logical_;
  std::map<std::string, StoredTensor> planned_;
  Json config_;
  std::string prefix_;
  Fit result_;
};

}  // namespace

void set_key(Json& config, const std::string& container, const KeyChange& change) {
  Json* at = &config;
  std::string key = change.key;
  if (container == "hf")
    for (std::size_t dot; (dot = key.find('.')) != std::string::npos; key = key.substr(dot + 1)) {
      at = &(*at)[key.substr(0, dot)];
      if (!at->is_object()) *at = Json::object();
    }
  const auto old = at->find(key);
  if (old != at->end() && old->is_number() && change.value.is_number() &&
      old->get<double>() == change.value.get<double>())
    return;
  (*at)[key] = change.value;
}

Fit fit(const Facts& facts, const std::string& container, const Json* base) {
  Fit refused;
  refused.decoder = facts.decoder;
  const std::string form = "the " + form_name(container) + " form of " + facts.arch->family;
  const auto found = facts.arch->containers.find(container);
  if (found == facts.arch->containers.end()) {
    refused.violations.push_back(
        {"", "the family '" + facts.arch->family + "' has no " + form_name(container) + " form", ""});
    return refused;
  }
  const Rope rope = facts.ropes.empty() ? Rope{} : facts.ropes[0];
  refused.violations = differing_blocks(facts, found->second, rope, form);
  if (refused.violations.empty()) refused.violations = broken_laws(found->second, facts, rope, form);
  if (!refused.violations.empty()) return refused;
  return Fitting(facts, container, found->second, form).run(base);
}

}  // namespace slmc::ir
