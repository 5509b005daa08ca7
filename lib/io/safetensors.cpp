#include "io/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "core/bytes.h"
#include "core/error.h"
#include "core/json.h"

namespace slmc::io {
namespace fs = std::filesystem;
namespace {

constexpr std::uint64_t kMostHeaderBytes = 100'000'000;  // the reference implementation's limit
constexpr std::size_t kMostDims = 64;

[[noreturn]] void fail(std::string_view file, std::string message, std::string hint = {}) {
  throw Error(ErrorKind::Model, Place{std::string(file), 0, 0, 1, {}}, std::move(message), std::move(hint));
}

std::uint64_t non_negative(const Json& value, std::string_view what, std::string_view file) {
  if (!value.is_number_unsigned()) {
    fail(file, fmt::format("{} must be a non-negative whole number, but is {}", what, dump_compact(value)));
  }
  return value.get<std::uint64_t>();
}

std::vector<std::int64_t> shape_of(Fields& entry, const std::string& name, const std::string& file) {
  const std::vector<std::int64_t> shape = entry.integers("shape");
  if (shape.size() > kMostDims) {
    fail(file,
         fmt::format("'{}' must have at most {} dimensions, but has {}", name, kMostDims, shape.size()));
  }
  return shape;
}

// One entry of the header; its offset still counts from the start of the data.
StoredTensor entry_of(const std::string& name, const Json& json, const std::string& file) {
  Fields entry(json, file, name, ErrorKind::Model);
  StoredTensor tensor;
  tensor.name = name;
  const std::string dtype = entry.text("dtype");
  const std::optional<DType> known = dtype_from(dtype);
  if (!known)
    fail(file, fmt::format("the dtype of '{}' must be one that slmc reads, but is '{}'", name, dtype));
  tensor.dtype = *known;
  tensor.shape = shape_of(entry, name, file);
  const Json& offsets = entry.at("data_offsets");
  if (!offsets.is_array() || offsets.size() != 2)
    entry.fail("data_offsets", "must be two numbers, but is " + dump_compact(offsets));
  tensor.offset = non_negative(offsets[0], fmt::format("the begin of '{}'", name), file);
  const std::uint64_t end = non_negative(offsets[1], fmt::format("the end of '{}'", name), file);
  entry.finish();
  if (end < tensor.offset) {
    fail(file, fmt::format("the end of '{}' must not lie before its begin {}, but is {}", name, tensor.offset,
                           end));
  }
  tensor.bytes = end - tensor.offset;
  const std::string what = fmt::format("'{}'", name);
  const std::uint64_t want = checked_mul(element_count(tensor.shape, what), size_of(tensor.dtype), what);
  if (tensor.bytes != want) {
    fail(file, fmt::format("the data of '{}' must be {} bytes ({} {}), but is {}", name, want, dtype,
                           shape_text(tensor.shape), tensor.bytes));
  }
  return tensor;
}

// Tensors lie back to back from 0 to `data_bytes`: no gap, no overlap, nothing left over.
void check_tiling(std::vector<StoredTensor>& tensors, std::uint64_t data_bytes, std::string_view file) {
  std::stable_sort(tensors.begin(), tensors.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return std::pair(a.offset, a.bytes) < std::pair(b.offset, b.bytes);
  });
  std::uint64_t expected = 0;
  for (const StoredTensor& t : tensors) {
    if (t.offset != expected) {
      fail(file,
           fmt::format("the data of '{}' must begin at {}, where the data before it ends, but begins at {}",
                       t.name, expected, t.offset));
    }
    expected = checked_add(expected, t.bytes, "the end of the data");
  }
  if (expected != data_bytes) {
    fail(file, fmt::format("the data must be {} bytes as the header says, but {} bytes follow the header",
                           expected, data_bytes));
  }
}

void read_metadata(const Json& json, std::map<std::string, std::string>& metadata, std::string_view file) {
  if (!json.is_object())
    fail(file, "'__metadata__' must be an object of strings, but is " + dump_compact(json).substr(0, 60));
  for (const auto& [key, value] : json.items()) {
    if (!value.is_string())
      fail(file, fmt::format("the metadata '{}' must be a string, but is {}", key,
                             dump_compact(value).substr(0, 60)));
    metadata[key] = value.get<std::string>();
  }
}

}  // namespace

SafetensorsFile SafetensorsFile::open(const fs::path& path) {
  const MappedFile map = MappedFile::open(path);
  SafetensorsFile file = parse(map.bytes(), path.string());
  file.map_ = map;
  return file;
}

SafetensorsFile SafetensorsFile::parse(std::span<const std::byte> bytes, std::string name) {
  SafetensorsFile file;
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

void SafetensorsFile::read_header() {
  ByteReader in(bytes_, file_);
  const std::uint64_t header_bytes = in.u64("the length of the header");
  if (header_bytes > kMostHeaderBytes) {
    fail(file_, fmt::format("the header must be at most {} bytes, but is {}", kMostHeaderBytes, header_bytes),
         "is this a safetensors file?");
  }
  const std::string_view text = in.text(header_bytes, "the header");
  if (!text.starts_with('{'))
    fail(file_, "the header must begin with '{', but does not", "is this a safetensors file?");
  const Json header = parse_json(text, file_, ErrorKind::Model);
  for (const auto& [key, value] : header.items()) {
    if (key == "__metadata__") {
      read_metadata(value, metadata_, file_);
    } else {
      tensors_.push_back(entry_of(key, value, file_));
    }
  }
  check_tiling(tensors_, in.left(), file_);
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    tensors_[i].offset += in.position();
    by_name_.emplace(tensors_[i].name, i);
  }
}

const StoredTensor* SafetensorsFile::find(std::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

TensorData SafetensorsFile::read(std::string_view name) const {
  const StoredTensor* tensor = find(name);
  if (tensor == nullptr) {
    std::vector<std::string> names;
    for (const StoredTensor& t : tensors_) names.push_back(t.name);
    const std::string guess = closest(name, names);
    fail(file_, fmt::format("the tensor '{}' must be in the file, but is not", name),
         guess.empty() ? "" : fmt::format("did you mean '{}'?", guess));
  }
  TensorData data;
  data.shape = tensor->shape;
  data.dtype = tensor->dtype;
  data.bytes = bytes_.subspan(tensor->offset, tensor->bytes);
  data.owner = std::make_shared<const MappedFile>(map_);
  return data;
}

// ---- folders ----

namespace {

// A shard's name comes from the index, so it must stay inside the folder.
void check_shard_name(const std::string& name, const std::string& index) {
  const fs::path path(name);
  if (name.empty() || path.has_parent_path() || path.is_absolute() || name == "." || name == "..") {
    fail(index, fmt::format("a shard must be a file name in the same folder, but is '{}'", name));
  }
}

// tensor name -> shard, from model.safetensors.index.json
std::map<std::string, std::string> read_index(const fs::path& path) {
  const Json json = read_json(path, ErrorKind::Model);
  Fields fields(json, path.string(), "", ErrorKind::Model);
  const Json& weight_map = fields.at("weight_map");
  if (!weight_map.is_object())
    fields.fail("weight_map", "must be an object, but is " + dump_compact(weight_map).substr(0, 60));
  std::map<std::string, std::string> shards;
  for (const auto& [tensor, shard] : weight_map.items()) {
    if (!shard.is_string())
      fail(path.string(),
           fmt::format("the shard of '{}' must be a string, but is {}", tensor, dump_compact(shard)));
    shards[tensor] = shard.get<std::string>();
    check_shard_name(shards[tensor], path.string());
  }
  return shards;
}

std::vector<SafetensorsFile> open_shards(const fs::path& folder, const fs::path& index) {
  const std::map<std::string, std::string> shard_of = read_index(index);
  std::set<std::string> names;
  for (const auto& [tensor, shard] : shard_of) names.insert(shard);
  std::vector<SafetensorsFile> files;
  std::map<std::string, std::string> seen;  // tensor -> the shard that holds it
  for (const std::string& name : names) {
    files.push_back(SafetensorsFile::open(folder / name));
    for (const StoredTensor& t : files.back().tensors()) {
      const auto [it, fresh] = seen.emplace(t.name, name);
      if (!fresh)
        fail(index.string(), fmt::format("the tensor '{}' must stand in one shard, but is in '{}' and '{}'",
                                         t.name, it->second, name));
    }
  }
  for (const auto& [tensor, shard] : shard_of) {
    const auto it = seen.find(tensor);
    if (it == seen.end() || it->second != shard) {
      fail(index.string(), fmt::format("the tensor '{}' must be in '{}' as the index says, but is {}", tensor,
                                       shard, it == seen.end() ? "in no shard" : "in '" + it->second + "'"));
    }
  }
  for (const auto& [tensor, shard] : seen) {
    if (!shard_of.contains(tensor)) {
      fail(index.string(),
           fmt::format("the index must name every tensor of its shards, but '{}' of '{}' is missing", tensor,
                       shard));
    }
  }
  return files;
}

}  // namespace

std::vector<SafetensorsFile> open_safetensors_folder(const fs::path& folder) {
  const fs::path single = folder / "model.safetensors", index = folder / "model.safetensors.index.json";
  if (fs::exists(single)) {
    std::vector<SafetensorsFile> files;
    files.push_back(SafetensorsFile::open(single));
    return files;
  }
  if (fs::exists(index)) return open_shards(folder, index);
  fail(folder.string(),
       "the folder must hold model.safetensors or model.safetensors.index.json, but has neither");
}

}  // namespace slmc::io
