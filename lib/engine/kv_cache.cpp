#include <ATen/ops/empty.h>

#include <algorithm>

#include "core/error.h"
#include "engine/decoder.h"

namespace slmc::engine {
namespace {

constexpr std::int64_t kFirstRoom = 256;      // tokens

// `to` [B, kv, room, d] with the first `used` tokens of `from`.
at::Tensor grown(const at::Tensor& from, std::int64_t used, std::int64_t room) {
  at::Tensor to = at::empty({from.size(0), from.size(1), room, from.size(3)}, from.options());
  to.narrow(2, 0, used).copy_(from.narrow(2, 0, used));
  return to;
}

}  // namespace

KvCache::KvCache(const Arch& arch, std::int64_t batch, std::int64_t capacity, at::ScalarType dtype, at::Device device)
    : capacity_(capacity) {
  const auto options = at::TensorOptions(dtype).device(device);
  const std::int64_t room = std::min(kFirstRoom, capacity);
  for (const ir::BlockSizes& s : arch.sizes.blocks) {
    k_.push_back(at::empty({batch, s.kv, room, s.head_dim()}, options));
    v_.push_back(at::empty({batch, s.kv, room, s.vd}, options));
  }
}

std::pair<at::Tensor, at::Tensor> KvCache::append(std::int64_t block, const at::Tensor& k, const at::Tensor& v) {
  at::Tensor &all_k = k_[static_cast<std::size_t>(block)], &all_v = v_[static_cast<std::size_t>(block)];
  const std::int64_t used = length_, after = used + k.size(2);
  if (after > capacity_) {
    throw Error(ErrorKind::Usage, "the text must be at most " + std::to_string(capacity_) + " tokens, but is " + std::to_string(after));
  }
  if (after > all_k.size(2)) {
    const std::int64_t room = std::min(capacity_, std::max(after, 2 * all_k.size(2)));
    all_k = grown(all_k, used, room);
    all_v = grown(all_v, used, room);
  }
  all_k.narrow(2, used, k.size(2)).copy_(k);
  all_v.narrow(2, used, v.size(2)).copy_(v);
  return {all_k.narrow(2, 0, after), all_v.narrow(2, 0, after)};
}

}  // namespace slmc::engine
