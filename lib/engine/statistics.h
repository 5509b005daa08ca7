#pragma once
// One pass over calibration windows, block by block, that serves everyone who asks. Only one block's weights and the residual stream of

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "engine/decoder.h"
#include "io/statistics_file.h"
#include "ir/model.h"
#include "stage/job.h"

namespace slmc::engine {

enum class Statistic {
  Gram,         // X^T X / N, [d, d] from fp32 products in tiles folded into fp64
  Mean,         // [d]
  MeanAbs,      // [d]
  WindowAbs,    // [windows, d]; of each window the mean |x|
  WindowMean,   // [windows, d]; of each window the mean x
  WindowSquare, // [windows, d]; of each window the mean x²
  MaxAbs,       // [d]
  MeanSquare,   // [d]; the diagonal of Gram
  Cosine,       // [1]; of the site "block.{i}": mean over tokens of cos(block.{i}.in, block.{i}.out); 1 - this is Block Influence
};
std::string_view to_string(Statistic s);       // "gram", the dataset's last name

struct Request {
  std::string site;                            // "block.3.ffn.down.in"
  Statistic what;
  auto operator<=>(const Request&) const = default;
};

// Values by "SITE/STATISTIC", in memory or in a file of the cache, read when they are asked for. `tokens` rows went into each.
class Statistics {
 public:
  std::int64_t tokens = 0;
  at::Tensor at(const std::string& site, Statistic what) const;            // fp64 on the CPU. SLMC_CHECK: was it asked for?
  bool has(const std::string& site, Statistic what) const;
  std::vector<std::string> names() const;                                  // "block.3.ffn.down.in/gram", sorted

  void keep(const std::string& name, at::Tensor value) { values_[name] = std::move(value); }      // in the form that is kept
  void read_from(std::shared_ptr<const io::StatisticsFile> file) { file_ = std::move(file); }

 private:
  std::map<std::string, at::Tensor> values_;
  std::shared_ptr<const io::StatisticsFile> file_;
};

struct CollectSettings {
  // Sites: "block.{i}.TENSOR.in" of linear maps, "head.in", the residual stream "block.{i}.in|mid|out" (mid: not where both parts read
  // block.in), and "block.{i}" for Cosine.
  std::set<Request> requests;
  at::Device device = at::kCPU;
};

// windows [n, seq] int64. Blocks behind the last one asked for are not run. All values stay in memory, Grams with 2 d (d + 1) bytes each.
// Throws Error(Interrupted) between blocks when asked to stop, Error(Numeric) naming the site on NaN.
Statistics collect(const ir::Model& model, const at::Tensor& windows, const CollectSettings& settings, stage::Events& events);

// The same through a content-addressed HDF5 file in `cache` (model content, window ids, kernel path): a hit reads, a miss collects block by
// block into a new file that also gets what the old one held. A damaged file is a miss, with a warning. Of all files of statistics in
// `cache` the last used ones that together have at most kMostCached bytes stay. Empty `cache`: always collects, in memory.
inline constexpr std::uint64_t kMostCached = 8'000'000'000;
Statistics collect_cached(const ir::Model& model, const at::Tensor& windows, const CollectSettings& settings,
                          const std::filesystem::path& cache, stage::Events& events);

}  // namespace slmc::engine
