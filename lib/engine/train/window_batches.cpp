#include "engine/train/window_batches.h"

#include <ATen/ops/empty.h>

#include <algorithm>

namespace slmc::engine {

WindowBatches::WindowBatches(data::WindowSource source, bool documents, at::Device device, std::shared_ptr<const data::Mixture> mixture)
    : source_(std::move(source)), documents_(documents), device_(device), mixture_(std::move(mixture)) {}

Batch WindowBatches::at(std::int64_t first, std::int64_t windows) const {
  const std::int64_t seq = source_.spec().seq;
  Batch batch{at::empty({windows, seq}, at::kLong), {}};
  if (documents_) batch.document = at::empty({windows, seq}, at::kLong);
  for (std::int64_t i = 0; i < windows; ++i) {
    const data::Window window = mixture_ ? source_.at(first + i, *mixture_) : source_.at(first + i);
    std::copy(window.ids.begin(), window.ids.end(), batch.ids.data_ptr<std::int64_t>() + i * seq);
    if (documents_) std::copy(window.document.begin(), window.document.end(), batch.document.data_ptr<std::int64_t>() + i * seq);
  }
  batch.ids = batch.ids.to(device_);
  if (documents_) batch.document = batch.document.to(device_);
  return batch;
}

}  // namespace slmc::engine
