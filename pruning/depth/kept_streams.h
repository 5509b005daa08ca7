#pragma once
// The residual stream of some windows on its way through a model, kept at the input of every so many blocks, so that what changes a later block
// need not run the earlier ones again. Streams are never written in place: two of these may share those of equal fronts.
#include <ATen/core/Tensor.h>

#include <vector>

namespace slmc::pruning {

class KeptStreams {
 public:
  struct At {
    at::Tensor x;                          // [count, seq, hidden], a copy
    std::int64_t block = 0;                // at whose input it is
  };

  KeptStreams() = default;
  // start [n, seq, hidden], the input of block 0 of `blocks`; the spacing follows from their size.
  KeptStreams(at::Tensor start, std::int64_t blocks);
  // Windows first .. first + count - 1 at the last kept place that is not behind the input of `block`.
  At before(std::int64_t block, std::int64_t first, std::int64_t count) const;
  At before(std::int64_t block) const { return before(block, 0, start().size(0)); }
  // Forgets what is kept behind the input of `block`.
  void forget_behind(std::int64_t block);
  // x at the input of `block`; kept where the spacing asks for it. Blocks come in order.
  void pass(std::int64_t block, const at::Tensor& x);
  const at::Tensor& start() const { return kept_.front(); }

 private:
  std::int64_t spacing_ = 1;
  std::vector<at::Tensor> kept_;           // at the input of block i * spacing
};

}  // namespace slmc::pruning
