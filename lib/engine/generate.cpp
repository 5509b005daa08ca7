#include "engine/generate.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/rng.h"

namespace slmc::engine {
namespace {

// The prompt is run in pieces of this many tokens, so that memory doesn't grow with its length.
constexpr std::int64_t kPiece = 512;

std::vector<std::size_t> likeliest_first(const float* z, std::size_t n, std::size_t keep) {
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto before = [z](std::size_t a, std::size_t b) { return z[a] > z[b] || (z[a] == z[b] && a < b); };
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(keep), order.end(), before);
  order.resize(keep);
  return order;
}

}  // namespace

std::int32_t choose(const at::Tensor& logits, const Sampling& sampling, std::uint64_t position) {
  SLMC_CHECK(logits.dim() == 1 && logits.numel() > 0 && logits.scalar_type() == at::kFloat && logits.is_contiguous());
  const float* z = logits.const_data_ptr<float>();
  const auto n = static_cast<std::size_t>(logits.numel());
  if (sampling.temperature <= 0) return static_cast<std::int32_t>(std::max_element(z, z + n) - z);
  const std::size_t keep = sampling.top_k > 0 ? std::min(n, static_cast<std::size_t>(sampling.top_k)) : n;
  const std::vector<std::size_t> order = likeliest_first(z, n, keep);
  std::vector<double> weight;                                       // of each candidate, not normalised
  double all = 0;
  for (const std::size_t i : order) {
    weight.push_back(std::exp((static_cast<double>(z[i]) - static_cast<double>(z[order[0]])) / sampling.temperature));
    all += weight.back();
  }
  double held = 0;
  std::size_t candidates = 0;
  while (candidates < order.size() && (candidates == 0 || held < sampling.top_p * all)) held += weight[candidates++];
  double left = Rng(sampling.seed).uniform(position) * held;
  for (std::size_t i = 0; i + 1 < candidates; ++i) {
    left -= weight[i];
    if (left < 0) return static_cast<std::int32_t>(order[i]);
  }
  return static_cast<std::int32_t>(order[candidates - 1]);
}

Session::Session(Loaded& model, std::int64_t capacity, at::ScalarType dtype, at::Device device)
    : model_(model), cache_(model.arch, 1, capacity, dtype, device), device_(device) {}

void Session::feed(const std::vector<std::int32_t>& ids) {
  SLMC_CHECK(!ids.empty());
  const at::NoGradGuard no_grad;
  const std::vector<std::int64_t> wide(ids.begin(), ids.end());
  Pass pass;
  pass.cache = &cache_;
  at::Tensor h;
  for (std::size_t i = 0; i < wide.size(); i += kPiece) {
    const auto count = std::min<std::size_t>(kPiece, wide.size() - i);
    const at::Tensor piece = at::tensor(at::ArrayRef<std::int64_t>(wide.data() + i, count)).unsqueeze(0).to(device_);
    h = hidden_states(model_.arch, model_.weights, piece, pass);
    cache_.advance(static_cast<std::int64_t>(count));
  }
  const at::Tensor last = h.select(1, h.size(1) - 1);               // [1, hidden]
  next_ = logits(model_.arch, model_.weights, last).view(-1).to(at::kCPU, at::kFloat).contiguous();
  if (!next_.isfinite().all().item<bool>()) throw Error(ErrorKind::Numeric, "the logits must be finite, but are not");
}

Session::Stop Session::generate(std::int64_t most, const Sampling& sampling, const std::set<std::int32_t>& ends,
                                const std::function<void(std::int32_t)>& emit, const std::function<bool()>& asked) {
  SLMC_CHECK(next_.defined());
  for (std::int64_t i = 0; i < most; ++i) {
    if (asked()) return Stop::Asked;
    const std::int32_t id = choose(next_, sampling, static_cast<std::uint64_t>(length()));
    if (ends.contains(id)) return Stop::Eos;
    emit(id);
    feed({id});
  }
  return Stop::Length;
}

}  // namespace slmc::engine
