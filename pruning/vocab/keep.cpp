#include "pruning/vocab/keep.h"

#include <algorithm>
#include <numeric>

#include "core/cancel.h"
#include "data/documents.h"

namespace slmc::pruning {

std::vector<double> token_counts(const text::Tokenizer& tokenizer, const data::DataSpec& spec, std::int64_t vocab) {
  std::vector<double> counts(static_cast<std::size_t>(vocab));
  for (const data::DomainSpec& domain : spec.domains) {
    const data::Documents documents(domain);
    for (std::int64_t i = 0; i < documents.count(); ++i) {
      cancel_point("nothing was written");
      for (const std::int32_t id : tokenizer.encode(documents.text(i))) ++counts[static_cast<std::size_t>(id)];
    }
  }
  return counts;
}

std::vector<double> expected_by_rank(const std::vector<double>& counts) {
  struct Pool {
    double sum = 0, size = 0;
  };
  std::vector<Pool> pools;
  for (const double count : counts) {
    pools.push_back({count, 1});
    while (pools.size() > 1 && pools[pools.size() - 2].sum * pools.back().size < pools.back().sum * pools[pools.size() - 2].size) {
      const Pool last = pools.back();
      pools.pop_back();
      pools.back() = {pools.back().sum + last.sum, pools.back().size + last.size};
    }
  }
  std::vector<double> out;
  for (const Pool& pool : pools) out.insert(out.end(), static_cast<std::size_t>(pool.size), pool.sum / pool.size);
  return out;
}

std::vector<std::int64_t> by_worth(const std::vector<double>& worth) {
  std::vector<std::int64_t> order(worth.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return worth[static_cast<std::size_t>(a)] > worth[static_cast<std::size_t>(b)]; });
  return order;
}

std::vector<std::int64_t> by_count(const std::vector<double>& counts) {
  std::vector<double> worth = expected_by_rank(counts);
  for (std::size_t i = 0; i < worth.size(); ++i) worth[i] += counts[i];
  return by_worth(worth);
}

}  // namespace slmc::pruning
