#include "io/ggml_types.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "core/error.h"
#include "io/ggml_blocks.h"

namespace slmc::io {
namespace {

constexpr std::array kTypes = {
    GgmlTypeInfo{GgmlType::F32, "f32", 1, 4, true},
    GgmlTypeInfo{GgmlType::F16, "f16", 1, 2, true},
    GgmlTypeInfo{GgmlType::Q4_0, "q4_0", 32, 18, true},
    GgmlTypeInfo{GgmlType::Q4_1, "q4_1", 32, 20, true},
    GgmlTypeInfo{GgmlType::Q5_0, "q5_0", 32, 22, true},
    GgmlTypeInfo{GgmlType::Q5_1, "q5_1", 32, 24, true},
    GgmlTypeInfo{GgmlType::Q8_0, "q8_0", 32, 34, true},
    GgmlTypeInfo{GgmlType::Q2_K, "q2_k", 256, 84, false},
    GgmlTypeInfo{GgmlType::Q3_K, "q3_k", 256, 110, false},
    GgmlTypeInfo{GgmlType::Q4_K, "q4_k", 256, 144, false},
    GgmlTypeInfo{GgmlType::Q5_K, "q5_k", 256, 176, false},
    GgmlTypeInfo{GgmlType::Q6_K, "q6_k", 256, 210, false},
    GgmlTypeInfo{GgmlType::IQ4_NL, "iq4_nl", 32, 18, false},
    GgmlTypeInfo{GgmlType::IQ4_XS, "iq4_xs", 256, 136, false},
    GgmlTypeInfo{GgmlType::I8, "i8", 1, 1, false},
    GgmlTypeInfo{GgmlType::I16, "i16", 1, 2, false},
    GgmlTypeInfo{GgmlType::I32, "i32", 1, 4, false},
    GgmlTypeInfo{GgmlType::I64, "i64", 1, 8, false},
    GgmlTypeInfo{GgmlType::F64, "f64", 1, 8, false},
    GgmlTypeInfo{GgmlType::BF16, "bf16", 1, 2, true},
};

template <typename Matches>
const GgmlTypeInfo* find_type(Matches matches) {
  const auto it = std::find_if(kTypes.begin(), kTypes.end(), matches);
  return it == kTypes.end() ? nullptr : &*it;
}

}  // namespace

const GgmlTypeInfo* ggml_type(std::uint32_t number) {
  return find_type([&](const GgmlTypeInfo& t) { return static_cast<std::uint32_t>(t.type) == number; });
}

const GgmlTypeInfo* ggml_type(std::string_view name) {
  const auto same = [](char a, char b) { return a == std::tolower(static_cast<unsigned char>(b)); };
  return find_type([&](const GgmlTypeInfo& t) {
    return std::equal(t.name.begin(), t.name.end(), name.begin(), name.end(), same);
  });
}

const GgmlTypeInfo& info(GgmlType type) {
  const GgmlTypeInfo* found = ggml_type(static_cast<std::uint32_t>(type));
  SLMC_CHECK(found != nullptr);
  return *found;
}

std::optional<DType> dtype_of(GgmlType type) {
  switch (type) {
    case GgmlType::F32: return DType::F32;
    case GgmlType::F16: return DType::F16;
    case GgmlType::BF16: return DType::BF16;
    case GgmlType::F64: return DType::F64;
    case GgmlType::I8: return DType::I8;
    case GgmlType::I16: return DType::I16;
    case GgmlType::I32: return DType::I32;
    case GgmlType::I64: return DType::I64;
    default: return std::nullopt;
  }
}

std::optional<QuantScheme> scheme_of(GgmlType type) {
  using Zero = QuantScheme::Zero;
  switch (type) {
    case GgmlType::Q8_0: return QuantScheme{8, 32, Zero::Symmetric, DType::F16};
    case GgmlType::Q4_0: return QuantScheme{4, 32, Zero::Symmetric, DType::F16};
    case GgmlType::Q4_1: return QuantScheme{4, 32, Zero::Min, DType::F16};
    case GgmlType::Q5_0: return QuantScheme{5, 32, Zero::Symmetric, DType::F16};
    case GgmlType::Q5_1: return QuantScheme{5, 32, Zero::Min, DType::F16};
    default: return std::nullopt;
  }
}

std::optional<GgmlType> ggml_type_of(const QuantScheme& scheme) {
  for (const GgmlTypeInfo& t : kTypes) {
    if (scheme_of(t.type) == scheme) return t.type;
  }
  return std::nullopt;
}

Quantized unpack_blocks(GgmlType type, std::span<const std::byte> bytes) {
  return with_block32(type, [&](auto block) {
    using Block = decltype(block);
    SLMC_CHECK(bytes.size() % Block::kBytes == 0);
    const std::size_t blocks = bytes.size() / Block::kBytes;
    Quantized q{
        *scheme_of(type), std::vector<std::uint8_t>(blocks * Block::kSize), std::vector<float>(blocks), {}};
    if (Block::kHasMin) q.mins.resize(blocks);
    for (std::size_t b = 0; b < blocks; ++b) {
      const std::byte* from = bytes.data() + b * Block::kBytes;
      q.scales[b] = load_f16(from);
      if (Block::kHasMin) q.mins[b] = load_f16(from + 2);
      Block::read_codes(from, q.codes.data() + b * Block::kSize);
    }
    return q;
  });
}

std::vector<std::byte> pack_blocks(GgmlType type, const Quantized& q) {
  SLMC_CHECK(scheme_of(type) == q.scheme);
  return with_block32(type, [&](auto block) {
    using Block = decltype(block);
    const std::size_t blocks = q.scales.size();
    SLMC_CHECK(q.codes.size() == blocks * Block::kSize && q.mins.size() == (Block::kHasMin ? blocks : 0));
    std::vector<std::byte> bytes(blocks * Block::kBytes);
    for (std::size_t b = 0; b < blocks; ++b) {
      std::byte* to = bytes.data() + b * Block::kBytes;
      store_f16(to, q.scales[b]);
      if (Block::kHasMin) store_f16(to + 2, q.mins[b]);
      Block::write_codes(to, q.codes.data() + b * Block::kSize);
    }
    return bytes;
  });
}

}  // namespace slmc::io
