// Hugging Face folders: config.json, weights, tokenizer, side files, origin and lineage.
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "io/safetensors.h"
#include "ir/origin.h"
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

TypeOf types(const Model& model, std::optional<DType> dtype, const std::vector<StoredTensor>& stored) {
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
    elements[type_of(spec)] += n;
  }
  std::string most = "F32";
  for (const auto& [type, n] : elements)
    if (n > elements[most]) most = type;
  return most == "F16" ? "float16" : most == "BF16" ? "bfloat16" : most == "F64" ? "float64" : "float32";
}

Json config_of(const Model& model, const Fit& fit, const TypeOf& type_of) {
  const bool own = model.container() == "hf";
  Json config = own ? model.config() : Json::object();
  for (const KeyChange& change : fit.changes) set_key(config, "hf", change);
  if (!own && model.tokenizer()) {
    if (const auto id = model.tokenizer()->bos()) config["bos_token_id"] = *id;
    if (const auto id = model.tokenizer()->eos()) config["eos_token_id"] = *id;
  }
  const std::string dtype = torch_dtype(model, type_of);
  const char* key = config.contains("torch_dtype") && !config.contains("dtype") ? "torch_dtype" : "dtype";
  config[key] = dtype;
  return config;
}

// tokenizer_config.json for a tokenizer that came without one: enough for AutoTokenizer.
Json tokenizer_config(const text::Tokenizer& tokenizer, const Model& model) {
  Json json = Json::object();
  json["tokenizer_class"] = "PreTrainedTokenizerFast";
  if (const auto id = tokenizer.bos()) json["bos_token"] = tokenizer.piece(*id);
  if (const auto id = tokenizer.eos()) json["eos_token"] = tokenizer.piece(*id);
  json["model_max_length"] = model.decoder().context;
  json["clean_up_tokenization_spaces"] = false;
  const auto template_key = model.config().find("tokenizer.chat_template");
  if (template_key != model.config().end() && template_key->is_string())
    json["chat_template"] = *template_key;
  return json;
}

void write_weights(const Model& model, const Fit& fit, const TypeOf& type_of, const fs::path& folder,
                   const Progress& progress) {
  std::vector<io::SafetensorsWriter::Entry> entries;
  std::int64_t all = 0, done = 0;
  for (const StoredTensor& s : fit.stored) {
    const DType dtype = *dtype_from(type_of(*model.find(s.parts[0].tensor)));
    entries.push_back({s.name, dtype, s.shape});
    std::int64_t n = static_cast<std::int64_t>(size_of(dtype));
    for (const std::int64_t d : s.shape) n *= d;
    all += n;
  }
  io::SafetensorsWriter writer(folder, entries, {{"format", "pt"}});
  for (const StoredTensor& s : fit.stored) {
    const io::TensorData data = stored_form(model, s, fit, type_of);
    writer.write(s.name, data.bytes);
    done += static_cast<std::int64_t>(data.bytes.size());
    if (progress.tick) progress.tick(done, all);
  }
  writer.finish();
}

}  // namespace

void write_hf(const Model& model, const fs::path& folder, std::optional<DType> dtype,
              const Progress& progress) {
  if (dtype && *dtype != DType::F32 && *dtype != DType::F16 && *dtype != DType::BF16 && *dtype != DType::F64)
    throw Error(ErrorKind::Usage,
                "the stored type of a Hugging Face folder must be F32, F16 or BF16, but is " +
                    std::string(to_string(*dtype)));
  const Fit how = require_fit(model, "hf");
  const TypeOf type_of = types(model, dtype, how.stored);
  AtomicFolder out(folder, false);
  write_weights(model, how, type_of, out.path(), progress);
  write_json(out.path() / "config.json", config_of(model, how, type_of));
  if (model.tokenizer()) {
    write_text(out.path() / "tokenizer.json", model.tokenizer()->to_json());
    if (!model.side_files().contains("tokenizer_config.json"))
      write_json(out.path() / "tokenizer_config.json", tokenizer_config(*model.tokenizer(), model));
  }
  for (const auto& [name, text] : model.side_files()) write_text(out.path() / name, text);
  if (!(model.origin() == Origin{}))
    write_json(out.path() / "origin.json", to_json(model.origin(), first_ancestor(model)));
  if (!model.lineage().empty()) write_json(out.path() / "lineage.json", model.lineage());
  require_read_back(out.path().string(), model, how, type_of);
  out.commit();
}

}  // namespace slmc::ir
