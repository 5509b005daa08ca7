#include "io/gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "core/bytes.h"
#include "core/error.h"
#include "io/gguf_layout.h"

namespace slmc::io {
namespace {

constexpr std::uint64_t kMostElements = 1ull << 24;  // of one metadata array: far above any vocabulary
constexpr std::uint64_t kMostKeyBytes = 65535;       // the specification's limit
constexpr std::uint32_t kMostDims = 4;               // GGML_MAX_DIMS

// One parser of one file, in the order of the bytes.
class Parser {
 public:
  Parser(std::span<const std::byte> bytes, const std::string& file) : in_(bytes, file), size_(bytes.size()) {}

  struct Counts {
    std::uint64_t tensors, pairs;
  };

  Counts preamble() {
    if (in_.text(4, "the magic number") != "GGUF")
      in_.fail("the file must begin with \"GGUF\", but does not");
    const std::uint32_t version = in_.u32("the version");
    if (version != kGgufVersion) {
      const bool swapped = std::endian::native == std::endian::little && version == kGgufVersion << 24;
      in_.fail(swapped ? "the file must be little-endian, but is big-endian"
                       : fmt::format("the GGUF version must be {}, but is {}", kGgufVersion, version));
    }
    const std::uint64_t tensors = in_.u64("the number of tensors"),
                        pairs = in_.u64("the number of metadata pairs");
    in_.require_room(tensors, kSmallestTensor, "the tensors");
    in_.require_room(pairs, kSmallestPair, "the metadata pairs");
    return {tensors, pairs};
  }

  std::pair<std::string, GgufValue> pair() {
    const std::uint64_t bytes = in_.u64("the length of a key");
    if (bytes > kMostKeyBytes)
      in_.fail(fmt::format("a key must have at most {} bytes, but has {}", kMostKeyBytes, bytes));
    std::string key(in_.text(bytes, "a key"));
    const GgufType type = value_type(key);
    GgufValue value = type == GgufType::Array ? array(key) : scalar(type, key);
    return {std::move(key), std::move(value)};
  }

  // The offset still counts from the start of the data.
  GgufTensor tensor() {
    GgufTensor t;
    t.name = string("a tensor's name");
    const std::string what = fmt::format("the tensor '{}'", t.name);
    const std::uint32_t dims = in_.u32(what);
    if (dims > kMostDims)
      in_.fail(fmt::format("{} must have at most {} dimensions, but has {}", what, kMostDims, dims));
    for (std::uint32_t i = 0; i < dims; ++i) {
      const std::uint64_t size = in_.u64(what);
      if (size > static_cast<std::uint64_t>(INT64_MAX))
        in_.fail(fmt::format("the sizes of {} must fit 63 bits, but one is {}", what, size));
      t.shape.insert(t.shape.begin(), static_cast<std::int64_t>(size));
    }
    const std::uint32_t type = in_.u32(what);
    const GgmlTypeInfo* known = ggml_type(type);
    if (known == nullptr)
      in_.fail(fmt::format("the type of {} must be one that slmc reads, but is number {}", what, type));
    t.type = known->type;
    t.bytes = gguf_bytes(t.type, t.shape, what);
    t.offset = in_.u64(what);
    return t;
  }

  std::uint64_t position() const { return in_.position(); }
  std::uint64_t size() const { return size_; }
  [[noreturn]] void fail(const std::string& message) const { in_.fail(message); }

 private:
  std::string string(std::string_view what) {
    const std::uint64_t bytes = in_.u64(what);
    return std::string(in_.text(bytes, what));
  }

  GgufType value_type(const std::string& key) {
    const std::uint32_t type = in_.u32(key);
    if (type > static_cast<std::uint32_t>(GgufType::F64)) {
      in_.fail(fmt::format("the type of '{}' must be 0 to 12, but is {}", key, type));
    }
    return static_cast<GgufType>(type);
  }

  bool boolean(const std::string& key) {
    const std::uint8_t byte = in_.u8(key);
    if (byte > 1) in_.fail(fmt::format("'{}' must be 0 or 1, because it is a bool, but is {}", key, byte));
    return byte != 0;
  }

  std::uint64_t unsigned_number(GgufType type, const std::string& key) {
    switch (type) {
      case GgufType::U8: return in_.u8(key);
      case GgufType::U16: return in_.u16(key);
      case GgufType::U32: return in_.u32(key);
      case GgufType::Bool: return boolean(key);
      default: return in_.u64(key);
    }
  }

  std::int64_t signed_number(GgufType type, const std::string& key) {
    switch (type) {
      case GgufType::I8: return static_cast<std::int8_t>(in_.u8(key));
      case GgufType::I16: return static_cast<std::int16_t>(in_.u16(key));
      case GgufType::I32: return in_.i32(key);
      default: return static_cast<std::int64_t>(in_.u64(key));
    }
  }

  double real_number(GgufType type, const std::string& key) {
    return type == GgufType::F32 ? static_cast<double>(in_.f32(key)) : in_.f64(key);
  }

  GgufValue scalar(GgufType type, const std::string& key) {
    GgufValue value;
    value.type = type;
    switch (kind_of(type)) {
      case GgufKind::Unsigned: value.value = unsigned_number(type, key); break;
      case GgufKind::Signed: value.value = signed_number(type, key); break;
      case GgufKind::Real: value.value = real_number(type, key); break;
      case GgufKind::Bool: value.value = boolean(key); break;
      case GgufKind::Text: value.value = string(key); break;
    }
    return value;
  }

  template <typename Element>
  auto elements(std::uint64_t count, Element element) {
    std::vector<decltype(element())> out;
    out.reserve(count);
    for (std::uint64_t i = 0; i < count; ++i) out.push_back(element());
    return out;
  }

  GgufValue array(const std::string& key) {
    GgufValue value;
    value.type = GgufType::Array;
    value.element = value_type(key);
    if (value.element == GgufType::Array)
      in_.fail(fmt::format("'{}' must be an array of simple values, but is one of arrays", key));
    const std::uint64_t count = in_.u64(key);
    if (count > kMostElements)
      in_.fail(
          fmt::format("the array '{}' must have at most {} elements, but has {}", key, kMostElements, count));
    in_.require_room(count, smallest_size(value.element), fmt::format("the array '{}'", key));
    const GgufType type = value.element;
    switch (kind_of(type)) {
      case GgufKind::Unsigned:
      case GgufKind::Bool: value.value = elements(count, [&] { return unsigned_number(type, key); }); break;
      case GgufKind::Signed: value.value = elements(count, [&] { return signed_number(type, key); }); break;
      case GgufKind::Real: value.value = elements(count, [&] { return real_number(type, key); }); break;
      case GgufKind::Text: value.value = elements(count, [&] { return string(key); }); break;
    }
    return value;
  }

  ByteReader in_;
  std::uint64_t size_;
};

// Every tensor lies aligned inside the file and shares no byte with another.
void check_places(const std::vector<GgufTensor>& tensors, const Parser& parser) {
  std::vector<const GgufTensor*> order;
  for (const GgufTensor& t : tensors) {
    if (t.bytes > 0) order.push_back(&t);
  }
  std::sort(order.begin(), order.end(),
            [](const GgufTensor* a, const GgufTensor* b) { return a->offset < b->offset; });
  const GgufTensor* before = nullptr;
  for (const GgufTensor* t : order) {
    if (t->offset > parser.size() || t->bytes > parser.size() - t->offset) {
      parser.fail(fmt::format("the data of '{}' must lie inside the file of {} bytes, but ends at {}",
                              t->name, parser.size(), t->offset + t->bytes));
    }
    if (before != nullptr && t->offset < before->offset + before->bytes) {
      parser.fail(fmt::format("the data of '{}' must begin behind that of '{}', but they overlap", t->name,
                              before->name));
    }
    before = t;
  }
}

}  // namespace

GgufFile GgufFile::open(const std::filesystem::path& path) {
  const MappedFile map = MappedFile::open(path);
  GgufFile file = parse(map.bytes(), path.string());
  file.map_ = map;
  return file;
}

GgufFile GgufFile::parse(std::span<const std::byte> bytes, std::string name) {
  GgufFile file;
  file.file_ = std::move(name);
  file.bytes_ = bytes;
  try {
    file.read_header();
  } catch (Error& error) {
    error.in_file(file.file_);
    throw;
  }
  return file;
}

void GgufFile::read_header() {
  Parser parser(bytes_, file_);
  const Parser::Counts counts = parser.preamble();
  std::map<std::string, std::size_t, std::less<>> keys;
  for (std::uint64_t i = 0; i < counts.pairs; ++i) {
    metadata_.push_back(parser.pair());
    const std::string& key = metadata_.back().first;
    if (!keys.emplace(key, i).second)
      parser.fail(fmt::format("a metadata key must stand once, but '{}' is repeated", key));
  }
  for (std::uint64_t i = 0; i < counts.tensors; ++i) {
    tensors_.push_back(parser.tensor());
    const std::string& tensor = tensors_.back().name;
    if (!by_name_.emplace(tensor, i).second)
      parser.fail(fmt::format("a tensor must stand once, but '{}' is repeated", tensor));
  }
  alignment_ = gguf_alignment(metadata_);
  const std::uint64_t data = gguf_aligned(parser.position(), alignment_);
  for (GgufTensor& t : tensors_) {
    if (t.offset % alignment_ != 0) {
      parser.fail(fmt::format("the offset of '{}' must be a multiple of {}, but is {}", t.name, alignment_,
                              t.offset));
    }
    t.offset = checked_add(t.offset, data, fmt::format("the place of '{}'", t.name));
    checked_add(t.offset, t.bytes, fmt::format("the end of '{}'", t.name));
  }
  check_places(tensors_, parser);
}

const GgufTensor* GgufFile::find_tensor(std::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

std::span<const std::byte> GgufFile::bytes(const GgufTensor& tensor) const {
  return tensor.bytes == 0 ? std::span<const std::byte>() : bytes_.subspan(tensor.offset, tensor.bytes);
}

TensorData GgufFile::read(const GgufTensor& tensor) const {
  const std::span<const std::byte> stored = bytes(tensor);
  if (scheme_of(tensor.type)) return TensorData::of(tensor.shape, unpack_blocks(tensor.type, stored));
  if (const std::optional<DType> dense = dtype_of(tensor.type)) {
    TensorData data;
    data.shape = tensor.shape;
    data.dtype = *dense;
    data.bytes = stored;
    data.owner = std::make_shared<const MappedFile>(map_);
    return data;
  }
  const GgmlTypeInfo& type = info(tensor.type);
  auto values = std::make_shared<std::vector<float>>(stored.size() / static_cast<std::size_t>(type.bytes) *
                                                     static_cast<std::size_t>(type.block));
  dequantize(tensor.type, stored, *values);
  TensorData data;
  data.shape = tensor.shape;
  data.dtype = DType::F32;
  data.bytes = std::as_bytes(std::span(*values));
  data.owner = std::move(values);
  return data;
}

}  // namespace slmc::io
