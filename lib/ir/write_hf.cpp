// Hugging Face folders: config.json, weights, tokenizer, side files, origin and lineage.
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "io/safetensors.h"
#include "ir/origin.h"
#include "ir/packed.h"
#include "ir/state.h"
#include "ir/store.h"
#include "ir/write.h"

namespace slmc::ir {
namespace {

namespace fs = std::filesystem;

// What a dense tensor keeps, and what a quantized one becomes.
std::string kept_type(const TensorSpec& spec) {
  const std::optional<DType> dtype = dtype_from(spec.stored_dtype);
  return dtype && is_float(*dtype) && size_of(*dtype) >= 2 ? spec.stored_dtype : "F32";
}

TypeOf dense_types(const Model& model, std::optional<DType> dtype, const std::vector<StoredTensor>& stored) {
  std::map<std::string, std::string> of;
  for (const TensorSpec& spec : model.tensors())
    of[spec.name] = dtype ? std::string(to_string(*dtype)) : kept_type(spec);
  // Fused tensors have one type: the widest of their parts.
  for (const StoredTensor& s : stored) {
    std::string widest;
    for (const Part& part : s.parts)
      if (widest.empty() || size_of(*dtype_from(of[part.tensor])) > size_of(*dtype_from(widest)))
        widest = of[part.tensor];
      else if (of[part.tensor] != widest &&
               size_of(*dtype_from(of[part.tensor])) == size_of(*dtype_from(widest)))
        widest = "F32";
    for (const Part& part : s.parts) of[part.tensor] = widest;
  }
  return [of](const TensorSpec& spec) { return of.at(spec.name); };
}

// The spelling of torch for config.json, of the type that most weights have.
std::string torch_dtype(const Model& model, const TypeOf& type_of) {
  std::map<std::string, std::int64_t> elements;
  for (const TensorSpec& spec : model.tensors()) {
    if (spec.derived) continue;
    std::int64_t n = 1;
    for (const std::int64_t s : spec.shape) n *= s;
    if (type_of(spec) != kPacked) elements[type_of(spec)] += n;
  }
  std::string most = "F32";
  for (const auto& [type, n] : elements)
    if (n > elements[most]) most = type;
  return most == "F16" ? "float16" : most == "BF16" ? "bfloat16" : most == "F64" ? "float64" : "float32";
}

Json config_of(const Model& model, const Fit& fit, const TypeOf& type_of) {
  const bool own = model.container() == "hf";
  Json config = own ? model.config() : Json::object();
  config.erase("quantization_config");
  for (const KeyChange& change : fit.changes) set_key(config, "hf", change);
  if (!own) {
    // All three, null too: transformers' defaults are ids of one family's vocabulary (Phi-3 pads with 32000), which this one may lack.
    const text::SpecialTokens special = model.tokenizer() ? model.tokenizer()->special() : text::SpecialTokens{};
    for (const auto& [key, id] : {std::pair("bos_token_id", special.bos), {"eos_token_id", special.eos}, {"pad_token_id", special.padding}})
      config[key] = id ? Json(*id) : Json();
  }
  const std::string dtype = torch_dtype(model, type_of);
  const char* key = config.contains("torch_dtype") && !config.contains("dtype") ? "torch_dtype" : "dtype";
  config[key] = dtype;
  return config;
}

Json tokenizer_config(const Model& model) {
  Json json = model.tokenizer()->config();
  json["model_max_length"] = model.decoder().context;
  return json;
}

// The tensors that a stored one becomes in the file: itself, or its packed form.
// `packed`: the scheme of all packed ones.
std::vector<io::SafetensorsWriter::Entry> entries_of(const Model& model, const StoredTensor& s, const TypeOf& type_of,
                                                     const std::optional<io::QuantScheme>& packed) {
  const TensorSpec& first = *model.find(s.parts[0].tensor);
  const std::string type = type_of(first);
  if (type == kPacked) return packed_entries(s.name, s.shape, packed.value());
  return {{s.name, *dtype_from(type), s.shape}};
}

void write_weights(const Model& model, const Fit& fit, const TypeOf& type_of, const std::optional<io::QuantScheme>& scheme,
                   const fs::path& folder, const Progress& progress) {
  std::vector<io::SafetensorsWriter::Entry> entries;
  std::int64_t all = 0, done = 0;
  for (const StoredTensor& s : fit.stored) {
    for (const io::SafetensorsWriter::Entry& e : entries_of(model, s, type_of, scheme)) {
      std::int64_t n = static_cast<std::int64_t>(size_of(e.dtype));
      for (const std::int64_t d : e.shape) n *= d;
      all += n;
      entries.push_back(e);
    }
  }
  io::SafetensorsWriter writer(folder, entries, {{"format", "pt"}});
  for (const StoredTensor& s : fit.stored) {
    const io::TensorData data = stored_form(model, s, fit, type_of);
    const std::vector<io::SafetensorsWriter::Entry> names = entries_of(model, s, type_of, scheme);
    const bool packed = names.size() > 1;
    const std::vector<std::vector<std::byte>> parts = packed ? packed_bytes(data) : std::vector<std::vector<std::byte>>{};
    for (std::size_t i = 0; i < names.size(); ++i) {
      const std::span<const std::byte> bytes = packed ? std::span<const std::byte>(parts[i]) : data.bytes;
      writer.write(names[i].name, bytes);
      done += static_cast<std::int64_t>(bytes.size());
    }
    if (progress.tick) progress.tick(done, all);
  }
  writer.finish();
}

using ConfigChange = std::function<void(Json& config)>;

void write_folder(const Model& model, const fs::path& folder, const Fit& how, const TypeOf& type_of, const std::optional<io::QuantScheme>& packed,
                  const ConfigChange& change, const Progress& progress) {
  AtomicFolder out(folder, false);
  write_weights(model, how, type_of, packed, out.path(), progress);
  Json config = config_of(model, how, type_of);
  if (change) change(config);
  write_json(out.path() / "config.json", config);
  if (model.tokenizer()) {
    write_text(out.path() / "tokenizer.json", model.tokenizer()->to_json());
    if (!model.side_files().contains("tokenizer_config.json"))
      write_json(out.path() / "tokenizer_config.json", tokenizer_config(model));
  }
  for (const auto& [name, text] : model.side_files()) write_text(out.path() / name, text);
  if (!(model.origin() == Origin{}))
    write_json(out.path() / "origin.json", to_json(model.origin(), first_ancestor(model)));
  if (!model.lineage().empty()) write_json(out.path() / "lineage.json", model.lineage());
  require_read_back(out.path().string(), model, how, type_of);
  out.commit();
}

}  // namespace

std::map<std::string, std::string> hf_matrices(const Model& model) {
  std::map<std::string, std::string> out;
  for (const StoredTensor& s : require_fit(model, "hf").stored) {
    if (s.parts.size() != 1 || s.shape.size() != 2) continue;
    const TensorSpec& spec = *model.find(s.parts[0].tensor);
    if (s.shape == spec.shape && contiguous_run(s.parts[0]) == 0) out[spec.name] = s.name;
  }
  return out;
}

void write_hf(const Model& model, const fs::path& folder, std::optional<DType> dtype,
              const Progress& progress) {
  if (dtype && *dtype != DType::F32 && *dtype != DType::F16 && *dtype != DType::BF16 && *dtype != DType::F64)
    throw Error(ErrorKind::Usage,
                "the stored type of a Hugging Face folder must be F32, F16 or BF16, but is " +
                    std::string(to_string(*dtype)));
  const Fit how = require_fit(model, "hf");
  write_folder(model, folder, how, dense_types(model, dtype, how.stored), {}, {}, progress);
}

namespace {

// Which block matrices stay packed. Their scheme, which must be one.
struct Packed {
  std::optional<io::QuantScheme> scheme;
  std::map<std::string, std::string> types;
};

Packed packed_types(const Model& model, DType dtype) {
  Packed out;
  for (const TensorSpec& spec : model.tensors()) {
    out.types[spec.name] = std::string(to_string(dtype));
    if (spec.block < 0 || spec.derived || spec.shape.size() != 2) continue;
    const io::TensorData data = model.read(spec.name);
    if (!data.quantized || !can_pack(data.quantized->scheme)) continue;
    if (out.scheme && !(*out.scheme == data.quantized->scheme))
      throw Error(ErrorKind::Recipe, "packed matrices must have one scheme, but '" + spec.name + "' has another than those before it");
    out.scheme = data.quantized->scheme;
    out.types[spec.name] = kPacked;
  }
  if (!out.scheme)
    throw Error(ErrorKind::Recipe, "a packed folder must have matrices of 4 or 8 bits, symmetric or with zero points, but the model has none",
                "quantize it with to: packed");
  return out;
}

// Modules of matrices that stay as they are, by the names of the file.
std::vector<std::string> unpacked_modules(const Fit& fit, const TypeOf& type_of, const Model& model) {
  std::vector<std::string> out;
  for (const StoredTensor& s : fit.stored) {
    constexpr std::string_view kWeight = ".weight";
    if (s.shape.size() != 2 || !s.name.ends_with(kWeight) || type_of(*model.find(s.parts[0].tensor)) == kPacked) continue;
    out.push_back(s.name.substr(0, s.name.size() - kWeight.size()));
  }
  out.emplace_back("lm_head");                       // tied heads have no tensor of their own
  return out;
}

}  // namespace

void require_packable(const Model& model) {
  const Fit how = require_fit(model, "hf");
  for (const StoredTensor& s : how.stored) {
    for (const Part& part : s.parts) {
      const TensorSpec& spec = *model.find(part.tensor);
      if (spec.block < 0 || spec.shape.size() != 2 || moves_rows(part, s.shape.back(), spec.shape.back())) continue;
      throw Error(ErrorKind::Recipe, "a packed folder must hold rows of matrices whole, but the " + model.family() + " family stores '" + s.name + "' in another form",
                  "take to: gguf");
    }
  }
}

void write_packed(const Model& model, const fs::path& folder, DType dtype, const Progress& progress) {
  require_packable(model);
  const Fit how = require_fit(model, "hf");
  const Packed packed = packed_types(model, dtype);
  const TypeOf type_of = [&](const TensorSpec& spec) { return packed.types.at(spec.name); };
  const ConfigChange change = [&](Json& config) { config["quantization_config"] = packed_config(*packed.scheme, unpacked_modules(how, type_of, model)); };
  write_folder(model, folder, how, type_of, packed.scheme, change, progress);
}

}  // namespace slmc::ir
