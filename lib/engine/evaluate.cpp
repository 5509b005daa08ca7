#include "engine/evaluate.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/cancel.h"
#include "core/error.h"
#include "engine/head.h"

namespace slmc::engine {
namespace {

constexpr std::int64_t kBatchTokens = 2048;      // where matrix products are at full speed; memory stays at tens of MiB

at::Device device_of(const ModelRef& model) { return model.weights.tensor("embed").device(); }

// Rows behind the last norm at every position that predicts a token, [n * (T - 1), hidden].
at::Tensor predicting_rows(const ModelRef& model, const at::Tensor& windows, const Pass& pass) {
  const at::Tensor h = hidden_states(model.arch, model.weights, windows.to(device_of(model)), pass);
  return h.narrow(1, 0, h.size(1) - 1).reshape({-1, h.size(2)});
}

at::Tensor predicted_ids(const at::Tensor& windows) { return windows.narrow(1, 1, windows.size(1) - 1).reshape(-1); }

// Calls visit(first, count) for batches of windows; reports progress and stops when asked to.
template <typename Visit>
void for_batches(const at::Tensor& windows, stage::Events& events, Visit visit) {
  const std::int64_t n = windows.size(0), batch = std::max<std::int64_t>(1, kBatchTokens / windows.size(1));
  SLMC_CHECK(windows.dim() == 2 && windows.size(1) >= 2);
  for (std::int64_t i = 0; i < n; i += batch) {
    cancel_point("nothing was written");
    visit(i, std::min(batch, n - i));
    events.progress("windows", std::min(n, i + batch), n);
  }
}

// Means of the rows [windows * per_window] of each window, appended; all must be finite.
void append_means(const at::Tensor& rows, std::int64_t count, std::int64_t first, double sign, const char* what, std::vector<double>& out) {
  const at::Tensor means = rows.to(at::kDouble).view({count, -1}).mean(1);
  for (std::int64_t i = 0; i < count; ++i) {
    const double value = sign * means[i].item<double>();
    if (!std::isfinite(value)) {
      throw Error(ErrorKind::Numeric, std::string("the ") + what + " of window " + std::to_string(first + i) + " must be finite, but is not",
                  "weights or activations overflow: `slmc inspect` shows the tensors");
    }
    out.push_back(value);
  }
}

}  // namespace

double mean_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double WindowScores::mean() const { return mean_of(nll); }

double WindowScores::standard_error() const {
  if (nll.size() < 2) return 0;
  const double m = mean(), n = static_cast<double>(nll.size());
  double squares = 0;
  for (const double x : nll) squares += (x - m) * (x - m);
  return std::sqrt(squares / (n - 1) / n);
}

WindowScores score_windows(const ModelRef& model, const at::Tensor& windows, stage::Events& events, const Pass& pass) {
  const at::NoGradGuard no_grad;
  WindowScores out;
  const Head head = head_of(model.arch, model.weights, pass);
  for_batches(windows, events, [&](std::int64_t first, std::int64_t count) {
    const at::Tensor batch = windows.narrow(0, first, count);
    const at::Tensor log_probs = target_log_probs(head, predicting_rows(model, batch, pass), predicted_ids(batch));
    append_means(log_probs, count, first, -1, "log-likelihood", out.nll);
  });
  return out;
}

WindowComparison compare_windows(Loaded& model, Loaded& reference, const at::Tensor& windows, stage::Events& events) {
  const at::NoGradGuard no_grad;
  WindowComparison out;
  const Head p = head_of(reference.arch, reference.weights), q = head_of(model.arch, model.weights);
  for_batches(windows, events, [&](std::int64_t first, std::int64_t count) {
    const at::Tensor batch = windows.narrow(0, first, count);
    const Comparison c = compare(p, predicting_rows(reference, batch, {}), q, predicting_rows(model, batch, {}), predicted_ids(batch));
    append_means(c.log_prob_p, count, first, -1, "reference's log-likelihood", out.reference.nll);
    append_means(c.log_prob_q, count, first, -1, "log-likelihood", out.model.nll);
    append_means(c.kl, count, first, 1, "KL", out.kl);
    append_means(c.same_top, count, first, 1, "agreement", out.top1);
  });
  return out;
}

namespace {

// Sequences [begin, end) of `order` as rows padded with 0 on the right: attention is causal, so padding changes nothing before it.
at::Tensor padded(const std::vector<data::ScoredSequence>& sequences, const std::vector<std::size_t>& order, std::size_t begin, std::size_t end) {
  const std::size_t longest = sequences[order[end - 1]].ids.size();
  at::Tensor rows = at::zeros({static_cast<std::int64_t>(end - begin), static_cast<std::int64_t>(longest)}, at::kLong);
  for (std::size_t r = begin; r < end; ++r) {
    const auto& ids = sequences[order[r]].ids;
    std::copy(ids.begin(), ids.end(), rows.mutable_data_ptr<std::int64_t>() + (r - begin) * longest);
  }
  return rows;
}

void score_batch(Loaded& model, const Head& head, const std::vector<data::ScoredSequence>& sequences, const std::vector<std::size_t>& order,
                 std::size_t begin, std::size_t end, std::vector<double>& out) {
  const at::Tensor rows = padded(sequences, order, begin, end);
  std::vector<std::int64_t> before, wanted;                                // flat positions that predict, and what
  for (std::size_t r = begin; r < end; ++r) {
    const data::ScoredSequence& s = sequences[order[r]];
    for (std::size_t t = static_cast<std::size_t>(s.start); t < s.ids.size(); ++t) {
      before.push_back(static_cast<std::int64_t>(r - begin) * rows.size(1) + static_cast<std::int64_t>(t) - 1);
      wanted.push_back(s.ids[t]);
    }
  }
  const at::Tensor h = hidden_states(model.arch, model.weights, rows.to(device_of(model)));
  const at::Tensor picked = h.view({-1, h.size(2)}).index_select(0, at::tensor(before).to(h.device()));
  const at::Tensor log_probs = target_log_probs(head, picked, at::tensor(wanted));
  std::int64_t at = 0;
  for (std::size_t r = begin; r < end; ++r) {
    const data::ScoredSequence& s = sequences[order[r]];
    const std::int64_t count = static_cast<std::int64_t>(s.ids.size()) - s.start;
    const double sum = log_probs.narrow(0, at, count).sum().item<double>();
    if (!std::isfinite(sum)) throw Error(ErrorKind::Numeric, "the log-likelihood of a text must be finite, but is not", "the weights or activations overflow");
    out[order[r]] = sum;
    at += count;
  }
}

}  // namespace

std::vector<double> log_likelihoods(Loaded& model, const std::vector<data::ScoredSequence>& sequences, stage::Events& events) {
  const at::NoGradGuard no_grad;
  for (const data::ScoredSequence& s : sequences) SLMC_CHECK(s.start >= 1 && s.start <= static_cast<std::int64_t>(s.ids.size()));
  std::vector<std::size_t> order(sequences.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return sequences[a].ids.size() < sequences[b].ids.size(); });
  std::vector<double> out(sequences.size(), 0.0);
  const Head head = head_of(model.arch, model.weights);
  for (std::size_t begin = 0; begin < order.size();) {
    cancel_point("nothing was written");
    std::size_t end = begin + 1;
    while (end < order.size() && (end + 1 - begin) * sequences[order[end]].ids.size() <= kBatchTokens) ++end;
    score_batch(model, head, sequences, order, begin, end, out);
    begin = end;
    events.progress("sequences", static_cast<std::int64_t>(begin), static_cast<std::int64_t>(order.size()));
  }
  return out;
}

}  // namespace slmc::engine
