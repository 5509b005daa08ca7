#pragma once
// Writes a model to a container, tensor by tensor, so that peak memory is a few tensors whatever the model's size. What was
// written is opened again and compared, value by value, before it gets its final name.
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ir/model.h"

namespace slmc::ir {

struct Progress {                                   // called after each tensor; throw to stop
  std::function<void(std::int64_t done_bytes, std::int64_t all_bytes)> tick;
};

// FOLDER: config.json, model.safetensors (or shards + index), tokenizer.json and side files, origin.json, lineage.json.
// dtype: F32, F16, BF16; nothing = as stored (quantized tensors become F32, exactly).
// Error(Recipe) before any work when the family's Hugging Face form can't hold the model.
void write_hf(const Model& model, const std::filesystem::path& folder, std::optional<DType> dtype, const Progress& progress = {});

// The matrices that such a folder holds as they are, each in a tensor of its own with rows and columns in the same order: logical name ->
// name in the file. Fused, permuted and transposed ones are left out. Error(Recipe) as write_hf.
std::map<std::string, std::string> hf_matrices(const Model& model);

// The same for other programs that read compressed-tensors: quantized matrices of the blocks keep their codes in pack-quantized form (4 or 8
// bits, one scheme for all), everything else is stored as `dtype`. load() reads it back. Error(Recipe) before any work when nothing is
// quantized so, when schemes differ, or when the family's form is transposed.
void write_packed(const Model& model, const std::filesystem::path& folder, DType dtype, const Progress& progress = {});

// Whether this model's matrices could be packed, from shapes alone: Error(Recipe) when the family's Hugging Face form does not keep rows whole
// (GPT-2 stores its matrices transposed).
void require_packable(const Model& model);

// One .gguf with metadata and vocabulary that llama.cpp loads. format: globs over logical names -> GGUF types, last match wins;
// quantized tensors whose scheme is that type's are stored code for code, everything else is fitted by the reference quantizer.
void write_gguf(const Model& model, const std::filesystem::path& file,
                const std::vector<std::pair<std::string, std::string>>& format, const Progress& progress = {});

// Compares two models tensor by tensor; largest absolute difference per tensor. Names only in one are listed with infinity.
std::vector<std::pair<std::string, double>> compare(const Model& a, const Model& b);

}  // namespace slmc::ir
