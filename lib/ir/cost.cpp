#include "ir/cost.h"

#include <algorithm>

#include "ir/state.h"

namespace slmc::ir {
namespace {

std::int64_t count_of(const TensorSpec& spec) {
  std::int64_t n = 1;
  for (const std::int64_t s : spec.shape) n *= s;
  return n;
}

}  // namespace

Cost cost(const Model& model, std::int64_t context) {
  Cost c;
  for (const TensorSpec& spec : model.tensors()) {
    if (spec.derived) continue;
    const std::int64_t n = count_of(spec);
    c.parameters += n;
    const bool outside = spec.name == "embed" || spec.name == "pos" || spec.name == "head";
    if (!outside) c.parameters_body += n;
    if (spec.shape.size() == 2 && (!outside || spec.name == "head"))
      c.flops_per_token += 2.0 * static_cast<double>(n);
    if (spec.name == "embed" && model.decoder().tied_head) c.flops_per_token += 2.0 * static_cast<double>(n);
  }
  const Decoder& d = model.decoder();
  for (std::size_t b = 0; b < model.sizes().blocks.size(); ++b) {
    const BlockSizes& s = model.sizes().blocks[b];
    const bool windowed = d.window && b < d.window_blocks.size() && d.window_blocks[b];
    const std::int64_t seen = windowed ? std::min(context, *d.window) : context;
    c.flops_per_token +=
        2.0 * static_cast<double>(s.heads() * (s.head_dim() + s.vd)) * static_cast<double>(seen);
    c.kv_bytes_per_token += 2 * s.kv * (s.head_dim() + s.vd);
  }
  return c;
}

}  // namespace slmc::ir
