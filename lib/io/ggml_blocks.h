#pragma once
// Internal to lib/io: the five block types of 32 elements that are also neutral schemes (Q8_0 Q4_0 Q4_1 Q5_0
// Q5_1). One description serves dequantization, quantization and the bijections with Quantized.
//
//   d  f16          scale
//   m  f16          min, only Q4_1 and Q5_1
//   qh u32          bit 4 of element i in bit i, only Q5_0 and Q5_1
//   qs u8[16]       element j in the low, element j + 16 in the high nibble of byte j;     Q8_0: int8[32]
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/dtype.h"
#include "core/error.h"
#include "io/ggml_types.h"

namespace slmc::io {

inline float load_f16(const std::byte* p) {
  std::uint16_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return f16_to_f32(bits);
}

inline void store_f16(std::byte* p, float value) {
  const std::uint16_t bits = f32_to_f16(value);
  std::memcpy(p, &bits, sizeof bits);
}

// Bit i becomes byte i, 0 or 1: eight copies, one bit of each kept, and a carry into bit 7 says whether it is
// set.
inline std::uint64_t bits_to_bytes(std::uint8_t bits) {
  const std::uint64_t kept = bits * 0x0101010101010101u & 0x8040201008040201u;
  return (kept + 0x7f7f7f7f7f7f7f7fu) >> 7 & 0x0101010101010101u;
}

template <int kBitsOfCode, bool kWithMin>
struct Block32 {
  static constexpr int kBits = kBitsOfCode;
  static constexpr bool kHasMin = kWithMin;
  static constexpr std::size_t kSize = 32;
  static constexpr std::size_t kHighAt = kHasMin ? 4 : 2;
  static constexpr std::size_t kCodesAt = kHighAt + (kBits == 5 ? 4 : 0);
  static constexpr std::size_t kBytes = kCodesAt + (kBits == 8 ? 32 : 16);

  // Codes 0 .. 2^bits - 1 of one block. int8 q of Q8_0 is code q + 128.
  static void read_codes(const std::byte* block, std::uint8_t* codes) {
    const auto* qs = reinterpret_cast<const std::uint8_t*>(block + kCodesAt);
    if constexpr (kBits == 8) {
      for (std::size_t i = 0; i < 32; ++i) codes[i] = qs[i] ^ 0x80;
    } else {
      for (std::size_t j = 0; j < 16; ++j) {
        codes[j] = qs[j] & 15;
        codes[j + 16] = qs[j] >> 4;
      }
    }
    if constexpr (kBits == 5) {
      const auto* high = reinterpret_cast<const std::uint8_t*>(block + kHighAt);
      for (std::size_t eight = 0; eight < 4; ++eight) {
        std::uint64_t bytes;
        std::memcpy(&bytes, codes + 8 * eight, sizeof bytes);
        bytes |= bits_to_bytes(high[eight]) << 4;
        std::memcpy(codes + 8 * eight, &bytes, sizeof bytes);
      }
    }
  }

  static void write_codes(std::byte* block, const std::uint8_t* codes) {
    auto* qs = reinterpret_cast<std::uint8_t*>(block + kCodesAt);
    if constexpr (kBits == 8) {
      for (std::size_t i = 0; i < 32; ++i) qs[i] = codes[i] ^ 0x80;
    } else {
      for (std::size_t j = 0; j < 16; ++j)
        qs[j] = static_cast<std::uint8_t>((codes[j] & 15) | codes[j + 16] << 4);
    }
    if constexpr (kBits == 5) {
      std::uint32_t high = 0;
      for (std::size_t i = 0; i < 32; ++i) high |= static_cast<std::uint32_t>(codes[i] >> 4 & 1) << i;
      std::memcpy(block + kHighAt, &high, sizeof high);
    }
  }
};

// Calls body with the Block32 that `type` is; the caller has made sure that it is one (scheme_of).
template <typename Body>
decltype(auto) with_block32(GgmlType type, Body&& body) {
  switch (type) {
    case GgmlType::Q8_0:
      return body(Block32<8, false>{});
    case GgmlType::Q4_0:
      return body(Block32<4, false>{});
    case GgmlType::Q4_1:
      return body(Block32<4, true>{});
    case GgmlType::Q5_0:
      return body(Block32<5, false>{});
    case GgmlType::Q5_1:
      return body(Block32<5, true>{});
    default:
      SLMC_CHECK(!"a block of 32 with a neutral scheme");
  }
  __builtin_unreachable();
}

}  // namespace slmc::io
