#include "ir/template.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "core/hash.h"

namespace slmc::ir {
namespace {

// Axes that a template may name, and whether they exist once per block.
const std::set<std::string>& known_axes() {
  static const std::set<std::string> axes = {"vocab", "hidden", "pos",  "kv", "q",
                                             "two",   "freq",   "pass", "vd", "ffn"};
  return axes;
}

[[noreturn]] void fail(const std::string& file, const std::string& path, const std::string& message,
                       const std::string& hint = {}) {
  throw Error(ErrorKind::Recipe, Place{file, 0, 0, 1, {}}, path + ": " + message, hint);
}

void check_axes(const std::vector<Dim>& dims, const std::string& file, const std::string& path) {
  for (const Dim& d : dims)
    for (const std::string& axis : d.axes())
      if (!known_axes().contains(axis)) {
        std::vector<std::string> all(known_axes().begin(), known_axes().end());
        const std::string near = closest(axis, all);
        fail(file, path, "an axis must be one that models have, but is '" + axis + "'",
             near.empty() ? "" : "did you mean '" + near + "'?");
      }
}

std::vector<std::pair<std::string, Expr>> expressions(const Json& object, const std::string& file,
                                                      const std::string& path) {
  if (!object.is_object()) fail(file, path, "the value must be an object, but is not");
  std::vector<std::pair<std::string, Expr>> all;
  for (const auto& [name, value] : object.items()) {
    if (!value.is_string()) fail(file, path + "." + name, "an expression must be a text, but is not");
    all.emplace_back(name, Expr::parse(value.get<std::string>(), file + " " + path + "." + name));
  }
  return all;
}

StoredSpec stored_spec(const Json& json, const std::vector<LogicalSpec>& logical, const std::string& file,
                       const std::string& path) {
  Fields f(json, file, path, ErrorKind::Recipe);
  StoredSpec spec;
  spec.name = f.text("name");
  spec.is = f.text_or("is", "");
  spec.add = f.number_or("add", 0);
  spec.optional = f.boolean_or("optional", false);
  spec.spare = f.boolean_or("spare", false);
  spec.ignored = f.boolean_or("ignore", false);
  spec.rope_factors = f.text_or("rope", "") == "factors";
  const std::string when = f.text_or("when", "");
  if (!when.empty()) spec.when = Expr::parse(when, file + " " + path + ".when");
  const std::string layout = f.text_or("layout", "");
  f.finish();
  if (!layout.empty()) {
    spec.layout = parse_layout(layout, file + " " + path + ".layout");
    check_axes(spec.layout, file, path + ".layout");
    if (spec.layout.size() > 2)
      fail(file, path + ".layout",
           "a stored tensor must have one or two dimensions, but has " + std::to_string(spec.layout.size()));
  }
  if (spec.ignored || spec.rope_factors) return spec;
  if (spec.layout.empty()) {
    for (const LogicalSpec& l : logical)
      if (l.name == spec.is) spec.layout = l.dims;
    if (spec.layout.empty())
      fail(file, path + ".is", "the tensor must be one of 'tensors', but is '" + spec.is + "'");
  }
  return spec;
}

ContainerSpec container_spec(const Json& json, const std::vector<LogicalSpec>& logical,
                             const std::string& file, const std::string& path) {
  Fields f(json, file, path, ErrorKind::Recipe);
  ContainerSpec spec;
  spec.match = f.texts_or("match", {});
  if (spec.match.empty()) f.fail("match", "the list must name at least one config, but is empty");
  spec.base_prefix = f.text_or("base_prefix", "");
  if (const Json* per_block = f.find("per_block")) {
    Fields p(*per_block, file, path + ".per_block", ErrorKind::Recipe);
    spec.per_block = {p.text("match"), p.texts_or("axes", {}), p.texts_or("keys", {})};
    if (std::find(spec.match.begin(), spec.match.end(), spec.per_block.match) == spec.match.end())
      p.fail("match", "the architecture must be one of '" + path + ".match', but is '" + spec.per_block.match + "'");
    for (const std::string& axis : spec.per_block.axes)
      if (axis != "kv" && axis != "q" && axis != "ffn") p.fail("axes", "an axis must be kv, q or ffn, but is '" + axis + "'");
    p.finish();
  }
  spec.read = expressions(f.at("read"), file, path + ".read");
  spec.write = expressions(f.at("write"), file, path + ".write");
  const Json& fresh = f.at("fresh");
  if (!fresh.is_object()) f.fail("fresh", "the value must be an object, but is not");
  for (const auto& [key, value] : fresh.items())
    spec.fresh.emplace_back(key, std::make_shared<const Json>(value));
  if (const Json* refuse = f.find("refuse")) {
    if (!refuse->is_array()) f.fail("refuse", "the value must be a list, but is not");
    for (std::size_t i = 0; i < refuse->size(); ++i) {
      Fields r((*refuse)[i], file, path + ".refuse[" + std::to_string(i) + "]", ErrorKind::Recipe);
      Refusal refusal{Expr::parse(r.text("when"), file), r.text("say")};
      r.finish();
      spec.refuse.push_back(std::move(refusal));
    }
  }
  const Json& laws = f.at("laws");
  if (!laws.is_array()) f.fail("laws", "the value must be a list, but is not");
  for (std::size_t i = 0; i < laws.size(); ++i) {
    Fields l(laws[i], file, path + ".laws[" + std::to_string(i) + "]", ErrorKind::Recipe);
    Law law;
    law.axis = l.text("axis");
    if (!known_axes().contains(law.axis))
      l.fail("axis", "the axis must be one that models have, but is '" + law.axis + "'");
    law.must = Expr::parse(l.text("must"), file);
    law.say = l.text("say");
    l.finish();
    spec.laws.push_back(std::move(law));
  }
  spec.harmless = f.texts_or("harmless", {});
  const Json& tensors = f.at("tensors");
  if (!tensors.is_array()) f.fail("tensors", "the value must be a list, but is not");
  for (std::size_t i = 0; i < tensors.size(); ++i)
    spec.tensors.push_back(
        stored_spec(tensors[i], logical, file, path + ".tensors[" + std::to_string(i) + "]"));
  f.finish();
  return spec;
}

// Keys of common.json: harmless in every family.
std::vector<std::string> common_keys(const std::string& container) {
  for (const auto& [name, text] : built_in_templates()) {
    if (name != "common.json") continue;
    Json json = parse_json(text, name, ErrorKind::Recipe);
    return json.at(container).get<std::vector<std::string>>();
  }
  return {};
}

Templates parse_built_in() {
  Templates all;
  for (const auto& [name, text] : built_in_templates())
    if (name != "common.json")
      all.push_back(parse_template(parse_json(text, name, ErrorKind::Recipe), "configs/arch/" + name));
  return all;
}

}  // namespace

std::shared_ptr<const Template> parse_template(const Json& json, const std::string& file) {
  Fields f(json, file, "", ErrorKind::Recipe);
  if (const std::int64_t version = f.integer("slmc_arch"); version != 1)
    f.fail("slmc_arch", "the version must be 1, but is " + std::to_string(version));
  auto result = std::make_shared<Template>();
  result->file = file;
  result->hash = sha256(dump_compact(json));
  result->family = f.text("family");
  const Json& tensors = f.at("tensors");
  if (!tensors.is_array()) f.fail("tensors", "the value must be a list, but is not");
  std::set<std::string> seen;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::string path = "tensors[" + std::to_string(i) + "]";
    Fields t(tensors[i], file, path, ErrorKind::Recipe);
    LogicalSpec spec;
    spec.name = t.text("as");
    spec.dims = parse_layout(t.text("dims"), file + " " + path + ".dims");
    t.finish();
    check_axes(spec.dims, file, path + ".dims");
    if (spec.dims.size() > 2)
      t.fail("dims", "a tensor must have one or two dimensions, but has " + std::to_string(spec.dims.size()));
    if (!seen.insert(spec.name).second)
      t.fail("as", "a tensor must be named once, but '" + spec.name + "' stands twice");
    result->tensors.push_back(std::move(spec));
  }
  for (const char* container : {"hf", "gguf"})
    if (const Json* c = f.find(container)) {
      ContainerSpec spec = container_spec(*c, result->tensors, file, container);
      for (std::string& key : common_keys(container)) spec.harmless.push_back(std::move(key));
      result->containers.emplace(container, std::move(spec));
    }
  f.finish();
  if (result->containers.empty()) fail(file, "", "a template must describe 'hf' or 'gguf', but does neither");
  return result;
}

Templates load_templates(const std::filesystem::path& more) {
  static const Templates built_in = parse_built_in();
  Templates all;
  if (!more.empty()) {
    if (!std::filesystem::is_directory(more))
      throw Error(ErrorKind::Usage, Place{more.string(), 0, 0, 1, {}},
                  "the templates must be in a folder, but there is none");
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(more))
      if (entry.path().extension() == ".json" && entry.path().filename() != "common.json")
        files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    for (const auto& file : files)
      all.push_back(parse_template(read_json(file, ErrorKind::Recipe), file.string()));
  }
  for (const auto& t : built_in)
    if (std::none_of(all.begin(), all.end(), [&](const auto& other) { return other->family == t->family; }))
      all.push_back(t);
  return all;
}

std::shared_ptr<const Template> find_template(const Templates& all, const std::string& container,
                                              const std::string& match, const std::string& file) {
  std::vector<std::string> known;
  for (const auto& t : all) {
    const auto it = t->containers.find(container);
    if (it == t->containers.end()) continue;
    for (const std::string& m : it->second.match) {
      if (m == match) return t;
      known.push_back(m);
    }
  }
  std::string list;
  for (const std::string& k : known) list += (list.empty() ? "" : ", ") + k;
  const std::string near = closest(match, known);
  throw Error(ErrorKind::Unsupported, Place{file, 0, 0, 1, {}},
              std::string(container == "hf" ? "the model_type" : "general.architecture") +
                  " must be one of " + list + ", but is '" + match + "'",
              near.empty() ? "a new family is one file in configs/arch" : "did you mean '" + near + "'?");
}

}  // namespace slmc::ir
