#pragma once
// Token windows of a data source as batches of a task.
#include "data/source.h"
#include "engine/train/task.h"

namespace slmc::engine {

class WindowBatches : public Batches {
 public:
  // With `documents`, attention and predictions stay inside a document.
  WindowBatches(data::WindowSource source, bool documents, at::Device device);
  Batch at(std::int64_t first, std::int64_t windows) const override;

 private:
  data::WindowSource source_;
  bool documents_;
  at::Device device_;
};

}  // namespace slmc::engine
