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
  Cosine,       // [1]; of the site "block.{i}": mean over tokens of cos(block.{i}.in, block.{i}.out); 1 - this is Block Influence
};
std::string_view to_string(Statistic s);       // "gram", the dataset's last name

struct Request {
  std::string site;                            // "block.3.ffn.down.in"
  Statistic what;
  auto operator<=>(const Request&) const = default;
};

// Values by "SITE/STATISTIC", on the CPU. `tokens` rows went into each.
struct Statistics {
  std::int64_t tokens = 0;
  std::map<std::string, at::Tensor> of;
  const at::Tensor& at(const std::string& site, Statistic what) const;     // SLMC_CHECK: was it asked for?
};

struct CollectSettings {
  std::set<Request> requests;                  // sites: "block.{i}.TENSOR.in" of linear maps, "block.{i}" for Cosine, "head.in"
  at::Device device = at::kCPU;
};

// windows [n, seq] int64. Blocks behind the last one asked for are not run. Grams of all blocks together need 8 d^2 bytes each: whoever can
// use them block by block takes engine/stream.h instead. Throws Error(Interrupted) between blocks when asked to stop, Error(Numeric)
// naming the site on NaN.
Statistics collect(const ir::Model& model, const at::Tensor& windows, const CollectSettings& settings, stage::Events& events);

// The same through a content-addressed HDF5 file in `cache` (model content, window ids, kernel path): a hit reads, a miss collects
// and adds to it. A damaged file is a miss, with a warning. Empty `cache`: always collects.
Statistics collect_cached(const ir::Model& model, const at::Tensor& windows, const CollectSettings& settings,
                          const std::filesystem::path& cache, stage::Events& events);

}  // namespace slmc::engine
