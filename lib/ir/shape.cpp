// Models of shapes: sizes, names and tensor tables, no weights.
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/hash.h"
#include "ir/keys.h"
#include "ir/state.h"

namespace slmc::ir {
namespace {

std::shared_ptr<Model::State> from_hf_config(const Json& config, const Templates& templates) {
  const auto type = config.is_object() ? config.find("model_type") : config.end();
  if (type == config.end() || !type->is_string())
    throw Error(ErrorKind::Model, "the config must name its model_type, but does not");
  const std::shared_ptr<const Template> arch =
      find_template(templates, "hf", type->get<std::string>(), "config.json");
  ConfigSource source;
  source.config = &config;
  source.file = "config.json";
  Resolved resolved = resolve(*arch, "hf", source);
  // Which tensors stand in the file is what `when` says; optional ones do.
  std::vector<StoredTensor> stored;
  Scope scope;
  scope.name = lookup(resolved.names);
  std::map<std::string, bool> exists;
  for (const StoredSpec& s : arch->containers.at("hf").tensors) {
    if (s.ignored || s.rope_factors) continue;
    const Json when = s.when.empty() ? Json(true) : s.when.evaluate(scope);
    if (!when.is_boolean() || !when.get<bool>()) continue;
    const bool in_block = s.name.find("{block}") != std::string::npos;
    const std::int64_t count = in_block ? static_cast<std::int64_t>(resolved.sizes.blocks.size()) : 1;
    for (std::int64_t b = 0; b < count; ++b) {
      stored.push_back(place(s, *arch, resolved.sizes, in_block ? b : -1));
      for (const Part& part : stored.back().parts) exists[part.tensor] = true;
    }
  }
  auto state = make_state(arch, "hf", std::move(resolved),
                          [&](const std::string& name) { return exists.contains(name); });
  if (const std::string problem = covering_problem(stored, state->tensors); !problem.empty())
    throw Error(ErrorKind::Recipe, Place{arch->file, 0, 0, 1, {}},
                "a template must store each element once, but " + problem);
  state->templates = templates;
  state->config = config;
  state->source = "shapes";
  for (TensorSpec& t : state->tensors)
    if (!t.derived) t.stored_dtype = "F32";
  return state;
}

}  // namespace

std::int64_t Sizes::of(std::string_view axis, std::int64_t block) const {
  if (axis == "two") return 2;
  if (axis == "vocab") return vocab;
  if (axis == "hidden") return hidden;
  if (axis == "pos") return pos;
  if (axis == "block") return static_cast<std::int64_t>(blocks.size());
  std::string_view inner = axis;
  if (inner.starts_with("block.")) {
    inner.remove_prefix(6);
    if (!inner.empty() && inner[0] >= '0' && inner[0] <= '9') {
      block = 0;
      while (!inner.empty() && inner[0] >= '0' && inner[0] <= '9' && block < 1'000'000) {
        block = block * 10 + (inner[0] - '0');
        inner.remove_prefix(1);
      }
      if (inner.starts_with('.')) inner.remove_prefix(1);
    }
  }
  if (inner.starts_with("kv.")) inner = "q";  // "kv.q", "kv.2.q"
  if (block < 0 || block >= static_cast<std::int64_t>(blocks.size()))
    throw Error(ErrorKind::Recipe, "the axis '" + std::string(axis) +
                                       "' must be asked for in a block from 0 to " +
                                       std::to_string(blocks.size()) + " (not included), but is not");
  const BlockSizes& b = blocks[static_cast<std::size_t>(block)];
  if (inner == "kv") return b.kv;
  if (inner == "q") return b.q;
  if (inner == "freq") return b.freq;
  if (inner == "pass") return b.pass;
  if (inner == "vd") return b.vd;
  if (inner == "ffn") return b.ffn;
  throw Error(ErrorKind::Recipe,
              "an axis must be one of vocab, hidden, pos, block, kv, q, freq, pass, vd, ffn, but is '" +
                  std::string(axis) + "'");
}

std::shared_ptr<Model::State> make_state(std::shared_ptr<const Template> arch, const std::string& container,
                                         Resolved resolved,
                                         const std::function<bool(const std::string&)>& exists) {
  auto state = std::make_shared<Model::State>();
  state->arch = std::move(arch);
  state->container = container;
  state->sizes = std::move(resolved.sizes);
  state->decoder = std::move(resolved.decoder);
  for (const BlockSizes& block : state->sizes.blocks) state->ropes.push_back(block.heads() > 0 ? resolved.rope : Rope{});
  state->tensors = logical_tensors(*state->arch, state->sizes, exists);
  state->values.resize(state->tensors.size());
  index_tensors(*state);
  return state;
}

void index_tensors(Model::State& state) {
  state.by_name.clear();
  for (std::size_t i = 0; i < state.tensors.size(); ++i) state.by_name[state.tensors[i].name] = i;
}

Facts facts_of(const Model::State& state) {
  Facts facts;
  facts.arch = state.arch.get();
  facts.sizes = state.sizes;
  facts.decoder = state.decoder;
  facts.ropes = state.ropes;
  facts.tensors = state.tensors;
  if (state.tokenizer) {
    facts.bos = state.tokenizer->bos();
    facts.eos = state.tokenizer->eos();
  }
  return facts;
}

Model shape_only(const Json& hf_config) { return Model(from_hf_config(hf_config, load_templates())); }

Model with_weights(const Json& hf_config, const std::function<io::TensorData(const TensorSpec&)>& make) {
  std::shared_ptr<Model::State> state = from_hf_config(hf_config, load_templates());
  for (std::size_t i = 0; i < state->tensors.size(); ++i) {
    const TensorSpec spec = state->tensors[i];
    if (!spec.derived) state->values[i].base = [make, spec] { return make(spec); };
  }
  return Model(state);
}

Model from_config(const std::filesystem::path& folder,
                  const std::function<io::TensorData(const TensorSpec&, std::int64_t blocks)>& make,
                  const LoadOptions& options) {
  std::shared_ptr<Model::State> state = from_hf_config(read_json(folder / "config.json", ErrorKind::Model),
                                                       load_templates(options.templates));
  const auto blocks = static_cast<std::int64_t>(state->sizes.blocks.size());
  for (std::size_t i = 0; i < state->tensors.size(); ++i) {
    const TensorSpec spec = state->tensors[i];
    if (!spec.derived) state->values[i].base = [make, spec, blocks] { return make(spec, blocks); };
  }
  read_companions(*state, folder);
  state->source = folder.string();
  return Model(state);
}

}  // namespace slmc::ir
