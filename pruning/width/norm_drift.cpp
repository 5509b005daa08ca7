#include "pruning/width/norm_drift.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>

#include "engine/tensors.h"
#include "pruning/stored.h"
#include "pruning/width/measure.h"

namespace slmc::pruning {

std::map<std::string, io::TensorData> corrected_norms(const ir::Model& model, const ir::Plan& plan, const engine::Statistics& statistics) {
  std::map<std::string, io::TensorData> out;
  if (model.decoder().norm != ir::Norm::Rms) return out;
  const std::vector<std::int64_t>& kept = plan.take.at("hidden");
  at::Tensor k = at::empty({static_cast<std::int64_t>(kept.size())}, at::kLong);
  std::copy(kept.begin(), kept.end(), k.mutable_data_ptr<std::int64_t>());
  for (const ir::TensorSpec& spec : model.tensors()) {
    if (!is_stream_norm(spec.name)) continue;
    const at::Tensor energy = statistics.at(stream_site(model, spec.name), engine::Statistic::MeanSquare);
    const double all = energy.mean().item<double>(), stays = energy.index_select(0, k).mean().item<double>();
    const double c = all > 0 ? std::sqrt(stays / all) : 1;
    const at::Tensor gain = engine::to_tensor(model.read(spec.name), at::kFloat).index_select(0, k);
    out[spec.name] = stored_data(gain.to(at::kDouble).mul(c).to(at::kFloat), spec);
  }
  return out;
}

}  // namespace slmc::pruning
