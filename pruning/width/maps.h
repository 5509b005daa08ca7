#pragma once
// The linear maps of a block that a plan changes: which inputs they keep, and what they should still give.
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "ir/plan.h"

namespace slmc::pruning {

// Where a map's inputs are measured; maps that read the same value share a site: "block.3.attn.v" -> "block.3.attn.q.in".
std::string input_site(const std::string& map);

// Of `model`'s block `block` under `plan` (no block is removed): the maps that lose inputs, or whose inputs change because
// groups before them were merged; all maps when hidden width goes.
std::vector<std::string> changed_maps(const ir::Model& model, const ir::Plan& plan, std::int64_t block);

// The inputs of a map that the plan keeps, ascending: of "kv q vd", ffn or hidden.
std::vector<std::int64_t> kept_inputs(const ir::Model& model, const ir::Plan& plan, const std::string& map);

// Those of 0 .. n-1 that `kept` leaves out, ascending.
std::vector<std::int64_t> others(const std::vector<std::int64_t>& kept, std::int64_t n);

// y = W x + b. bias undefined: none.
struct Affine {
  at::Tensor weight, bias;                   // [out, in], [out] fp32
};

// The whole model's maps with only the outputs that the plan keeps: the inputs of the base, the outputs of the result.
class Targets {
 public:
  Targets(const ir::Model& model, const ir::Plan& plan);
  Affine of(const std::string& map) const;

 private:
  ir::Model hidden_, others_;                // only hidden cut: for maps onto the stream; all but hidden: for maps from it
};

}  // namespace slmc::pruning
