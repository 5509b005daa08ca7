#include "io/gguf_layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "core/bytes.h"
#include "core/error.h"

namespace slmc::io {

GgufKind kind_of(GgufType type) {
  switch (type) {
    case GgufType::U8:
    case GgufType::U16:
    case GgufType::U32:
    case GgufType::U64: return GgufKind::Unsigned;
    case GgufType::I8:
    case GgufType::I16:
    case GgufType::I32:
    case GgufType::I64: return GgufKind::Signed;
    case GgufType::F32:
    case GgufType::F64: return GgufKind::Real;
    case GgufType::Bool: return GgufKind::Bool;
    case GgufType::String: return GgufKind::Text;
    case GgufType::Array: break;
  }
  SLMC_CHECK(!"an array has no kind");
  return GgufKind::Unsigned;
}

std::uint64_t smallest_size(GgufType type) {
  switch (type) {
    case GgufType::U8:
    case GgufType::I8:
    case GgufType::Bool: return 1;
    case GgufType::U16:
    case GgufType::I16: return 2;
    case GgufType::U32:
    case GgufType::I32:
    case GgufType::F32: return 4;
    default: return 8;
  }
}

std::uint64_t gguf_bytes(GgmlType type, std::span<const std::int64_t> shape, std::string_view what) {
  const GgmlTypeInfo& t = info(type);
  const std::uint64_t count = element_count(shape, what);
  const std::int64_t row = shape.empty() ? 1 : shape.back();
  if (row % t.block != 0) {
    throw Error(
        ErrorKind::Model,
        fmt::format("the rows of {} must be multiples of {} long, because it is {}, but have {} elements",
                    what, t.block, t.name, row));
  }
  return checked_mul(count / static_cast<std::uint64_t>(t.block), static_cast<std::uint64_t>(t.bytes), what);
}

constexpr std::uint64_t kMostAlignment = 65536;  // a hostile one would pad a file of nothing to gigabytes

std::uint64_t gguf_alignment(const GgufMetadata& metadata) {
  const GgufValue* value = find(metadata, "general.alignment");
  if (value == nullptr) return 32;
  const auto* number = std::get_if<std::uint64_t>(&value->value);
  if (value->type != GgufType::U32 || number == nullptr || !std::has_single_bit(*number) ||
      *number > kMostAlignment) {
    throw Error(ErrorKind::Model, "'general.alignment' must be a u32 power of two up to 65536, but is not");
  }
  return *number;
}

// ---- values ----

const GgufValue* find(const GgufMetadata& metadata, std::string_view key) {
  const auto it =
      std::find_if(metadata.begin(), metadata.end(), [&](const auto& pair) { return pair.first == key; });
  return it == metadata.end() ? nullptr : &it->second;
}

void set(GgufMetadata& metadata, std::string key, GgufValue value) {
  const auto it =
      std::find_if(metadata.begin(), metadata.end(), [&](const auto& pair) { return pair.first == key; });
  if (it != metadata.end()) {
    it->second = std::move(value);
  } else {
    metadata.emplace_back(std::move(key), std::move(value));
  }
}

GgufValue GgufValue::u32(std::uint32_t v) { return {GgufType::U32, GgufType::U32, std::uint64_t{v}}; }
GgufValue GgufValue::i32s(std::vector<std::int64_t> v) {
  return {GgufType::Array, GgufType::I32, std::move(v)};
}
GgufValue GgufValue::u32s(std::vector<std::uint64_t> v) {
  return {GgufType::Array, GgufType::U32, std::move(v)};
}
GgufValue GgufValue::f32(float v) { return {GgufType::F32, GgufType::U32, static_cast<double>(v)}; }
GgufValue GgufValue::f32s(std::vector<double> v) { return {GgufType::Array, GgufType::F32, std::move(v)}; }
GgufValue GgufValue::boolean(bool v) { return {GgufType::Bool, GgufType::U32, v}; }
GgufValue GgufValue::text(std::string v) { return {GgufType::String, GgufType::U32, std::move(v)}; }
GgufValue GgufValue::texts(std::vector<std::string> v) {
  return {GgufType::Array, GgufType::String, std::move(v)};
}

}  // namespace slmc::io
