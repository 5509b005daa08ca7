#pragma once
// Token windows of a data source as batches of a task.
#include <memory>

#include "data/mixture.h"
#include "data/source.h"
#include "engine/train/task.h"

namespace slmc::engine {

class WindowBatches : public Batches {
 public:
  // With `documents`, attention and predictions stay inside a document. `mixture`: whose turn it is, may change while it is used; null = the
  // source's own.
  WindowBatches(data::WindowSource source, bool documents, at::Device device, std::shared_ptr<const data::Mixture> mixture = nullptr);
  Batch at(std::int64_t first, std::int64_t windows) const override;

 private:
  data::WindowSource source_;
  bool documents_;
  at::Device device_;
  std::shared_ptr<const data::Mixture> mixture_;
};

}  // namespace slmc::engine
