#include "pruning/width/random.h"

#include <ATen/ops/empty.h>

namespace slmc::pruning {
namespace {

at::Tensor draws(const Rng& rng, std::int64_t count) {
  at::Tensor out = at::empty({count}, at::kDouble);
  for (std::int64_t i = 0; i < count; ++i) out.mutable_data_ptr<double>()[i] = rng.uniform(static_cast<std::uint64_t>(i));
  return out;
}

}  // namespace

at::Tensor random_channels(const FfnPart& part) { return draws(part.rng, part.down.size(1)); }

at::Tensor random_groups(const KvPart& part) { return draws(part.rng, part.groups); }

at::Tensor random_heads(const KvPart& part) { return draws(part.rng, part.groups * part.heads).view({part.groups, part.heads}); }

at::Tensor random_hidden(const HiddenPart& part) { return draws(part.rng, part.hidden); }

}  // namespace slmc::pruning
