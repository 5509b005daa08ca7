#pragma once
// Quantized matrices in a Hugging Face folder, spelled as compressed-tensors does ("pack-quantized", compressed-tensors 0.20). Private to
// lib/ir. A module M with weight [out, in], b bits (4 or 8) and groups of g columns:
//   M.weight_packed      I32 [out, in * b / 32]       codes, io/packed.h
//   M.weight_scale       F16 BF16 F32 [out, in / g]
//   M.weight_zero_point  I32 [out * b / 32, in / g]   only with zero points; packed along the first dimension
//   M.weight_shape       I64 [2]                      out, in
// Codes are stored unsigned here and there; the package calls code - 2^(b-1) the value.
#include <map>
#include <string>
#include <vector>

#include "core/json.h"
#include "io/safetensors.h"
#include "ir/state.h"

namespace slmc::ir {

inline constexpr const char* kPacked = "packed";     // as a stored type: the scheme that the tensor has

bool can_pack(const io::QuantScheme& scheme);        // 4 or 8 bits, Symmetric or ZeroPoint
// What "M.weight" becomes in the file, and its bytes in the same order.
std::vector<io::SafetensorsWriter::Entry> packed_entries(const std::string& name, const std::vector<std::int64_t>& shape, const io::QuantScheme& scheme);
std::vector<std::vector<std::byte>> packed_bytes(const io::TensorData& data);
// `quantization_config` of config.json; `ignore`: modules whose weights are not quantized.
Json packed_config(const io::QuantScheme& scheme, const std::vector<std::string>& ignore);

// Replaces M.weight_packed and its companions by M.weight, and takes `quantization_config` out of the config. Error(Model) when
// companions are missing, or shapes contradict each other or every one of `config_groups`; Error(Unsupported) when the config names another form of quantization.
void unpack_stored(std::map<std::string, StoredValue, std::less<>>& stored, Json& config, const std::string& file);

}  // namespace slmc::ir
