#pragma once
// Reads and writes safetensors files, one or sharded with an index. Little-endian; no number in a file is trusted.
//   OFFSET  SIZE  MEANING                                     REFUSED WHEN
//   0       8     n, bytes of header                          n > 100 MB, or 8 + n > file size
//   8       n     JSON {name: {dtype, shape, data_offsets}}   duplicate name, unknown dtype, negative number
//   8 + n   rest  tensor bytes, back to back                  gap, overlap, bytes != shape x dtype, bytes left over
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/file.h"
#include "io/tensor_data.h"

namespace slmc::io {

struct StoredTensor {                    // one entry of a header
  std::string name;
  DType dtype = DType::F32;
  std::vector<std::int64_t> shape;
  std::uint64_t offset = 0;              // from the start of the file
  std::uint64_t bytes = 0;
};

class SafetensorsFile {
 public:
  static SafetensorsFile open(const std::filesystem::path& path);
  // Pure twin of open for tests and fuzzers; `bytes` must outlive the result.
  static SafetensorsFile parse(std::span<const std::byte> bytes, std::string file);
  const std::vector<StoredTensor>& tensors() const { return tensors_; }      // in file order
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const StoredTensor* find(std::string_view name) const;
  TensorData read(std::string_view name) const;      // zero copy; Error(Model) when there is no such tensor
  const std::string& file() const { return file_; }

 private:
  void read_header();

  std::string file_;
  MappedFile map_;                                   // empty when made by parse
  std::span<const std::byte> bytes_;
  std::vector<StoredTensor> tensors_;
  std::map<std::string, std::string> metadata_;
  std::map<std::string, std::size_t, std::less<>> by_name_;
};

// A folder's weights: model.safetensors, or the shards named by model.safetensors.index.json.
// Error(Model): neither exists, a shard is missing, the index names a tensor its shard lacks, a name stands in two shards.
std::vector<SafetensorsFile> open_safetensors_folder(const std::filesystem::path& folder);

// The first bytes of a file whose tensors lie end to end in this order: length, JSON, spaces up to a multiple of 8. Offsets
// in `tensors` are ignored. Error(Unsupported): a name or metadata that is not UTF-8.
std::string safetensors_header(const std::vector<StoredTensor>& tensors, const std::map<std::string, std::string>& metadata);

// Streams tensors to disk: the header is fixed first, then each tensor's bytes are given once, in any order.
// Deterministic: in each file tensors lie by falling element size, then in the given order, so that readers find them
// aligned; the header is padded with spaces to 8 bytes; no gaps. Files appear on finish().
class SafetensorsWriter {
 public:
  struct Entry {
    std::string name;
    DType dtype;
    std::vector<std::int64_t> shape;
  };
  // One file FOLDER/model.safetensors, or shards of at most `shard_bytes` with an index when the tensors need more.
  SafetensorsWriter(const std::filesystem::path& folder, std::vector<Entry> entries,
                    std::map<std::string, std::string> metadata, std::uint64_t shard_bytes = 5'000'000'000ull);
  // One file under its own name (teacher logits, plan tensors, checkpoints).
  static SafetensorsWriter single(const std::filesystem::path& file, std::vector<Entry> entries,
                                  std::map<std::string, std::string> metadata = {});
  SafetensorsWriter(SafetensorsWriter&&) noexcept;
  ~SafetensorsWriter();
  void write(std::string_view name, std::span<const std::byte> bytes);   // size must equal the entry's
  void append(std::string_view name, std::span<const std::byte> bytes);  // the tensor's next bytes, when it never exists whole
  void finish();                                                         // every entry written, else SLMC_CHECK

 private:
  struct State;
  explicit SafetensorsWriter(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace slmc::io
