#pragma once
// Element types of dense tensors and their conversion to float. Quantized types are not dtypes: see io/tensor_data.h.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace slmc {

enum class DType { F64, F32, F16, BF16, F8_E4M3, F8_E5M2, I64, I32, I16, I8, U64, U32, U16, U8, Bool };
inline constexpr int kDTypeCount = 15;

std::size_t size_of(DType t);                                  // bytes
std::string_view to_string(DType t);                           // safetensors' spelling: "BF16", "F8_E4M3", "BOOL"
std::optional<DType> dtype_from(std::string_view name);        // accepts safetensors' spelling only
bool is_float(DType t);

float f16_to_f32(std::uint16_t bits);                          // exact, subnormals and NaN included
std::uint16_t f32_to_f16(float value);                         // round to nearest even; overflow gives infinity
float bf16_to_f32(std::uint16_t bits);
std::uint16_t f32_to_bf16(float value);                        // round to nearest even; NaN stays NaN
float f8_e4m3_to_f32(std::uint8_t bits);                       // the finite variant: no infinity, 0x7F and 0xFF are NaN
float f8_e5m2_to_f32(std::uint8_t bits);                       // IEEE style: the upper byte of an f16

// Converts n = to.size() elements. `from` holds n * size_of(type) bytes. Integers and F64 are rounded to float.
void to_f32(DType type, std::span<const std::byte> from, std::span<float> to);
void from_f32(DType type, std::span<const float> from, std::span<std::byte> to);   // F64 F32 F16 BF16 only

}  // namespace slmc
