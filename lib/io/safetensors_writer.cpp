#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <nlohmann/json.hpp>

#include "core/bytes.h"
#include "core/error.h"
#include "core/json.h"
#include "io/safetensors.h"

namespace slmc::io {
namespace fs = std::filesystem;
namespace {

struct Slot {  // where one tensor goes
  std::size_t shard = 0;
  std::uint64_t offset = 0;  // from the start of the shard's data, then of the shard
  std::uint64_t bytes = 0;
  std::uint64_t written = 0;       // bytes of it that are there
};

std::uint64_t bytes_of(const SafetensorsWriter::Entry& entry) {
  const std::string what = fmt::format("'{}'", entry.name);
  return checked_mul(element_count(entry.shape, what), size_of(entry.dtype), what);
}

std::string shard_name(std::size_t i, std::size_t shards) {
  return shards == 1 ? "model.safetensors" : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards);
}

}  // namespace

std::string safetensors_header(const std::vector<StoredTensor>& tensors,
                               const std::map<std::string, std::string>& metadata) {
  Json json = Json::object();
  if (!metadata.empty()) json["__metadata__"] = metadata;
  Json::object_t::Container& members = json.get_ref<Json::object_t&>();
  std::uint64_t offset = 0;
  for (const StoredTensor& t : tensors) {
    members.emplace_back(t.name, Json{{"dtype", to_string(t.dtype)},
                                      {"shape", t.shape},
                                      {"data_offsets", {offset, offset + t.bytes}}});
    offset += t.bytes;
  }
  std::string text;
  try {
    text = json.dump();  // not dump_compact: names must survive, not be repaired
  } catch (const Json::exception&) {
    throw Error(ErrorKind::Unsupported,
                "tensor names and metadata must be UTF-8 to be stored in safetensors, but one is not");
  }
  text.append((8 - text.size() % 8) % 8, ' ');
  const std::uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + text;
}

struct SafetensorsWriter::State {
  std::vector<Entry> entries;
  std::map<std::string, Slot, std::less<>> slots;
  std::size_t shards = 1;
  std::deque<AtomicFile> files;  // a deque: files can't move
  std::vector<fs::path> paths;   // of the files
  fs::path index_path;           // empty when there is no index
  std::uint64_t total_bytes = 0;

  // Fills shards in the given order, then lays each one out.
  State(std::vector<Entry> all, std::uint64_t shard_bytes) : entries(std::move(all)) {
    std::uint64_t filled = 0;
    for (const Entry& entry : entries) {
      const std::uint64_t bytes = bytes_of(entry);
      if (filled > 0 && (bytes > shard_bytes || filled > shard_bytes - bytes)) {
        ++shards;
        filled = 0;
      }
      const bool fresh = slots.emplace(entry.name, Slot{shards - 1, 0, bytes, 0}).second;
      SLMC_CHECK(fresh && entry.name != "__metadata__");
      filled += bytes;
      total_bytes += bytes;
    }
    std::stable_sort(entries.begin(), entries.end(),
                     [](const Entry& a, const Entry& b) { return size_of(a.dtype) > size_of(b.dtype); });
    std::vector<std::uint64_t> end(shards, 0);
    for (const Entry& entry : entries) {
      Slot& slot = slots.at(entry.name);
      slot.offset = end[slot.shard];
      end[slot.shard] += slot.bytes;
    }
  }

  // Opens a shard and writes its header.
  void begin(const fs::path& path, std::size_t shard, const std::map<std::string, std::string>& metadata) {
    std::vector<StoredTensor> tensors;
    for (const Entry& entry : entries) {
      const Slot& slot = slots.at(entry.name);
      if (slot.shard == shard) tensors.push_back({entry.name, entry.dtype, entry.shape, 0, slot.bytes});
    }
    std::string header;
    try {
      header = safetensors_header(tensors, metadata);
    } catch (Error& error) {
      error.in_file(path.string());
      throw;
    }
    AtomicFile& file = files.emplace_back(path);
    paths.push_back(path);
    file.write(header);
    for (auto& [name, slot] : slots) {
      if (slot.shard == shard) slot.offset += header.size();
    }
  }

  // All or nothing: what was renamed before a failure is taken away again.
  void commit_all() {
    std::size_t done = 0;
    try {
      for (AtomicFile& file : files) {
        file.commit();
        ++done;
      }
      if (!index_path.empty()) write_index();
    } catch (...) {
      std::error_code ignored;
      for (std::size_t i = 0; i < done; ++i) fs::remove(paths[i], ignored);
      throw;
    }
  }

  void write_index() const {
    Json index = {{"metadata", {{"total_size", total_bytes}}}, {"weight_map", Json::object()}};
    Json::object_t::Container& weight_map = index["weight_map"].get_ref<Json::object_t&>();
    for (const auto& [name, slot] : slots) weight_map.emplace_back(name, shard_name(slot.shard, shards));
    write_json(index_path, index);
  }
};

SafetensorsWriter::SafetensorsWriter(std::unique_ptr<State> state) : state_(std::move(state)) {}
SafetensorsWriter::SafetensorsWriter(SafetensorsWriter&&) noexcept = default;
SafetensorsWriter::~SafetensorsWriter() = default;

SafetensorsWriter::SafetensorsWriter(const fs::path& folder, std::vector<Entry> entries,
                                     std::map<std::string, std::string> metadata, std::uint64_t shard_bytes)
    : state_(std::make_unique<State>(std::move(entries), shard_bytes)) {
  for (std::size_t i = 0; i < state_->shards; ++i)
    state_->begin(folder / shard_name(i, state_->shards), i, metadata);
  if (state_->shards > 1) state_->index_path = folder / "model.safetensors.index.json";
}

SafetensorsWriter SafetensorsWriter::single(const fs::path& file, std::vector<Entry> entries,
                                            std::map<std::string, std::string> metadata) {
  auto state = std::make_unique<State>(std::move(entries), ~0ull);
  state->begin(file, 0, metadata);
  return SafetensorsWriter(std::move(state));
}

void SafetensorsWriter::write(std::string_view name, std::span<const std::byte> bytes) {
  const auto it = state_->slots.find(name);
  SLMC_CHECK(it != state_->slots.end() && bytes.size() == it->second.bytes);
  append(name, bytes);
}

void SafetensorsWriter::append(std::string_view name, std::span<const std::byte> bytes) {
  const auto it = state_->slots.find(name);
  SLMC_CHECK(it != state_->slots.end());
  Slot& slot = it->second;
  SLMC_CHECK(bytes.size() <= slot.bytes - slot.written);
  state_->files[slot.shard].write_at(slot.offset + slot.written, bytes);
  slot.written += bytes.size();
}

void SafetensorsWriter::finish() {
  for (const auto& [name, slot] : state_->slots) SLMC_CHECK(slot.written == slot.bytes);
  state_->commit_all();
}

}  // namespace slmc::io
