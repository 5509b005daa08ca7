// Exact dequantization of every block type that slmc reads. The order of the fp32 operations is ggml's, so
// the floats are equal bit for bit (tests/golden/ggml). Inner loops are plain and of fixed length: they
// vectorise.
#include <cstdint>
#include <cstring>

#include "core/error.h"
#include "io/ggml_blocks.h"
#include "io/ggml_types.h"

namespace slmc::io {
namespace {

using Byte = std::uint8_t;

const Byte* as_u8(const std::byte* p) { return reinterpret_cast<const Byte*>(p); }

template <typename Block>
void dequantize_32(const std::byte* from, float* __restrict to) {
  constexpr float kMiddle = 1 << (Block::kBits - 1);
  Byte codes[32];
  Block::read_codes(from, codes);
  const float d = load_f16(from);
  if constexpr (Block::kHasMin) {
    const float m = load_f16(from + 2);
    for (int i = 0; i < 32; ++i) to[i] = d * static_cast<float>(codes[i]) + m;
  } else {
    for (int i = 0; i < 32; ++i) to[i] = d * (static_cast<float>(codes[i]) - kMiddle);
  }
}

// Q2_K: scales u8[16], low nibble scale, high nibble min | qs u8[64] | d f16 | dmin f16. Two halves of 128;
// in each, run j = 0..3 of 32 elements is bits 2j of 32 bytes.
void dequantize_q2_k(const std::byte* from, float* __restrict to) {
  const Byte* scales = as_u8(from);
  const Byte* qs = as_u8(from + 16);
  const float d = load_f16(from + 80), dmin = load_f16(from + 82);
  for (int half = 0; half < 2; ++half, qs += 32) {
    for (int j = 0; j < 4; ++j) {
      for (int part = 0; part < 2; ++part, ++scales, to += 16) {
        const float scale = d * static_cast<float>(*scales & 15),
                    min = dmin * static_cast<float>(*scales >> 4);
        for (int i = 0; i < 16; ++i) to[i] = scale * static_cast<float>(qs[16 * part + i] >> 2 * j & 3) - min;
      }
    }
  }
}

// Q3_K: hmask u8[32] | qs u8[64] as in Q2_K | scales u8[12]: sixteen of 6 bits | d f16. The third bit of
// element run r (of 32) is bit r of hmask; a clear bit subtracts 4.
void dequantize_q3_k(const std::byte* from, float* __restrict to) {
  const Byte* hmask = as_u8(from);
  const Byte* qs = as_u8(from + 32);
  const Byte* packed = as_u8(from + 96);
  const float d = load_f16(from + 108);
  for (int run = 0; run < 8; ++run) {
    const Byte* low = qs + run / 4 * 32;
    for (int part = 0; part < 2; ++part, to += 16) {
      const int s = 2 * run + part;
      const int nibble = s < 8 ? packed[s] & 15 : packed[s - 8] >> 4;
      const int scale = nibble | (packed[8 + s % 4] >> 2 * (s / 4) & 3) << 4;
      const float step = d * static_cast<float>(scale - 32);
      for (int i = 0; i < 16; ++i) {
        const int high = (hmask[16 * part + i] >> run & 1) << 2;
        to[i] = step * static_cast<float>((low[16 * part + i] >> 2 * (run % 4) & 3) + high - 4);
      }
    }
  }
}

struct ScaleMin {
  float scale, min;
};

// The eight 6-bit scales and mins that Q4_K and Q5_K pack in twelve bytes.
ScaleMin scale_min(const Byte* packed, int j) {
  if (j < 4) return {static_cast<float>(packed[j] & 63), static_cast<float>(packed[j + 4] & 63)};
  const int scale = (packed[j + 4] & 15) | packed[j - 4] >> 6 << 4;
  const int min = packed[j + 4] >> 4 | packed[j] >> 6 << 4;
  return {static_cast<float>(scale), static_cast<float>(min)};
}

// Q4_K: d f16 | dmin f16 | scales u8[12] | qs u8[128]; run k of 32 bytes holds elements 64k.. low, 64k + 32..
// high.
void dequantize_q4_k(const std::byte* from, float* __restrict to) {
  const float d = load_f16(from), dmin = load_f16(from + 2);
  const Byte* packed = as_u8(from + 4);
  for (int j = 0; j < 8; ++j, to += 32) {
    const Byte* qs = as_u8(from + 16) + j / 2 * 32;
    const ScaleMin s = scale_min(packed, j);
    const float scale = d * s.scale, min = dmin * s.min;
    const int shift = j % 2 * 4;
    for (int i = 0; i < 32; ++i) to[i] = scale * static_cast<float>(qs[i] >> shift & 15) - min;
  }
}

// Q5_K: d f16 | dmin f16 | scales u8[12] | qh u8[32]: bit j is the fifth bit of sub-block j | qs u8[128] as
// in Q4_K.
void dequantize_q5_k(const std::byte* from, float* __restrict to) {
  const float d = load_f16(from), dmin = load_f16(from + 2);
  const Byte* packed = as_u8(from + 4);
  const Byte* qh = as_u8(from + 16);
  for (int j = 0; j < 8; ++j, to += 32) {
    const Byte* qs = as_u8(from + 48) + j / 2 * 32;
    const ScaleMin s = scale_min(packed, j);
    const float scale = d * s.scale, min = dmin * s.min;
    const int shift = j % 2 * 4;
    for (int i = 0; i < 32; ++i) {
      to[i] = scale * static_cast<float>((qs[i] >> shift & 15) + (qh[i] >> j & 1) * 16) - min;
    }
  }
}

// Q6_K: ql u8[128] | qh u8[64] | scales i8[16] | d f16. In each half of 128, run j of 32 elements has its low
// four bits in ql (runs 0, 1 low nibbles; 2, 3 high nibbles) and its high two in bits 2j of qh.
void dequantize_q6_k(const std::byte* from, float* __restrict to) {
  const float d = load_f16(from + 208);
  const auto* scales = reinterpret_cast<const std::int8_t*>(from + 192);
  for (int run = 0; run < 8; ++run) {
    const int j = run % 4, shift = j / 2 * 4;
    const Byte* ql = as_u8(from) + run / 4 * 64 + j % 2 * 32;
    const Byte* qh = as_u8(from + 128) + run / 4 * 32;
    for (int part = 0; part < 2; ++part, to += 16, ql += 16, qh += 16) {
      const float scale = d * static_cast<float>(scales[2 * run + part]);
      for (int i = 0; i < 16; ++i) {
        to[i] = scale * static_cast<float>(((ql[i] >> shift & 15) | (qh[i] >> 2 * j & 3) << 4) - 32);
      }
    }
  }
}

// The sixteen values of IQ4_NL and IQ4_XS.
constexpr float kNonLinear[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

void look_up_32(const Byte* qs, float scale, float* __restrict to) {
  float table[16];
  for (int i = 0; i < 16; ++i) table[i] = scale * kNonLinear[i];
  for (int i = 0; i < 16; ++i) {
    to[i] = table[qs[i] & 15];
    to[i + 16] = table[qs[i] >> 4];
  }
}

// IQ4_NL: d f16 | qs u8[16]
void dequantize_iq4_nl(const std::byte* from, float* __restrict to) {
  look_up_32(as_u8(from + 2), load_f16(from), to);
}

// IQ4_XS: d f16 | scales_h u16: two bits each | scales_l u8[4]: four bits each | qs u8[128]: IQ4_NL runs of
// 32
void dequantize_iq4_xs(const std::byte* from, float* __restrict to) {
  const float d = load_f16(from);
  std::uint16_t high;
  std::memcpy(&high, from + 2, sizeof high);
  const Byte* low = as_u8(from + 4);
  for (int j = 0; j < 8; ++j) {
    const int scale = (low[j / 2] >> j % 2 * 4 & 15) | (high >> 2 * j & 3) << 4;
    look_up_32(as_u8(from + 8) + 16 * j, d * static_cast<float>(scale - 32), to + 32 * j);
  }
}

template <typename Body>
void each_block(const GgmlTypeInfo& type, std::span<const std::byte> blocks, std::span<float> values,
                Body body) {
  const std::byte* from = blocks.data();
  float* to = values.data();
  for (std::size_t left = values.size() / static_cast<std::size_t>(type.block); left > 0; --left) {
    body(from, to);
    from += type.bytes;
    to += type.block;
  }
}

}  // namespace

void dequantize(GgmlType type, std::span<const std::byte> blocks, std::span<float> values) {
  const GgmlTypeInfo& t = info(type);
  SLMC_CHECK(values.size() % static_cast<std::size_t>(t.block) == 0);
  SLMC_CHECK(blocks.size() ==
             values.size() / static_cast<std::size_t>(t.block) * static_cast<std::size_t>(t.bytes));
  if (const std::optional<DType> dense = dtype_of(type)) return to_f32(*dense, blocks, values);
  switch (type) {
    case GgmlType::Q2_K: return each_block(t, blocks, values, dequantize_q2_k);
    case GgmlType::Q3_K: return each_block(t, blocks, values, dequantize_q3_k);
    case GgmlType::Q4_K: return each_block(t, blocks, values, dequantize_q4_k);
    case GgmlType::Q5_K: return each_block(t, blocks, values, dequantize_q5_k);
    case GgmlType::Q6_K: return each_block(t, blocks, values, dequantize_q6_k);
    case GgmlType::IQ4_NL: return each_block(t, blocks, values, dequantize_iq4_nl);
    case GgmlType::IQ4_XS: return each_block(t, blocks, values, dequantize_iq4_xs);
    default: break;
  }
  with_block32(type, [&](auto block) {
    using Block = decltype(block);
    each_block(t, blocks, values, [](const std::byte* from, float* to) { dequantize_32<Block>(from, to); });
  });
}

}  // namespace slmc::io
