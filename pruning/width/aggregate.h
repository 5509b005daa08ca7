#pragma once
// From scores per row or column of each tensor to scores of structures: channels, groups, heads. First the tensors that a structure runs
// through become one [LLM-Pruner, Ma et al. 2023, arXiv:2305.11627, sec. 3.2], entry by entry, then a group's or head's entries are summed.
// Differs from the published code: query heads fold into the group that they read, consecutive ones; it adds heads j, j + kv, j + 2 kv ...
#include <string_view>

#include "pruning/width/criterion.h"

namespace slmc::pruning {

Aggregate aggregate_from(std::string_view name);        // "sum" "prod" "max" "mean" "first" "last"; SLMC_CHECK on anything else

// scores: [n] fp64 each.
at::Tensor aggregated(const std::vector<at::Tensor>& scores, Aggregate how);

// q [kv * heads * d], k [kv * d], v [kv * vd], o [kv * heads * vd] fp64, in this order. Where d and vd differ, a structure's entries are
// summed before its tensors become one.
at::Tensor aggregated_groups(const std::vector<at::Tensor>& attention, const KvPart& part);      // [kv]
at::Tensor aggregated_heads(const std::vector<at::Tensor>& attention, const KvPart& part);       // [kv, heads], from q and o

}  // namespace slmc::pruning
