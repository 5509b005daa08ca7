// Opens a model: a Hugging Face folder, a GGUF file, or "hf:org/name" in the local cache.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "io/gguf.h"
#include "io/safetensors.h"
#include "ir/origin.h"
#include "ir/packed.h"
#include "ir/state.h"

namespace slmc::ir {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMostSideBytes = 16 << 20;

// Small text files of a Hugging Face folder that travel with the model as they are.
const std::vector<std::string>& side_file_names() {
  static const std::vector<std::string> names = {"tokenizer_config.json",
                                                 "special_tokens_map.json",
                                                 "generation_config.json",
                                                 "chat_template.jinja",
                                                 "added_tokens.json",
                                                 "vocab.json",
                                                 "merges.txt",
                                                 "README.md",
                                                 "LICENSE"};
  return names;
}

Model load_folder(const fs::path& folder, const Templates& templates) {
  const fs::path config_file = folder / "config.json";
  if (!fs::exists(config_file))
    throw Error(ErrorKind::Model, Place{folder.string(), 0, 0, 1, {}},
                "a model folder must hold config.json, but does not");
  Json config = read_json(config_file, ErrorKind::Model);
  const auto type = config.is_object() ? config.find("model_type") : config.end();
  if (type == config.end() || !type->is_string())
    throw Error(ErrorKind::Model, Place{config_file.string(), 0, 0, 1, {}},
                "the config must name its model_type, but does not");
  const auto arch = find_template(templates, "hf", type->get<std::string>(), config_file.string());
  const auto files =
      std::make_shared<const std::vector<io::SafetensorsFile>>(io::open_safetensors_folder(folder));
  std::map<std::string, StoredValue, std::less<>> stored;
  for (std::size_t f = 0; f < files->size(); ++f)
    for (const io::StoredTensor& t : (*files)[f].tensors())
      stored[t.name] = {t.shape, std::string(to_string(t.dtype)),
                        [files, f, name = t.name] { return (*files)[f].read(name); }};
  unpack_stored(stored, config, folder.string());
  ConfigSource source;
  source.config = &config;
  source.file = folder.string();
  std::shared_ptr<Model::State> state = assemble(arch, "hf", source, std::move(stored));
  state->templates = templates;
  read_companions(*state, folder);
  if (fs::exists(folder / "origin.json"))
    state->origin = origin_from_json(read_json(folder / "origin.json", ErrorKind::Model),
                                     (folder / "origin.json").string());
  if (fs::exists(folder / "lineage.json"))
    state->lineage = read_json(folder / "lineage.json", ErrorKind::Model);
  state->config = std::move(config);
  return Model(state);
}

Model load_gguf(const fs::path& path, const Templates& templates) {
  const auto file = std::make_shared<const io::GgufFile>(io::GgufFile::open(path));
  Json config = config_from_metadata(file->metadata());
  const auto name = config.find("general.architecture");
  if (name == config.end() || !name->is_string())
    throw Error(ErrorKind::Model, Place{path.string(), 0, 0, 1, {}},
                "the metadata must name general.architecture, but does not");
  if (const auto split = config.find("split.count");
      split != config.end() && split->is_number() && split->get<double>() > 1)
    throw Error(ErrorKind::Unsupported, Place{path.string(), 0, 0, 1, {}},
                "a GGUF must be one file, but this one is split",
                "join the parts with llama-gguf-split --merge");
  const auto arch = find_template(templates, "gguf", name->get<std::string>(), path.string());
  std::map<std::string, StoredValue, std::less<>> stored;
  for (const io::GgufTensor& t : file->tensors()) {
    const io::GgmlTypeInfo& type = io::info(t.type);
    std::string dtype(type.name);
    if (type.block == 1)
      std::transform(dtype.begin(), dtype.end(), dtype.begin(),
                     [](char c) { return static_cast<char>(std::toupper(c)); });
    stored[t.name] = {t.shape, dtype, [file, tensor = t] { return file->read(tensor); }};
  }
  ConfigSource source;
  source.config = &config;
  source.file = path.string();
  std::shared_ptr<Model::State> state = assemble(arch, "gguf", source, std::move(stored));
  state->templates = templates;
  state->metadata = std::make_shared<const io::GgufMetadata>(file->metadata());
  const io::GgufValue* tokens = file->find("tokenizer.ggml.tokens");
  if (tokens) state->tokenizer = text::Tokenizer::from_gguf(file->metadata(), path.string());
  for (const char* key : {"slmc.origin", "slmc.lineage"})
    if (const auto it = config.find(key); it != config.end() && it->is_string()) {
      const Json json = parse_json(it->get<std::string>(), path.string() + " " + key, ErrorKind::Model);
      if (std::string(key) == "slmc.origin")
        state->origin = origin_from_json(json, path.string());
      else
        state->lineage = json;
    }
  state->config = std::move(config);
  return Model(state);
}

// HF_HOME layout: <cache>/hub/models--org--name/snapshots/<commit>/, the commit named by refs/main.
fs::path cached_folder(const std::string& name, const LoadOptions& options) {
  if (options.hf_cache.empty())
    throw Error(ErrorKind::Usage, "'hf:' models need a local cache, but none is set", "set HF_HOME");
  std::string folder = "models--" + name;
  for (std::size_t at; (at = folder.find('/')) != std::string::npos;) folder.replace(at, 1, "--");
  for (const fs::path& root : {options.hf_cache / "hub" / folder, options.hf_cache / folder}) {
    if (!fs::is_directory(root / "snapshots")) continue;
    if (fs::exists(root / "refs" / "main")) {
      std::string commit = read_text(root / "refs" / "main", 4096);
      while (!commit.empty() && (commit.back() == '\n' || commit.back() == ' ')) commit.pop_back();
      if (fs::is_directory(root / "snapshots" / commit)) return root / "snapshots" / commit;
    }
    std::vector<fs::path> all;
    for (const auto& entry : fs::directory_iterator(root / "snapshots")) all.push_back(entry.path());
    if (all.size() == 1) return all[0];
  }
  throw Error(
      ErrorKind::Model,
      "the model 'hf:" + name + "' must be in the cache " + options.hf_cache.string() + ", but is not",
      "download it first; slmc reads only local files");
}

}  // namespace

void read_companions(Model::State& state, const fs::path& folder) {
  if (fs::exists(folder / "tokenizer.json"))
    state.tokenizer = text::Tokenizer::from_file(folder / "tokenizer.json");
  for (const std::string& name : side_file_names())
    if (fs::exists(folder / name)) state.side_files[name] = read_text(folder / name, kMostSideBytes);
}

fs::path find_model(const std::string& where, const LoadOptions& options) {
  return where.starts_with("hf:") ? cached_folder(where.substr(3), options) : fs::path(where);
}

Model load(const std::string& where, const LoadOptions& options) {
  return load_with(find_model(where, options).string(), load_templates(options.templates));
}

Model load_with(const std::string& where, const Templates& templates) {
  const fs::path path(where);
  if (!fs::exists(path)) {
    std::vector<std::string> siblings;
    const fs::path parent = path.has_parent_path() ? path.parent_path() : fs::path(".");
    if (fs::is_directory(parent))
      for (const auto& entry : fs::directory_iterator(parent))
        siblings.push_back(entry.path().filename().string());
    const std::string near = closest(path.filename().string(), siblings);
    throw Error(ErrorKind::Model, Place{where, 0, 0, 1, {}},
                "the model must be a folder or a .gguf file, but there is nothing",
                near.empty() ? "" : "did you mean '" + near + "'?");
  }
  return fs::is_directory(path) ? load_folder(path, templates) : load_gguf(path, templates);
}

}  // namespace slmc::ir
