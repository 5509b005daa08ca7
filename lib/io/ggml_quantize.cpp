// ggml's reference fits, bit for bit: fp32, no fused multiply-add, the order of ggml-quants.c `quantize_row_*_ref`.
//   Q8_0        d = amax / 127            q = round(x * (1/d)), halves away from zero
//   Q4_0, Q5_0  d = m / -2^(bits-1), m the first element of largest magnitude, with its sign
//               q = min(2^bits - 1, trunc(x * (1/d) + 2^(bits-1) + 0.5))
//   Q4_1, Q5_1  d = (max - min) / (2^bits - 1), m = min      q = trunc((x - min) * (1/d) + 0.5)
// The scale is rounded to f16 only when stored; codes use the fp32 one.
#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "io/ggml_blocks.h"
#include "io/ggml_types.h"

namespace slmc::io {
namespace {

float inverse(float d) { return d == 0.0f ? 0.0f : 1.0f / d; }

// A whole number in [0, most]; what is not a number becomes 0. (d so small that 1/d is infinite stores a zero scale.)
std::uint8_t truncated(float x, float most) { return static_cast<std::uint8_t>(x > 0.0f ? std::min(x, most) : 0.0f); }

float largest_magnitude(const float* x) {
  float most = 0.0f;
  for (int i = 0; i < 32; ++i) most = std::fabs(x[i]) > most ? std::fabs(x[i]) : most;
  return most;
}

void fit_q8_0(const float* x, std::byte* to) {
  const float d = largest_magnitude(x) / 127.0f, id = inverse(d);
  std::uint8_t codes[32];
  for (int i = 0; i < 32; ++i) {
    const float scaled = x[i] * id, magnitude = std::fabs(scaled);
    const std::uint8_t whole = truncated(magnitude, 127.0f);
    const int q = whole + (magnitude - static_cast<float>(whole) >= 0.5f ? 1 : 0);     // exact, unlike adding a half first
    codes[i] = static_cast<std::uint8_t>(128 + (scaled < 0.0f ? -q : q));
  }
  store_f16(to, d);
  Block32<8, false>::write_codes(to, codes);
}

template <typename Block>
void fit_symmetric(const float* x, std::byte* to) {
  constexpr float kMiddle = 1 << (Block::kBits - 1), kMost = (1 << Block::kBits) - 1;
  float m = x[0];
  for (int i = 1; i < 32; ++i) m = std::fabs(x[i]) > std::fabs(m) ? x[i] : m;
  const float d = m / -kMiddle, id = inverse(d);
  std::uint8_t codes[32];
  for (int i = 0; i < 32; ++i) codes[i] = truncated(x[i] * id + (kMiddle + 0.5f), kMost);
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
  for (int i = 0; i < 32; ++i) codes[i] = truncated((x[i] - min) * id + 0.5f, kMost);
  store_f16(to, d);
  store_f16(to + 2, min);
  Block::write_codes(to, codes);
}

}  // namespace

void quantize_reference(GgmlType type, std::span<const float> values, std::span<std::byte> blocks) {
  const GgmlTypeInfo& t = info(type);
  SLMC_CHECK(t.writable && values.size() % static_cast<std::size_t>(t.block) == 0);
  SLMC_CHECK(blocks.size() == values.size() / static_cast<std::size_t>(t.block) * static_cast<std::size_t>(t.bytes));
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
