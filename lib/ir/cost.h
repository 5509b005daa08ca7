#pragma once
// What a model costs, from shapes alone.
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "ir/model.h"

namespace slmc::ir {

struct Cost {
  std::int64_t parameters = 0;             // a tied head counts once
  std::int64_t parameters_body = 0;        // without embedding, positions and head
  double flops_per_token = 0;              // forward: 2 per weight of every matrix incl. head, attention over `context` tokens
  std::int64_t kv_bytes_per_token = 0;     // 16-bit cache
};
Cost cost(const Model& model, std::int64_t context = 512);

// Stored type of each tensor of a GGUF of base type `type` ("q4_0", "f16", ...), after ggml's fallback rules: 1-D tensors stay F32;
// embedding and head take q8_0 when `type` is smaller than 8 bits; rows not divisible by the block fall back to f16.
std::map<std::string, std::string> gguf_types(const Model& model, const std::string& type);
// Exact bytes of the file that write_gguf makes, tokenizer and padding included.
std::int64_t gguf_bytes(const Model& model, const std::vector<std::pair<std::string, std::string>>& format);
// Bytes of model.safetensors that write_hf makes in `dtype`, header included.
std::int64_t hf_bytes(const Model& model, DType dtype);
// The size of a model, the one that tables, gates and forecasts mean: of a GGUF the file, of a folder its .safetensors files. A folder's
// config and tokenizer are not counted: a GGUF holds them too, so a model never looks smaller for being put into one.
std::int64_t file_bytes(const std::filesystem::path& model);
// The float type that all stored tensors have; F32 when they differ or are quantized. What stages write their results in.
DType common_dtype(const Model& model);

}  // namespace slmc::ir
