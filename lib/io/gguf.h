#pragma once
// Reads and writes GGUF version 3 (spec: the comment at the top of ggml's include/gguf.h). No number is trusted.
//   "GGUF" u32 version u64 tensors u64 pairs | pairs: string key, u32 type, value | tensors: string name, u32 dims,
//   u64 size[dims] (fastest first), u32 ggml type, u64 offset | padding to general.alignment | tensor data
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "core/file.h"
#include "io/ggml_types.h"
#include "io/tensor_data.h"

namespace slmc::io {

enum class GgufType : std::uint32_t {
  U8 = 0, I8 = 1, U16 = 2, I16 = 3, U32 = 4, I32 = 5, F32 = 6, Bool = 7, String = 8, Array = 9, U64 = 10, I64 = 11, F64 = 12,
};

// A metadata value that remembers its exact type, so that a file read and written again is the same file.
struct GgufValue {
  GgufType type = GgufType::U32;
  GgufType element = GgufType::U32;                       // Array only; arrays of arrays are refused (none exist)
  std::variant<std::uint64_t, std::int64_t, double, bool, std::string, std::vector<std::uint64_t>, std::vector<std::int64_t>,
               std::vector<double>, std::vector<std::string>> value;   // bool arrays are vectors of uint64_t
  bool operator==(const GgufValue&) const = default;
  static GgufValue u32(std::uint32_t v);
  static GgufValue i32s(std::vector<std::int64_t> v);
  static GgufValue u32s(std::vector<std::uint64_t> v);
  static GgufValue f32(float v);
  static GgufValue f32s(std::vector<double> v);
  static GgufValue boolean(bool v);
  static GgufValue text(std::string v);
  static GgufValue texts(std::vector<std::string> v);
};

struct GgufTensor {
  std::string name;
  GgmlType type = GgmlType::F32;
  std::vector<std::int64_t> shape;      // outermost first, as everywhere in slmc: the file's order reversed
  std::uint64_t offset = 0;             // from the start of the file
  std::uint64_t bytes = 0;
};

using GgufMetadata = std::vector<std::pair<std::string, GgufValue>>;   // in file order, keys unique

const GgufValue* find(const GgufMetadata& metadata, std::string_view key);
void set(GgufMetadata& metadata, std::string key, GgufValue value);    // replaces in place, or appends

class GgufFile {
 public:
  static GgufFile open(const std::filesystem::path& path);
  static GgufFile parse(std::span<const std::byte> bytes, std::string file);   // `bytes` must outlive the result
  const GgufMetadata& metadata() const { return metadata_; }
  const GgufValue* find(std::string_view key) const { return io::find(metadata_, key); }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }          // in file order
  const GgufTensor* find_tensor(std::string_view name) const;
  std::span<const std::byte> bytes(const GgufTensor& tensor) const;
  // Dense types zero copy; Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 as neutral Quantized; other block types dequantized to F32.
  TensorData read(const GgufTensor& tensor) const;
  std::uint64_t alignment() const { return alignment_; }
  const std::string& file() const { return file_; }

 private:
  void read_header();

  std::string file_;
  MappedFile map_;                      // empty when made by parse
  std::span<const std::byte> bytes_;
  std::uint64_t alignment_ = 32;
  GgufMetadata metadata_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string, std::size_t, std::less<>> by_name_;
};

// Streams a GGUF: header first, tensors in the given order, each once, in that order. The file appears on finish().
class GgufWriter {
 public:
  struct Entry {
    std::string name;
    GgmlType type;
    std::vector<std::int64_t> shape;    // outermost first
  };
  GgufWriter(const std::filesystem::path& file, GgufMetadata metadata, std::vector<Entry> entries);
  GgufWriter(GgufWriter&&) noexcept;
  ~GgufWriter();
  void write(std::string_view name, std::span<const std::byte> bytes);   // the encoded bytes of that type
  const std::filesystem::path& path() const;                             // the temporary: what is written can be read back before finish()
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Exact bytes of the file that such a writer makes, padding included.
std::uint64_t gguf_file_bytes(const GgufMetadata& metadata, const std::vector<GgufWriter::Entry>& entries);

// Bytes of `data` in `type`: dense converts, Quantized packs when the schemes agree, everything else is dequantized and
// fitted by the reference quantizer. Error(Unsupported) when the row length is not a multiple of the block; Error(Numeric)
// when a value (or NaN) has no finite f16 scale in `type`.
std::vector<std::byte> encode(const TensorData& data, GgmlType type, std::string_view name);

}  // namespace slmc::io
