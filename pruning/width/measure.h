#pragma once
// What `prune` measures before it decides: one statistics pass over the windows that fit, one over the held-out ones, both through the
// cache. Whoever asks for another width of the same model on the same text needs no forward pass.
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>

#include "engine/statistics.h"
#include "pruning/width/decide.h"

namespace slmc::pruning {

// Calibration windows [n, seq]: the last eighth is held out, chooses ridges and judges. A single window does both.
struct SplitWindows {
  at::Tensor fit, held_out;
};
SplitWindows split(const at::Tensor& windows);

struct Measured {
  engine::Statistics fit, held_out;           // held_out: only what judges a refit
  std::int64_t windows = 0;                   // of `fit`
};

struct Asked {
  Wants wants;                                // of the criterion
  bool grams = false, means = false;          // of a refit: E[x xᵀ], E[x] of what narrowed maps read
  bool norms = false;                         // E[x²] of the stream that each norm reads
  bool windows = false;                       // what the criterion wants also of each window on its own, for stability.h
};

// Of the maps that `widths` narrows. Undefined windows: nothing may be asked for.
Measured measure(const ir::Model& model, const at::Tensor& windows, const Widths& widths, const Asked& asked, at::Device device,
                 const std::filesystem::path& cache, stage::Events& events);

// Whether a tensor is the gain of a norm over the residual stream.
bool is_stream_norm(const std::string& name);

// The stream's site that a norm reads: "block.3.ffn.norm" -> "block.3.mid", "norm" -> "block.29.out".
std::string stream_site(const ir::Model& model, const std::string& norm);

// The statistics of a map's inputs as criteria see them.
Inputs inputs_of(const engine::Statistics& statistics, const std::string& map, const Wants& wants);

}  // namespace slmc::pruning
