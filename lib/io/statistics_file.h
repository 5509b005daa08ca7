#pragma once
// HDF5 files of statistics (Gram matrices, means, cosines): named datasets plus one JSON attribute that says what they are.
//   0 .. 511         user block: "slmc statistics 1 sha256 HEX", the hash of all that follows, checked before HDF5 sees it
//   /NAME            dataset of F32, F64 or I64, chunked by rows, little-endian     e.g. /block.3.ffn.down.in/gram
//   attribute "slmc" JSON: {"slmc_statistics": 1, "model": hash, "data": hash, ...}
// A damaged file is a cache miss for the caller: Error(Data).
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/json.h"
#include "io/tensor_data.h"

namespace slmc::io {

class StatisticsWriter {                      // not thread safe: one writer
 public:
  StatisticsWriter(const std::filesystem::path& file, const Json& header);   // temporary sibling, renamed by finish()
  StatisticsWriter(StatisticsWriter&&) noexcept;
  ~StatisticsWriter();
  void write(const std::string& name, const TensorData& data);               // F32, F64, I64
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

class StatisticsFile {
 public:
  static StatisticsFile open(const std::filesystem::path& file);
  StatisticsFile(StatisticsFile&&) noexcept;
  StatisticsFile& operator=(StatisticsFile&&) noexcept;
  ~StatisticsFile();
  const Json& header() const;
  std::vector<std::string> names() const;                                    // sorted
  bool has(const std::string& name) const;
  TensorData read(const std::string& name) const;

 private:
  struct State;
  explicit StatisticsFile(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace slmc::io
