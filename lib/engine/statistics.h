#pragma once
// One pass over calibration windows, block by block, that serves everyone who asks. Only one block's weights and the residual stream of
// the windows are in memory at once. Sums are taken in fixed tiles and fixed order: the same bytes for any number of threads.
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "engine/decoder.h"
#include "ir/model.h"
#include "stage/job.h"

namespace slmc::engine {

enum class Statistic {
  Gram,         // X^T X / N, [d, d] fp64 from fp32 products in tiles folded into fp64
  Mean,         // [d] fp64
  MeanAbs,      // [d]
  MaxAbs,       // [d]
  MeanSquare,   // [d]; the diagonal of Gram
};
std::string_view to_string(Statistic s);       // "gram", the dataset's last name

struct Request {
  std::string site;                            // "block.3.ffn.down.in"
  Statistic what;
  auto operator<=>(const Request&) const = default;
};

// Values by "SITE/STATISTIC". `tokens` rows went into each.
struct Statistics {
  std::int64_t tokens = 0;
  std::map<std::string, at::Tensor> of;
  const at::Tensor& at(const std::string& site, Statistic what) const;
};

// Block Influence and friends need relations between residual streams: mean over tokens of cos(x_i, x_j) for block inputs i < j.
// [blocks + 1, blocks + 1] fp64, upper triangle. Asked for as the site "residual/cosine".
struct CollectSettings {
  std::set<Request> requests;
  bool residual_cosines = false;
  at::Device device = at::kCPU;
};

// windows [n, seq] int64. Throws Error(Interrupted) between blocks when asked to stop, Error(Numeric) naming site and block on NaN.
Statistics collect(const ir::Model& model, const at::Tensor& windows, const CollectSettings& settings, stage::Events& events);

// The same through a content-addressed file in `cache` (model content, window ids, requests): a hit reads, a miss collects and writes. A
// cached file that holds more than is asked for is a hit too. Empty `cache`: always collects.
Statistics collect_cached(const ir::Model& model, const at::Tensor& windows, const CollectSettings& settings,
                          const std::filesystem::path& cache, stage::Events& events);

}  // namespace slmc::engine
