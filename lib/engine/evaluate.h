#pragma once
// How good a model is, on token windows and on token sequences: log-likelihoods, and the distance from a reference model. Texts, tasks and
// files are op_eval.cpp's; methods that try changes (greedy drops, sweeps) call these functions on their own windows.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "data/eval_sets.h"
#include "engine/decoder.h"
#include "stage/job.h"

namespace slmc::engine {

// Windows are [n, T] int64. A window's first token is context only: T - 1 tokens are predicted.
struct WindowScores {
  std::vector<double> nll;                 // [n] mean negative log-likelihood of a window's predicted tokens, nats
  double mean() const;                     // of all predicted tokens; perplexity is its exp
  double standard_error() const;           // of mean(), windows taken as independent draws: sd / sqrt(n); 0 for one window
};

// Error(Numeric) naming the window when a likelihood isn't finite. Polls for interruption between batches.
WindowScores score_windows(const ModelRef& model, const at::Tensor& windows, stage::Events& events, const Pass& pass = {});

struct WindowComparison {
  WindowScores model, reference;
  std::vector<double> kl;                  // [n] mean KL(reference || model) at a window's predicted positions, nats
  std::vector<double> top1;                // [n] share of them at which both have the same likeliest token
};
WindowComparison compare_windows(Loaded& model, Loaded& reference, const at::Tensor& windows, stage::Events& events);

// Sum of ln p over the scored part of each sequence; sequences of similar length share a batch.
std::vector<double> log_likelihoods(Loaded& model, const std::vector<data::ScoredSequence>& sequences, stage::Events& events);

double mean_of(const std::vector<double>& values);

}  // namespace slmc::engine
