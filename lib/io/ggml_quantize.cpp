// ggml's reference fits, bit for bit: fp32, no fused multiply-add, the order of ggml-quants.c
// `quantize_row_*_ref`.
//   Q8_0        d = amax / 127            q = round(x * (1/d)), halves away from zero
//   Q4_0, Q5_0  d = m / -2^(bits-1), m the first element of largest magnitude, with its sign
//               q = min(2^bits - 1, trunc(x * (1/d) + 2^(bits-1) + 0.5))
//   Q4_1, Q5_1  d = (max - min) / (2^bits - 1), m = min      q = trunc((x - min) * (1/d) + 0.5)
// The scale is rounded to f16 only when stored; codes use the fp32 one.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "core/error.h"
#include "io/ggml_blocks.h"
#include "io/ggml_types.h"

namespace slmc::io {
namespace {

float inverse(float d) { return d == 0.0f ? 0.0f : 1.0f / d; }

// A whole number in [0, most]; what is not a number becomes 0. (d so small that 1/d is infinite stores a zero
// scale.)
int truncated(float x, float most) { return static_cast<int>(std::min(x > 0.0f ? x : 0.0f, most)); }

// Magnitudes compare like the integers of their bits, and integer maxima vectorise.
std::int32_t magnitude_bits(float x) { return std::bit_cast<std::int32_t>(x) & 0x7fffffff; }

std::int32_t largest_magnitude_bits(const float* x) {
  std::int32_t most = 0;
  for (int i = 0; i < 32; ++i) most = std::max(most, magnitude_bits(x[i]));
  return most;
}

// The first element of largest magnitude, with its sign.
float signed_maximum(const float* x) {
  const std::int32_t most = largest_magnitude_bits(x);
  int i = 0;
  while (magnitude_bits(x[i]) != most) ++i;
  return x[i];
}

void fit_q8_0(const float* x, std::byte* to) {
  const float d = std::bit_cast<float>(largest_magnitude_bits(x)) / 127.0f, id = inverse(d);
  std::uint8_t codes[32];
  for (int i = 0; i < 32; ++i) {
    const float scaled = x[i] * id, magnitude = std::fabs(scaled);
    const int whole = truncated(magnitude, 127.0f);
    const int q = whole + static_cast<int>(magnitude - static_cast<float>(whole) >=
                                           0.5f);                // exact; adding 0.5 first is not
    const int sign = std::bit_cast<std::int32_t>(scaled) >> 31;  // 0 or -1
    codes[i] = static_cast<std::uint8_t>(128 + ((q ^ sign) - sign));
  }
  store_f16(to, d);
  Block32<8, false>::write_codes(to, codes);
}

template <typename Block>
void fit_symmetric(const float* x, std::byte* to) {
  constexpr float kMiddle = 1 << (Block::kBits - 1), kMost = (1 << Block::kBits) - 1;
  const float d = signed_maximum(x) / -kMiddle, id = inverse(d);
  std::uint8_t codes[32];
  for (int i = 0; i < 32; ++i)
    codes[i] = static_cast<std::uint8_t>(truncated(x[i] * id + (kMiddle + 0.5f), kMost));
  store_f16(to, d);
  Block::write_codes(to, codes);
}

template <typename Block>
void fit_with_min(const float* x, std::byte* to) {
  constexpr float kMost = (1 << Block::kBits) - 1;
  float min = x[0], max = x[0];
  for (int i = 1; i < 32; ++i) {
    min = x[i] < min ? x[i] : min;
    max = x[i] > max ? x[i] : max;
  }
  const float d = (max - min) / kMost, id = inverse(d);
  std::uint8_t codes[32];
  for (int i = 0; i < 32; ++i)
    codes[i] = static_cast<std::uint8_t>(truncated((x[i] - min) * id + 0.5f, kMost));
  store_f16(to, d);
  store_f16(to + 2, min);
  Block::write_codes(to, codes);
}

}  // namespace

void quantize_reference(GgmlType type, std::span<const float> values, std::span<std::byte> blocks) {
  const GgmlTypeInfo& t = info(type);
  SLMC_CHECK(t.writable && values.size() % static_cast<std::size_t>(t.block) == 0);
  SLMC_CHECK(blocks.size() ==
             values.size() / static_cast<std::size_t>(t.block) * static_cast<std::size_t>(t.bytes));
  if (const std::optional<DType> dense = dtype_of(type)) return from_f32(*dense, values, blocks);
  with_block32(type, [&](auto block) {
    using Block = decltype(block);
    std::byte* to = blocks.data();
    for (std::size_t at = 0; at < values.size(); at += Block::kSize, to += Block::kBytes) {
      const float* x = values.data() + at;
      if constexpr (Block::kBits == 8) {
        fit_q8_0(x, to);
      } else if constexpr (Block::kHasMin) {
        fit_with_min<Block>(x, to);
      } else {
        fit_symmetric<Block>(x, to);
      }
    }
  });
}

}  // namespace slmc::io
