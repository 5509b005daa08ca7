#include "core/dtype.h"

#include <array>
#include <bit>
#include <cstring>

#include "core/error.h"

namespace slmc {
namespace {

struct DTypeInfo {
  std::string_view name;
  std::size_t bytes;
  bool floating;
};

// In the order of the enumeration.
constexpr std::array<DTypeInfo, kDTypeCount> kInfo = {{{"F64", 8, true},
                                                       {"F32", 4, true},
                                                       {"F16", 2, true},
                                                       {"BF16", 2, true},
                                                       {"F8_E4M3", 1, true},
                                                       {"F8_E5M2", 1, true},
                                                       {"I64", 8, false},
                                                       {"I32", 4, false},
                                                       {"I16", 2, false},
                                                       {"I8", 1, false},
                                                       {"U64", 8, false},
                                                       {"U32", 4, false},
                                                       {"U16", 2, false},
                                                       {"U8", 1, false},
                                                       {"BOOL", 1, false}}};

const DTypeInfo& info(DType t) { return kInfo.at(static_cast<std::size_t>(t)); }

// Element i of possibly unaligned bytes. Compilers turn the memcpy into one load, so loops over it vectorise.
template <typename T>
T load(const std::byte* from, std::size_t i) {
  T value;
  std::memcpy(&value, from + i * sizeof(T), sizeof(T));
  return value;
}

template <typename Stored, typename Convert>
void read_all(std::span<const std::byte> from, std::span<float> to, Convert convert) {
  const std::byte* p = from.data();
  for (std::size_t i = 0; i < to.size(); ++i) to[i] = convert(load<Stored>(p, i));
}

template <typename Stored>
void read_numbers(std::span<const std::byte> from, std::span<float> to) {
  read_all<Stored>(from, to, [](Stored x) { return static_cast<float>(x); });
}

template <typename Stored, typename Convert>
void write_all(std::span<const float> from, std::span<std::byte> to, Convert convert) {
  for (std::size_t i = 0; i < from.size(); ++i) {
    const Stored value = convert(from[i]);
    std::memcpy(to.data() + i * sizeof(Stored), &value, sizeof(Stored));
  }
}

// a where `yes`, else b. Bit masks instead of branches: compilers sink float arithmetic into a branch, and
// then these conversions, which run over whole models, are four times slower because nothing vectorises.
inline std::uint32_t select(bool yes, std::uint32_t a, std::uint32_t b) {
  const std::uint32_t mask = 0u - static_cast<std::uint32_t>(yes);
  return (a & mask) | (b & ~mask);
}

inline float half_to_float(std::uint16_t bits) {
  constexpr std::uint32_t kExponent = 0x7c00u << 13;
  const std::uint32_t magnitude = (bits & 0x7fffu) << 13;
  const std::uint32_t exponent = magnitude & kExponent;
  const std::uint32_t normal = magnitude + (112u << 23) + select(exponent == kExponent, 112u << 23, 0);
  // A subnormal is its fraction times 2^-24: 2^-14 (1 + fraction) - 2^-14, both exact and normal in fp32.
  const float subnormal = std::bit_cast<float>(magnitude + (113u << 23)) - 0x1p-14f;
  const std::uint32_t value = select(exponent == 0, std::bit_cast<std::uint32_t>(subnormal), normal);
  return std::bit_cast<float>(value | (bits & 0x8000u) << 16);
}

inline std::uint16_t float_to_half(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  const std::uint32_t sign = bits >> 16 & 0x8000u;
  // Normal result: drop 13 bits, rounding half to even; a carry runs into the exponent as it should.
  const std::uint32_t normal = (magnitude - (112u << 23) + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  // Subnormal result: adding 0.5 makes the FPU round the value to a multiple of 2^-24.
  const std::uint32_t subnormal =
      std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  const std::uint32_t payload =
      magnitude >> 13 & 0x3ffu;  // kept, so that bits read from a file go back unchanged
  const std::uint32_t nan = 0x7c00u | payload | select(payload == 0, 0x200u, 0);
  std::uint32_t out = select(magnitude < 113u << 23, subnormal, normal);
  out = select(magnitude >= 143u << 23, 0x7c00u,
               out);  // 65536 and above; 65520 to 65535 round up by themselves
  out = select(magnitude > 0x7f800000u, nan, out);
  return static_cast<std::uint16_t>(out | sign);
}

inline std::uint16_t float_to_bfloat(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  const std::uint32_t kept = bits >> 16 | select((bits >> 16 & 0x7fu) == 0, 0x40u, 0);
  return static_cast<std::uint16_t>(select(nan, kept, rounded));
}

inline float bfloat_to_float(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

}  // namespace

std::size_t size_of(DType t) { return info(t).bytes; }
std::string_view to_string(DType t) { return info(t).name; }
bool is_float(DType t) { return info(t).floating; }

std::optional<DType> dtype_from(std::string_view name) {
  for (std::size_t i = 0; i < kInfo.size(); ++i) {
    if (kInfo[i].name == name) return static_cast<DType>(i);
  }
  return std::nullopt;
}

float f16_to_f32(std::uint16_t bits) { return half_to_float(bits); }
std::uint16_t f32_to_f16(float value) { return float_to_half(value); }
float bf16_to_f32(std::uint16_t bits) { return bfloat_to_float(bits); }
std::uint16_t f32_to_bf16(float value) { return float_to_bfloat(value); }

float f8_e4m3_to_f32(std::uint8_t bits) {
  const std::uint32_t magnitude = bits & 0x7fu;
  if (magnitude == 0x7f) return std::bit_cast<float>(0x7fc00000u | (bits & 0x80u) << 24);
  // Exponent bias 7 against 127; a subnormal is its fraction times 2^-9.
  const float value = magnitude < 8 ? static_cast<float>(magnitude) * 0x1p-9f
                                    : std::bit_cast<float>((magnitude << 20) + (120u << 23));
  return bits & 0x80u ? -value : value;
}

float f8_e5m2_to_f32(std::uint8_t bits) { return half_to_float(static_cast<std::uint16_t>(bits << 8)); }

void to_f32(DType type, std::span<const std::byte> from, std::span<float> to) {
  SLMC_CHECK(from.size() == to.size() * size_of(type));
  switch (type) {
    case DType::F64: return read_numbers<double>(from, to);
    case DType::F32: return read_numbers<float>(from, to);
    case DType::F16: return read_all<std::uint16_t>(from, to, half_to_float);
    case DType::BF16: return read_all<std::uint16_t>(from, to, bfloat_to_float);
    case DType::F8_E4M3: return read_all<std::uint8_t>(from, to, f8_e4m3_to_f32);
    case DType::F8_E5M2: return read_all<std::uint8_t>(from, to, f8_e5m2_to_f32);
    case DType::I64: return read_numbers<std::int64_t>(from, to);
    case DType::I32: return read_numbers<std::int32_t>(from, to);
    case DType::I16: return read_numbers<std::int16_t>(from, to);
    case DType::I8: return read_numbers<std::int8_t>(from, to);
    case DType::U64: return read_numbers<std::uint64_t>(from, to);
    case DType::U32: return read_numbers<std::uint32_t>(from, to);
    case DType::U16: return read_numbers<std::uint16_t>(from, to);
    case DType::U8: return read_numbers<std::uint8_t>(from, to);
    case DType::Bool: return read_all<std::uint8_t>(from, to, [](std::uint8_t x) { return x ? 1.0f : 0.0f; });
  }
}

void from_f32(DType type, std::span<const float> from, std::span<std::byte> to) {
  SLMC_CHECK(to.size() == from.size() * size_of(type));
  switch (type) {
    case DType::F64: return write_all<double>(from, to, [](float x) { return static_cast<double>(x); });
    case DType::F32: return write_all<float>(from, to, [](float x) { return x; });
    case DType::F16: return write_all<std::uint16_t>(from, to, float_to_half);
    case DType::BF16: return write_all<std::uint16_t>(from, to, float_to_bfloat);
    default: SLMC_CHECK(!"from_f32 writes F64, F32, F16 and BF16 only");
  }
}

}  // namespace slmc
