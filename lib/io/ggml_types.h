#pragma once
// ggml's tensor types as GGUF files store them: sizes, exact dequantization, and the reference quantizers.
// Layouts: ggml's ggml-common.h block structs; fits: ggml-quants.c `quantize_row_*_ref` (byte parity is tested).
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "io/tensor_data.h"

namespace slmc::io {

enum class GgmlType : std::uint32_t {
  F32 = 0, F16 = 1, Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8, Q2_K = 10, Q3_K = 11, Q4_K = 12, Q5_K = 13,
  Q6_K = 14, IQ4_NL = 20, IQ4_XS = 23, I8 = 24, I16 = 25, I32 = 26, I64 = 27, F64 = 28, BF16 = 30,
};

struct GgmlTypeInfo {
  GgmlType type;
  std::string_view name;        // "q4_0", lower case
  std::int64_t block;           // elements per block (1 for dense types)
  std::int64_t bytes;           // bytes per block
  bool writable;                // F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1
};

const GgmlTypeInfo* ggml_type(std::uint32_t number);        // nullptr: not one we read
const GgmlTypeInfo* ggml_type(std::string_view name);       // any case
const GgmlTypeInfo& info(GgmlType type);
std::optional<DType> dtype_of(GgmlType type);               // dense types; else nothing
std::optional<QuantScheme> scheme_of(GgmlType type);        // Q8_0 Q4_0 Q4_1 Q5_0 Q5_1; else nothing
std::optional<GgmlType> ggml_type_of(const QuantScheme& scheme);

// Rows of `columns` elements. Sizes must agree with the type (SLMC_CHECK; the reader has checked the file).
void dequantize(GgmlType type, std::span<const std::byte> blocks, std::span<float> values);
// The reference fit of ggml, bit for bit (round to nearest, amax scale); values.size() is a multiple of the block.
void quantize_reference(GgmlType type, std::span<const float> values, std::span<std::byte> blocks);
// Bijections between a block type's bytes and the neutral form: unpack(pack(q)) == q, pack(unpack(b)) == b.
Quantized unpack_blocks(GgmlType type, std::span<const std::byte> blocks);
std::vector<std::byte> pack_blocks(GgmlType type, const Quantized& q);

}  // namespace slmc::io
