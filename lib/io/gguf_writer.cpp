#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>

#include "core/bytes.h"
#include "core/error.h"
#include "core/parallel.h"
#include "io/gguf.h"
#include "io/gguf_layout.h"

namespace slmc::io {
namespace {

constexpr std::size_t kMostNameBytes = 63;  // GGML_MAX_NAME less the final zero: longer ones fail in ggml

// Appends little-endian numbers and GGUF strings.
struct Header {
  std::string bytes;

  template <typename T>
  void number(T value) {
    char raw[sizeof(T)];
    std::memcpy(raw, &value, sizeof(T));
    bytes.append(raw, sizeof(T));
  }
  void text(std::string_view value) {
    number<std::uint64_t>(value.size());
    bytes.append(value);
  }

  // One value of `type` without its type number.
  void element(GgufType type, std::uint64_t v) {
    bytes.append(reinterpret_cast<const char*>(&v),
                 smallest_size(type));  // little-endian: the low bytes come first
  }
  void element(GgufType type, std::int64_t v) { element(type, static_cast<std::uint64_t>(v)); }
  void element(GgufType type, double v) {
    if (type == GgufType::F32) {
      number(static_cast<float>(v));
    } else {
      number(v);
    }
  }
  void element(GgufType, const std::string& v) { text(v); }
  void element(GgufType, bool v) { number<std::uint8_t>(v); }
  template <typename T>
  void element(GgufType type, const std::vector<T>& values) {
    number(static_cast<std::uint32_t>(type));
    number<std::uint64_t>(values.size());
    for (const T& v : values) element(type, v);
  }

  void pair(const std::string& key, const GgufValue& value) {
    text(key);
    number(static_cast<std::uint32_t>(value.type));
    const GgufType type = value.type == GgufType::Array ? value.element : value.type;
    std::visit([&](const auto& v) { element(type, v); }, value.value);
  }
};

// A value made by hand may contradict its own type; the reader's values never do.
bool consistent(const GgufValue& value) {
  const bool array = value.type == GgufType::Array;
  if (array && value.element == GgufType::Array) return false;
  const std::size_t held =
      value.value.index();  // u64 i64 double bool string, then vectors of u64 i64 double string
  switch (kind_of(array ? value.element : value.type)) {
    case GgufKind::Unsigned: return held == (array ? 5 : 0);
    case GgufKind::Signed: return held == (array ? 6 : 1);
    case GgufKind::Real: return held == (array ? 7 : 2);
    case GgufKind::Bool: return held == (array ? 5 : 3);
    case GgufKind::Text: return held == (array ? 8 : 4);
  }
  return false;
}

// Everything before the tensor data, and how long the file will be.
struct Prepared {
  std::string header;
  std::vector<std::uint64_t> sizes;  // of each tensor's data, without padding
  std::uint64_t alignment = 32;
  std::uint64_t file_bytes = 0;
};

std::uint64_t tensor_info(const GgufWriter::Entry& entry, std::uint64_t offset, Header& header) {
  if (entry.name.size() > kMostNameBytes || entry.shape.size() > 4) {
    throw Error(ErrorKind::Unsupported,
                fmt::format("a tensor of a GGUF file must have at most {} bytes of name and 4 dimensions, "
                            "but '{}' has {} and {}",
                            kMostNameBytes, entry.name, entry.name.size(), entry.shape.size()));
  }
  header.text(entry.name);
  header.number(static_cast<std::uint32_t>(entry.shape.size()));
  for (std::size_t i = entry.shape.size(); i-- > 0;) header.number(entry.shape[i]);
  header.number(static_cast<std::uint32_t>(entry.type));
  header.number(offset);
  return gguf_bytes(entry.type, entry.shape, fmt::format("the tensor '{}'", entry.name));
}

Prepared prepare(const GgufMetadata& metadata, const std::vector<GgufWriter::Entry>& entries) {
  Prepared p;
  p.alignment = gguf_alignment(metadata);
  Header header;
  header.bytes = "GGUF";
  header.number(kGgufVersion);
  header.number<std::uint64_t>(entries.size());
  header.number<std::uint64_t>(metadata.size());
  std::set<std::string_view> keys, names;
  for (const auto& [key, value] : metadata) {
    SLMC_CHECK(keys.insert(key).second && consistent(value));
    header.pair(key, value);
  }
  std::uint64_t offset = 0;
  for (const GgufWriter::Entry& entry : entries) {
    SLMC_CHECK(names.insert(entry.name).second);
    p.sizes.push_back(tensor_info(entry, offset, header));
    offset = gguf_aligned(checked_add(offset, p.sizes.back(), "the data"), p.alignment);
  }
  header.bytes.resize(gguf_aligned(header.bytes.size(), p.alignment), '\0');
  p.header = std::move(header.bytes);
  p.file_bytes = checked_add(p.header.size(), offset, "the file");
  return p;
}

}  // namespace

std::string gguf_header(const GgufMetadata& metadata, const std::vector<GgufWriter::Entry>& entries) {
  return prepare(metadata, entries).header;
}

std::uint64_t gguf_file_bytes(const GgufMetadata& metadata, const std::vector<GgufWriter::Entry>& entries) {
  return prepare(metadata, entries).file_bytes;
}

struct GgufWriter::State {
  AtomicFile file;
  std::vector<Entry> entries;
  std::vector<std::uint64_t> sizes;
  std::uint64_t alignment = 32;
  std::size_t next = 0;  // the entry to be written

  State(const std::filesystem::path& path, const GgufMetadata& metadata, std::vector<Entry> all)
      : file(path), entries(std::move(all)) {
    Prepared p = prepare(metadata, entries);
    sizes = std::move(p.sizes);
    alignment = p.alignment;
    file.write(p.header);
  }
};

GgufWriter::GgufWriter(const std::filesystem::path& file, GgufMetadata metadata, std::vector<Entry> entries)
    : state_(std::make_unique<State>(file, metadata, std::move(entries))) {}
GgufWriter::GgufWriter(GgufWriter&&) noexcept = default;
GgufWriter::~GgufWriter() = default;

void GgufWriter::write(std::string_view name, std::span<const std::byte> bytes) {
  State& s = *state_;
  SLMC_CHECK(s.next < s.entries.size() && s.entries[s.next].name == name && s.sizes[s.next] == bytes.size());
  s.file.write(bytes);
  const std::string padding(gguf_aligned(s.file.written(), s.alignment) - s.file.written(), '\0');
  if (!padding.empty()) s.file.write(padding);
  ++s.next;
}

const std::filesystem::path& GgufWriter::path() const { return state_->file.path(); }

void GgufWriter::finish() {
  SLMC_CHECK(state_->next == state_->entries.size());
  state_->file.commit();
}

// ---- encode ----

namespace {

constexpr std::size_t kChunk = 1 << 16;  // elements converted at a time; a multiple of every block

// Largest magnitude whose code has a finite scale (and min) in f16; infinite for types that hold every float.
float most_magnitude(GgmlType type) {
  constexpr float kMostF16 = 65504.0f;
  switch (type) {
    case GgmlType::F16:
    case GgmlType::Q4_1:
    case GgmlType::Q5_1: return kMostF16;
    case GgmlType::Q4_0: return kMostF16 * 8;
    case GgmlType::Q5_0: return kMostF16 * 16;
    case GgmlType::Q8_0: return kMostF16 * 127;
    default: return std::numeric_limits<float>::infinity();
  }
}

void check_range(std::span<const float> values, const GgmlTypeInfo& type, std::string_view name) {
  const float most = most_magnitude(type.type);
  if (std::isinf(most)) return;
  const auto bad =
      std::find_if(values.begin(), values.end(), [&](float x) { return !(std::fabs(x) <= most); });
  if (bad != values.end()) {
    throw Error(ErrorKind::Numeric,
                fmt::format("the values of '{}' must be within {} to be stored as {}, but one is {}", name,
                            most, type.name, *bad),
                "store this tensor as bf16 or f32");
  }
}

void refuse_ragged_rows(const TensorData& data, const GgmlTypeInfo& type, std::string_view name) {
  const std::int64_t row = data.shape.empty() ? 1 : data.shape.back();
  if (row % type.block != 0) {
    throw Error(
        ErrorKind::Unsupported,
        fmt::format("the rows of '{}' must be multiples of {} long to be stored as {}, but have {} elements",
                    name, type.block, type.name, row));
  }
}

}  // namespace

std::vector<std::byte> encode(const TensorData& data, GgmlType target, std::string_view name) {
  const GgmlTypeInfo& type = info(target);
  SLMC_CHECK(type.writable);
  refuse_ragged_rows(data, type, name);
  if (data.quantized && scheme_of(target) == data.quantized->scheme)
    return pack_blocks(target, *data.quantized);
  if (!data.quantized && dtype_of(target) == data.dtype) return {data.bytes.begin(), data.bytes.end()};

  const std::vector<float> expanded = data.quantized ? data.to_floats() : std::vector<float>();
  const auto count = static_cast<std::size_t>(data.count());
  const std::size_t element = data.quantized ? 0 : size_of(data.dtype);
  std::vector<std::byte> out(count / static_cast<std::size_t>(type.block) *
                             static_cast<std::size_t>(type.bytes));
  parallel_for(static_cast<std::int64_t>((count + kChunk - 1) / kChunk), [&](std::int64_t piece) {
    const std::size_t begin = static_cast<std::size_t>(piece) * kChunk,
                      size = std::min(kChunk, count - begin);
    std::vector<float> converted;
    std::span<const float> values =
        std::span(expanded).subspan(data.quantized ? begin : 0, data.quantized ? size : 0);
    if (!data.quantized) {
      converted.resize(size);
      to_f32(data.dtype, data.bytes.subspan(begin * element, size * element), converted);
      values = converted;
    }
    check_range(values, type, name);
    const std::size_t from =
        begin / static_cast<std::size_t>(type.block) * static_cast<std::size_t>(type.bytes);
    const std::size_t bytes =
        size / static_cast<std::size_t>(type.block) * static_cast<std::size_t>(type.bytes);
    quantize_reference(target, values, std::span(out).subspan(from, bytes));
  });
  return out;
}

}  // namespace slmc::io
