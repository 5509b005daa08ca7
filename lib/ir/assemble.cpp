// From the stored tensors of a file to the logical ones: names, shapes, coverage. Shared by both containers.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "core/bytes.h"
#include "core/error.h"
#include "ir/keys.h"
#include "ir/state.h"

namespace slmc::ir {
namespace {

// "model.layers.{block}.x" matches "model.layers.7.x".
bool matches(std::string_view pattern, std::string_view name) {
  const std::size_t at = pattern.find("{block}");
  if (at == std::string_view::npos) return pattern == name;
  if (!name.starts_with(pattern.substr(0, at))) return false;
  std::size_t end = at;
  while (end < name.size() && name[end] >= '0' && name[end] <= '9') ++end;
  return end > at && name.substr(end) == pattern.substr(at + 7);
}

struct Wanted {
  const StoredSpec* spec;
  std::int64_t block;
  std::string name;
};

}  // namespace

std::shared_ptr<Model::State> assemble(std::shared_ptr<const Template> arch, const std::string& container,
                                       const ConfigSource& given,
                                       std::map<std::string, StoredValue, std::less<>> stored) {
  const ContainerSpec& spec = arch->containers.at(container);
  // Files of a bare base model lack the prefix of the whole one.
  const std::string& prefix = spec.base_prefix;
  const bool bare = !prefix.empty() && std::none_of(stored.begin(), stored.end(), [&](const auto& s) {
    return s.first.starts_with(prefix);
  });
  const auto file_name = [&](std::string name) {
    return bare && name.starts_with(prefix) ? name.substr(prefix.size()) : name;
  };

  ConfigSource source = given;
  source.stored = [&](std::string_view name) { return stored.contains(file_name(std::string(name))); };
  source.rows = [&](std::string_view name) -> std::int64_t {
    const auto it = stored.find(file_name(std::string(name)));
    return it == stored.end() || it->second.shape.empty() ? 0 : it->second.shape[0];
  };
  source.rope_factors = [&]() -> std::vector<float> {
    for (const StoredSpec& s : spec.tensors)
      if (s.rope_factors)
        if (const auto it = stored.find(s.name); it != stored.end()) return it->second.read().to_floats();
    return {};
  };
  Resolved resolved = resolve(*arch, container, source);

  Scope scope;
  scope.name = lookup(resolved.names);
  scope.stored = source.stored;
  scope.rows = source.rows;
  std::set<std::string, std::less<>> claimed;
  std::vector<Wanted> wanted;
  for (const StoredSpec& s : spec.tensors) {
    if (s.ignored) continue;
    if (s.rope_factors) {
      claimed.insert(s.name);
      continue;
    }
    bool must = !s.optional;
    if (!s.when.empty()) {
      const Json when = s.when.evaluate(scope);
      if (!when.is_boolean())
        throw Error(ErrorKind::Model, at_file(source.file),
                    "'" + s.when.text() + "' must be true or false, but is " + dump_compact(when));
      must = when.get<bool>();
    }
    const bool in_block = s.name.find("{block}") != std::string::npos;
    const std::int64_t count = in_block ? static_cast<std::int64_t>(resolved.sizes.blocks.size()) : 1;
    for (std::int64_t b = 0; b < count; ++b) {
      const std::int64_t block = in_block ? b : -1;
      const std::string name = file_name(with_block(s.name, block));
      const bool there = stored.contains(name);
      if (!must && there && s.spare) claimed.insert(name);
      if (must && !there && !is_absent(place(s, *arch, resolved.sizes, block), resolved.sizes))
        throw Error(ErrorKind::Model, at_file(source.file),
                    "the file must hold the tensor '" + name + "', but does not");
      if (!there || (!must && !s.optional)) continue;
      claimed.insert(name);
      wanted.push_back({&s, block, name});
    }
  }
  for (const auto& entry : stored) {
    const std::string& name = entry.first;
    if (claimed.contains(name)) continue;
    const bool ignored = std::any_of(spec.tensors.begin(), spec.tensors.end(), [&](const StoredSpec& s) {
      return s.ignored && matches(file_name(s.name), name);
    });
    if (ignored) continue;
    throw Error(ErrorKind::Model, at_file(source.file),
                "the file must hold only tensors that its config asks for, but holds '" + name + "' " +
                    shape_text(entry.second.shape));
  }

  std::vector<StoredTensor> placed;
  std::set<std::string> exists;
  for (const Wanted& w : wanted) {
    StoredTensor t = place(*w.spec, *arch, resolved.sizes, w.block);
    const StoredValue& value = stored.find(w.name)->second;
    if (value.shape != t.shape)
      throw Error(ErrorKind::Model, at_file(source.file),
                  "the tensor '" + w.name + "' must be " + shape_text(t.shape) + " by the config, but is " +
                      shape_text(value.shape));
    for (const Part& part : t.parts) exists.insert(part.tensor);
    t.name = w.name;
    placed.push_back(std::move(t));
  }
  auto state = make_state(arch, container, std::move(resolved),
                          [&](const std::string& name) { return exists.contains(name); });
  state->source = source.file;
  if (const std::string problem = covering_problem(placed, state->tensors); !problem.empty())
    throw Error(ErrorKind::Model, at_file(source.file), "each value must be stored once, but " + problem);
  const auto files =
      std::make_shared<const std::map<std::string, StoredValue, std::less<>>>(std::move(stored));
  for (const StoredTensor& t : placed)
    for (const Part& part : t.parts) {
      const std::size_t i = state->by_name.find(part.tensor)->second;
      const StoredValue& value = files->find(t.name)->second;
      state->tensors[i].stored_dtype = value.dtype;
      state->values[i].base = [files, name = t.name, part, shape = state->tensors[i].shape, add = t.add] {
        return extract(files->find(name)->second.read(), part, shape, add);
      };
    }
  for (std::size_t i = 0; i < state->tensors.size(); ++i)
    if (!state->tensors[i].derived && !state->values[i].base)
      throw Error(ErrorKind::Model, at_file(source.file),
                  "the file must hold '" + state->tensors[i].name + "', but does not");
  return state;
}

}  // namespace slmc::ir
