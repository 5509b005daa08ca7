#include "pruning/depth/kept_streams.h"

#include <algorithm>

namespace slmc::pruning {
namespace {

constexpr std::int64_t kMostBytes = std::int64_t{448} << 20;

}  // namespace

KeptStreams::KeptStreams(at::Tensor start, std::int64_t blocks) {
  const std::int64_t bytes = start.numel() * static_cast<std::int64_t>(sizeof(float));
  spacing_ = std::max<std::int64_t>(1, (bytes * blocks + kMostBytes - 1) / kMostBytes);
  kept_.push_back(std::move(start));
}

KeptStreams::At KeptStreams::before(std::int64_t block, std::int64_t first, std::int64_t count) const {
  const std::int64_t i = std::min(block / spacing_, static_cast<std::int64_t>(kept_.size()) - 1);
  return {kept_[static_cast<std::size_t>(i)].narrow(0, first, count).clone(), i * spacing_};
}

void KeptStreams::forget_behind(std::int64_t block) {
  kept_.resize(std::min(kept_.size(), static_cast<std::size_t>(block / spacing_ + 1)));
}

void KeptStreams::pass(std::int64_t block, const at::Tensor& x) {
  if (block % spacing_ == 0 && block / spacing_ == static_cast<std::int64_t>(kept_.size())) kept_.push_back(x.clone());
}

}  // namespace slmc::pruning
