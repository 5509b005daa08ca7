#include "ir/gguf_form.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "io/safetensors.h"
#include "ir/cost.h"
#include "ir/keys.h"
#include "ir/origin.h"
#include "ir/state.h"

namespace slmc::ir {
namespace {

using io::GgmlType;
using io::GgufValue;

std::string upper_if_dense(const io::GgmlTypeInfo& type) {
  std::string name(type.name);
  if (type.block == 1)
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return name;
}

std::int64_t count_of(const TensorSpec& spec) {
  std::int64_t n = 1;
  for (const std::int64_t s : spec.shape) n *= s;
  return n;
}

const io::GgmlTypeInfo& writable_type(const std::string& name) {
  const io::GgmlTypeInfo* type = io::ggml_type(std::string_view(name));
  if (type && type->writable) return *type;
  std::vector<std::string> known = {"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1"};
  const std::string near = closest(name, known);
  throw Error(ErrorKind::Recipe,
              "the stored type must be f32, f16, bf16, q8_0, q4_0, q4_1, q5_0 or q5_1, but is '" + name + "'",
              near.empty() ? "" : "did you mean '" + near + "'?");
}

// general.file_type of llama.cpp, by the type that most matrix elements have; it informs people, loaders read
// each tensor's own type.
std::uint32_t file_type(const Model& model, const TypeOf& type_of) {
  static const std::map<std::string, std::uint32_t> number = {
      {"F32", 0}, {"F16", 1}, {"q4_0", 2}, {"q4_1", 3}, {"q8_0", 7}, {"q5_0", 8}, {"q5_1", 9}, {"BF16", 32}};
  std::map<std::string, std::int64_t> elements;
  for (const TensorSpec& spec : model.tensors())
    if (!spec.derived && spec.shape.size() == 2 && spec.block >= 0) elements[type_of(spec)] += count_of(spec);
  std::string most = "F32";
  for (const auto& [type, n] : elements)
    if (n > elements[most]) most = type;
  return number.at(most);
}

// Keeps the integer or float type that the key already has.
GgufValue typed_like(const GgufValue* old, const Json& value) {
  GgufValue made = to_gguf_value(value);
  if (!old || old->type == made.type) return made;
  if (value.is_number_integer() && old->type == io::GgufType::U64)
    return {io::GgufType::U64, {}, static_cast<std::uint64_t>(value.get<std::int64_t>())};
  if (value.is_number() && old->type == io::GgufType::F32)
    return GgufValue::f32(static_cast<float>(value.get<double>()));
  return made;
}

}  // namespace

bool glob_matches(std::string_view glob, std::string_view name) {
  std::size_t g = 0, n = 0, star = std::string_view::npos, resume = 0;
  while (n < name.size()) {
    if (g < glob.size() && (glob[g] == '?' || (glob[g] != '*' && glob[g] == name[n]))) {
      ++g, ++n;
    } else if (g < glob.size() && glob[g] == '*') {
      star = g++;
      resume = n;
    } else if (star != std::string_view::npos) {
      g = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  while (g < glob.size() && glob[g] == '*') ++g;
  return g == glob.size();
}

TypeOf gguf_type_of(const Model& model, const Format& format) {
  std::map<std::string, std::string> of;
  for (const TensorSpec& spec : model.tensors()) {
    std::string type;
    for (const auto& [glob, name] : format)
      if (glob_matches(glob, spec.name)) type = name;
    if (type.empty()) {
      const io::GgmlTypeInfo* own = io::ggml_type(std::string_view(spec.stored_dtype));
      type = own && own->writable ? spec.stored_dtype : "f32";
    }
    const io::GgmlTypeInfo& wanted = writable_type(type);
    const bool vector = spec.shape.size() < 2 || spec.name == "pos";
    const bool ragged = !vector && spec.shape.back() % wanted.block != 0;
    of[spec.name] = vector ? "F32" : ragged ? "F16" : upper_if_dense(wanted);
  }
  return [of](const TensorSpec& spec) { return of.at(spec.name); };
}

std::vector<io::GgufWriter::Entry> gguf_entries(const Model& model, const Fit& fit, const TypeOf& type_of) {
  std::vector<io::GgufWriter::Entry> entries;
  for (const StoredTensor& s : fit.stored)
    entries.push_back({s.name, writable_type(type_of(*model.find(s.parts[0].tensor))).type, s.shape});
  if (fit.rope_factors)
    entries.push_back({"rope_freqs.weight", GgmlType::F32, {model.sizes().blocks[0].freq}});
  return entries;
}

io::GgufMetadata gguf_metadata(const Model& model, const Fit& fit, const TypeOf& type_of) {
  const Model::State& state = model.state();
  const bool own = model.container() == "gguf" && state.metadata;
  io::GgufMetadata metadata;
  if (own) {
    metadata = *state.metadata;
    const std::string old = prefix_of(state.config, "gguf");
    for (auto& [key, value] : metadata)
      if (key.starts_with(old)) key = fit.architecture + "." + key.substr(old.size());
  }
  io::set(metadata, "general.architecture", GgufValue::text(fit.architecture));
  if (!own) io::set(metadata, "general.type", GgufValue::text("model"));
  for (const KeyChange& change : fit.changes) {
    if (change.key == "general.architecture") continue;
    if (change.value.is_null()) {
      std::erase_if(metadata, [&](const auto& pair) { return pair.first == change.key; });
      continue;
    }
    const GgufValue* old = io::find(metadata, change.key);
    io::set(metadata, change.key, typed_like(old, change.value));
  }
  bool quantized = false;
  for (const TensorSpec& spec : model.tensors())
    quantized = quantized || (!spec.derived && type_of(spec).front() == 'q');
  io::set(metadata, "general.file_type", GgufValue::u32(file_type(model, type_of)));
  if (quantized) io::set(metadata, "general.quantization_version", GgufValue::u32(2));
  if (!own && model.tokenizer()) {
    for (auto& [key, value] : model.tokenizer()->to_gguf(model.sizes().vocab)) io::set(metadata, key, value);
    for (const char* file : {"chat_template.jinja", "tokenizer_config.json"}) {
      const auto it = model.side_files().find(file);
      if (it == model.side_files().end() || io::find(metadata, "tokenizer.chat_template")) continue;
      if (std::string(file).ends_with(".jinja")) {
        io::set(metadata, "tokenizer.chat_template", GgufValue::text(it->second));
      } else {
        const Json json = parse_json(it->second, file, ErrorKind::Model);
        const auto chat = json.find("chat_template");
        if (chat != json.end() && chat->is_string())
          io::set(metadata, "tokenizer.chat_template", GgufValue::text(chat->get<std::string>()));
      }
    }
  }
  if (!(model.origin() == Origin{}))
    io::set(metadata, "slmc.origin",
            GgufValue::text(dump_compact(to_json(model.origin(), first_ancestor(model)))));
  if (!model.lineage().empty())
    io::set(metadata, "slmc.lineage", GgufValue::text(dump_compact(model.lineage())));
  return metadata;
}

std::map<std::string, std::string> gguf_types(const Model& model, const std::string& type) {
  const io::GgmlTypeInfo& base = writable_type(type);
  Format format = {{"*", type}};
  if (base.block > 1 && base.type != GgmlType::Q8_0) {
    format.push_back({"embed", "q8_0"});
    format.push_back({"head", "q8_0"});
  }
  const TypeOf type_of = gguf_type_of(model, format);
  std::map<std::string, std::string> result;
  for (const TensorSpec& spec : model.tensors())
    if (!spec.derived) result[spec.name] = type_of(spec);
  return result;
}

std::int64_t gguf_bytes(const Model& model, const Format& format) {
  const Fit fit = require_fit(model, "gguf");
  const TypeOf type_of = gguf_type_of(model, format);
  return static_cast<std::int64_t>(
      io::gguf_file_bytes(gguf_metadata(model, fit, type_of), gguf_entries(model, fit, type_of)));
}

DType common_dtype(const Model& model) {
  std::optional<DType> out;
  for (const TensorSpec& spec : model.tensors()) {
    if (spec.derived) continue;
    const std::optional<DType> stored = dtype_from(spec.stored_dtype);
    if (!stored || (out && *out != *stored)) return DType::F32;
    out = stored;
  }
  return out.value_or(DType::F32);
}

std::int64_t hf_bytes(const Model& model, DType dtype) {
  std::uint64_t data = 0;
  std::vector<io::StoredTensor> entries;
  for (const StoredTensor& s : require_fit(model, "hf").stored) {
    std::uint64_t bytes = size_of(dtype);
    for (const std::int64_t n : s.shape) bytes *= static_cast<std::uint64_t>(n);
    entries.push_back({.name = s.name, .dtype = dtype, .shape = s.shape, .bytes = bytes});
    data += bytes;
  }
  return static_cast<std::int64_t>(data + io::safetensors_header(entries, {{"format", "pt"}}).size());
}

std::int64_t file_bytes(const std::filesystem::path& model) {
  if (!std::filesystem::is_directory(model)) return static_cast<std::int64_t>(std::filesystem::file_size(model));
  std::int64_t out = 0;
  for (const auto& entry : std::filesystem::directory_iterator(model)) {
    if (entry.path().extension() == ".safetensors") out += static_cast<std::int64_t>(entry.file_size());
  }
  return out;
}

}  // namespace slmc::ir
