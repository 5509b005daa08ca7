#pragma once
// The static check of a whole chain, before any weight is read: files exist, references point backwards,
// needs are met, shapes and containers work out, blocks of quantized types divide the widths. The model's
// headers are read, nothing else.
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "ir/model.h"
#include "recipe/recipe.h"

namespace slmc::recipe {

// What the engine says about itself (op "doctor"); part of every key. Without it nothing can be said about
// reuse.
struct EngineFacts {
  std::string torch;   // "2.13.0"
  std::string device;  // device kind: "cpu", or the GPU's name
  std::string gemm;    // kernel path: "mkl", "onednn", "cublas"
};

struct Environment {
  std::filesystem::path hf_cache;   // for hf:org/name; empty = refused
  std::filesystem::path templates;  // more templates than the built-in ones
  std::filesystem::path work;       // where stage folders lie
  std::optional<EngineFacts> facts;
  int threads = 1;  // > 0
  int ranks = 1;
};

// One model of the chain: the input, or what a stage makes.
struct Artefact {
  std::string id;          // "model", or the stage's id
  std::string container;   // "hf", "gguf", "packed"
  std::string family, arch;  // the template that it is read through, and ir::Template::hash
  bool quantized = false;  // holds weights that dense stages refuse
  bool exact = true;       // false: a size follows from a measurement; numbers are of the input's shape
  bool blank = false;      // the input is a config without weights, which the first stage draws
  std::int64_t parameters = 0;
  std::int64_t bytes = 0;                     // ir::file_bytes, forecast for what stages make
  std::int64_t kv_bytes_per_token = 0;        // 16-bit cache
  std::map<std::string, std::string> cannot;  // container -> why it can't hold this model
  // {"blocks": 27, "hidden": 576, "ffn": 1280 or [per block], "kv": 3, "heads": 9, "vocab": 49152}
  SharedJson sizes;
  ir::Sizes shape;
  std::vector<std::int64_t> blocks;  // the block of the input that each of its blocks was
  bool blocks_known = true;          // false: some of the input's blocks go, which ones is measured; `blocks` assumes the last
};

// A model that a stage reads: an artefact of the chain, or one from outside.
struct ModelInput {
  std::string id;      // "model", or the stage that makes it; "" = from outside
  std::string path;    // of the input and of those from outside; "" for what stages make
  std::string source;  // as the recipe names it, for the lineage
  std::string family, arch;  // as of Artefact
  std::string key;     // "" when facts are missing
};

struct StageForecast {
  Artefact out;
  std::map<std::string, ModelInput> models;  // "model" is what it changes; others by setting name
  // "calib", "train", settings of type Data; in Chain::recipe
  std::map<std::string, const DataSection*> data;
  SharedJson inputs;             // what went into the key (keys.h); null when facts are missing
  std::string key;               // 64 hex digits; "" when facts are missing
  std::filesystem::path folder;  // work/01-depth-1a2b3c4d
  bool reused = false;
  // Why it would run: "no result yet", "the last result has other settings: ffn was 1408"
  std::string why;
  std::uint64_t peak_bytes = 0;      // rough: a factor of 2 either way
  double seconds = 0;                // rougher; 0 = unknown
  std::vector<std::string> assumed;  // "layers follow from a measurement; 3 assumed"
};

// A resolved chain: the recipe with every `auto` that follows from shapes filled in.
struct Chain {
  Chain() = default;
  Chain(Chain&&) = default;  // moves, never copies: `data` points into the recipe
  Chain& operator=(Chain&&) = default;
  Recipe recipe;
  Environment environment;
  std::string model_path;               // of the input, hf: resolved
  std::string model_key;                // keys.h
  std::optional<ModelInput> reference;  // of the evaluation
  Artefact input;
  std::vector<StageForecast> stages;  // as recipe.stages
  std::uint64_t disk_bytes = 0;       // that a run from here would write, checkpoints included
  std::vector<std::string> warnings;
};

// Forgets what comes after the first `stages` stages.
void keep_first(Chain& chain, std::size_t stages);

// All problems at once: Error(Recipe) for the recipe's, Error(Model) or Error(Data) alone when the only
// problem is a file.
Chain resolve(Recipe recipe, const Environment& environment);
Json to_json(const Chain& chain);  // the document of `slmc plan --json`

// Path of hf:org/name in a local cache of the Hugging Face layout; other names are returned as they are.
std::string find_model(const std::string& where, const std::filesystem::path& hf_cache);

}  // namespace slmc::recipe
