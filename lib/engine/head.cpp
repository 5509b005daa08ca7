#include "engine/head.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/log.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <vector>

#include "engine/block.h"
#include "engine/row_sums.h"

namespace slmc::engine {
namespace {

// One tile of fp32 logits is 32 MiB. Narrow tiles of many rows multiply faster than wide ones of few, by a seventh.
constexpr std::int64_t kRows = 2048, kColumns = 4096;

// Logits of a tile, written into the front of `room` [kRows * kColumns] in the head's dtype, contiguous.
at::Tensor tile(const Head& head, const at::Tensor& rows, std::int64_t first, std::int64_t columns, at::Tensor& room) {
  at::Tensor z = room.narrow(0, 0, rows.size(0) * columns).view({rows.size(0), columns});
  at::mm_out(z, rows, head.weight.narrow(0, first, columns).t());
  if (head.log_gate.defined()) z.add_(head.log_gate.narrow(0, first, columns));
  return z;
}

at::Tensor room_for(const Head& head, const at::Tensor& normed) {
  const std::int64_t rows = std::min(kRows, normed.size(0)), columns = std::min(kColumns, head.vocab());
  return at::empty({rows * columns}, normed.options());
}

// Calls visit(first_row, rows, first_column, columns) for all tiles, columns inside.
void for_tiles(std::int64_t rows, std::int64_t columns,
               const std::function<void(std::int64_t, std::int64_t, std::int64_t, std::int64_t)>& visit) {
  for (std::int64_t r = 0; r < rows; r += kRows) {
    for (std::int64_t c = 0; c < columns; c += kColumns) visit(r, std::min(kRows, rows - r), c, std::min(kColumns, columns - c));
  }
}

// fp32 on the CPU, where the row sums work. (fp64 is for tests and small models: its rounding to fp32 happens after the product.)
at::Tensor as_floats(const at::Tensor& z) { return z.to(at::kCPU, at::kFloat).contiguous(); }

void for_rows(std::int64_t rows, const std::function<void(std::int64_t)>& body) {
  at::parallel_for(0, rows, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) body(i);
  });
}

// Notes each row's target logit when its column passes by.
void pick_target(const at::Tensor& z, std::int64_t row, std::int64_t first, std::int64_t target, double& out) {
  const std::int64_t column = target - first;
  if (column >= 0 && column < z.size(1)) out = static_cast<double>(z.const_data_ptr<float>()[row * z.size(1) + column]);
}

struct Scored {
  std::vector<RowSum> rows;
  std::vector<double> target;              // logits of the targets
};

Scored score(const Head& head, const at::Tensor& normed, const at::Tensor& targets) {
  const at::NoGradGuard no_grad;
  const std::int64_t n = normed.size(0);
  Scored s{std::vector<RowSum>(static_cast<std::size_t>(n)), std::vector<double>(static_cast<std::size_t>(n))};
  const at::Tensor wanted = targets.to(at::kCPU, at::kLong).contiguous();
  at::Tensor room = room_for(head, normed);
  for_tiles(n, head.vocab(), [&](std::int64_t r, std::int64_t rows, std::int64_t c, std::int64_t columns) {
    const at::Tensor z = as_floats(tile(head, normed.narrow(0, r, rows), c, columns, room));
    for_rows(rows, [&](std::int64_t i) {
      const auto at = static_cast<std::size_t>(r + i);
      add_columns(s.rows[at], z.const_data_ptr<float>() + i * columns, columns, c);
      pick_target(z, i, c, wanted.const_data_ptr<std::int64_t>()[r + i], s.target[at]);
    });
  });
  return s;
}

}  // namespace

Head head_of(const Arch& arch, Weights& weights, const Pass& pass) {
  Head head;
  head.weight = head_weight(arch, weights);
  const at::Tensor gate = gate_of(pass.gates, "vocab", head.weight);
  if (gate.defined()) head.log_gate = gate.log();
  return head;
}

at::Tensor target_log_probs(const Head& head, const at::Tensor& normed, const at::Tensor& targets) {
  SLMC_CHECK(targets.numel() == normed.size(0));
  const Scored s = score(head, normed, targets);
  at::Tensor out = at::empty({normed.size(0)}, at::kDouble);
  for (std::size_t i = 0; i < s.rows.size(); ++i) out.mutable_data_ptr<double>()[i] = s.target[i] - s.rows[i].log_sum_exp();
  return out;
}

at::Tensor likeliest(const Head& head, const at::Tensor& normed) {
  const Scored s = score(head, normed, at::full({normed.size(0)}, -1, at::kLong));
  at::Tensor out = at::empty({normed.size(0)}, at::kLong);
  for (std::size_t i = 0; i < s.rows.size(); ++i) out.mutable_data_ptr<std::int64_t>()[i] = s.rows[i].at;
  return out;
}

Comparison compare(const Head& p, const at::Tensor& normed_p, const Head& q, const at::Tensor& normed_q, const at::Tensor& targets) {
  if (p.vocab() != q.vocab()) {
    throw Error(ErrorKind::Usage, "the vocabulary of both models must be the same to compare their predictions, but is " +
                                      std::to_string(p.vocab()) + " and " + std::to_string(q.vocab()) + " tokens");
  }
  const std::int64_t n = normed_p.size(0);
  SLMC_CHECK(normed_q.size(0) == n && targets.numel() == n);
  const at::NoGradGuard no_grad;
  std::vector<RowDivergence> rows(static_cast<std::size_t>(n));
  std::vector<double> target_p(rows.size()), target_q(rows.size());
  const at::Tensor wanted = targets.to(at::kCPU, at::kLong).contiguous();
  at::Tensor room_p = room_for(p, normed_p), room_q = room_for(q, normed_q);
  for_tiles(n, p.vocab(), [&](std::int64_t r, std::int64_t count, std::int64_t c, std::int64_t columns) {
    const at::Tensor z_p = as_floats(tile(p, normed_p.narrow(0, r, count), c, columns, room_p));
    const at::Tensor z_q = as_floats(tile(q, normed_q.narrow(0, r, count), c, columns, room_q));
    for_rows(count, [&](std::int64_t i) {
      const auto at = static_cast<std::size_t>(r + i);
      add_columns(rows[at], z_p.const_data_ptr<float>() + i * columns, z_q.const_data_ptr<float>() + i * columns, columns, c);
      const std::int64_t target = wanted.const_data_ptr<std::int64_t>()[r + i];
      pick_target(z_p, i, c, target, target_p[at]);
      pick_target(z_q, i, c, target, target_q[at]);
    });
  });
  Comparison out{at::empty({n}, at::kDouble), at::empty({n}, at::kBool), at::empty({n}, at::kDouble), at::empty({n}, at::kDouble)};
  for (std::int64_t i = 0; i < n; ++i) {
    const auto at = static_cast<std::size_t>(i);
    out.kl.mutable_data_ptr<double>()[i] = rows[at].kl();
    out.same_top.mutable_data_ptr<bool>()[i] = rows[at].p.at == rows[at].q.at;
    out.log_prob_p.mutable_data_ptr<double>()[i] = target_p[at] - rows[at].p.log_sum_exp();
    out.log_prob_q.mutable_data_ptr<double>()[i] = target_q[at] - rows[at].q.log_sum_exp();
  }
  return out;
}

}  // namespace slmc::engine
