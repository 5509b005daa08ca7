#pragma once
// Internal to lib/io: what the reader and the writer of GGUF must agree on.
#include <cstdint>
#include <span>
#include <string_view>

#include "io/gguf.h"

namespace slmc::io {

inline constexpr std::uint32_t kGgufVersion = 3;
inline constexpr std::uint64_t kSmallestPair = 8 + 4 + 1;        // empty key, type, one byte of value
inline constexpr std::uint64_t kSmallestTensor = 8 + 4 + 4 + 8;  // empty name, no dimensions, type, offset

enum class GgufKind { Unsigned, Signed, Real, Bool, Text };  // which member of GgufValue::value holds it
GgufKind kind_of(GgufType type);                             // not for Array
std::uint64_t smallest_size(GgufType type);  // bytes of one value in the file; of a string, its length

// Bytes of a tensor. Error(Model) naming `what` when the row length is not a multiple of the block, or on
// overflow.
std::uint64_t gguf_bytes(GgmlType type, std::span<const std::int64_t> shape, std::string_view what);
// general.alignment, or 32. Error(Model) when it is not a u32 power of two up to 65536.
std::uint64_t gguf_alignment(const GgufMetadata& metadata);
inline std::uint64_t gguf_aligned(std::uint64_t at, std::uint64_t alignment) {
  return (at + alignment - 1) / alignment * alignment;
}
// Everything before the data, padding included; tensors get places in the order of `entries`.
std::string gguf_header(const GgufMetadata& metadata, const std::vector<GgufWriter::Entry>& entries);

}  // namespace slmc::io
