// repair_in_sequence of repair.h.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>

#include <algorithm>
#include <optional>

#include "core/cancel.h"
#include "core/error.h"
#include "engine/moments.h"
#include "engine/stream.h"
#include "pruning/width/repair.h"

namespace slmc::pruning {

namespace {

constexpr std::int64_t kRows = 8192;               // rows whose targets are in memory together

// Of rows x, missing and target with weights g² [rows, 1].
class Sums {
 public:
  using Of = engine::ChannelSum::Of;
  Sums(std::int64_t out, std::int64_t n, bool means, at::Device device)
      : a_(n, device), r_(out, n, device), size_(Of::Square, out, device), target_(Of::Square, out, device), weight_(Of::Square, 1, device),
        means_(means), x_(Of::Value, n, device), missing_(Of::Value, out, device) {}
  void add(const at::Tensor& x, const at::Tensor& missing, const at::Tensor& target, const at::Tensor& g) {
    const at::Tensor gx = x * g, gm = missing * g;
    a_.add(gx), r_.add(gm, gx), size_.add(gm), target_.add(target * g), weight_.add(g);
    if (means_) x_.add(gx * g), missing_.add(gm * g);
  }
  Missing mean() const {
    const double weight = weight_.mean().item<double>(), scale = weight > 0 ? 1 / weight : 1;
    Missing out{.a = a_.mean() * scale, .r = r_.mean() * scale, .size = size_.mean().sum().item<double>() * scale,
                .target = target_.mean().sum().item<double>() * scale};
    if (means_) out.mean_x = x_.mean() * scale, out.mean_r = missing_.mean() * scale;
    return out;
  }

 private:
  engine::GramSum a_;
  engine::CrossSum r_;
  engine::ChannelSum size_, target_, weight_;
  bool means_;
  engine::ChannelSum x_, missing_;
};

struct Walker {                                    // one model on its way
  const ir::Model& model;
  engine::Arch arch;
  at::Tensor x;                                    // [n, seq, hidden]
  Walker(const ir::Model& m, const at::Tensor& windows, at::Device device) : model(m), arch(engine::arch_of(m)) {
    engine::PlainWeights outside = engine::load_block(m, -1, at::kFloat, device, engine::Storage::Mapped);
    x = engine::embed_windows(arch, outside, windows, device);
  }
  engine::PlainWeights block(std::int64_t i, at::Device device) const { return engine::load_block(model, i, at::kFloat, device, engine::Storage::Mapped); }
};

class Sequence {
 public:
  Sequence(const ir::Model& model, const ir::Plan& plan, const at::Tensor& windows, at::Device device)
      : plan_(plan), targets_(model, plan), cut_(ir::apply(plan, model)), whole_(model, windows, device), own_(cut_, windows, device),
        device_(device), fit_rows_(split(windows).fit.numel()), one_window_(windows.size(0) < 2) {
    const auto hidden = plan.take.find("hidden");
    if (hidden == plan.take.end()) return;
    at::Tensor kept = at::empty({static_cast<std::int64_t>(hidden->second.size())}, at::kLong);
    std::copy(hidden->second.begin(), hidden->second.end(), kept.mutable_data_ptr<std::int64_t>());
    hidden_ = kept.to(device);
  }

  Repaired run(stage::Events& events) {
    bool behind = false;                           // something is cut here or in front of here
    for (std::int64_t i = 0; i < cut_.blocks(); ++i) {
      cancel_point("nothing was written");
      engine::PlainWeights dense = whole_.block(i, device_), weights = own_.block(i, device_);
      const std::vector<std::string> changed = changed_maps(whole_.model, plan_, i);
      behind = behind || !changed.empty();
      engine::BlockSteps there(whole_.arch, dense, i, whole_.x), here(own_.arch, weights, i, own_.x);
      for (; !here.done(); there.next(), here.next()) {
        SLMC_CHECK(there.linears() == here.linears());
        for (const std::string& map : here.linears()) {
          const bool narrowed = std::find(changed.begin(), changed.end(), map) != changed.end();
          if (narrowed || (behind && onto_stream(map))) repair(map, there.inputs(), here.inputs(), weights);
        }
      }
      events.progress("blocks repaired", i + 1, cut_.blocks());
    }
    return std::move(out_);
  }

 private:
  bool onto_stream(const std::string& map) const { return cut_.find(map)->dims[0].carries("hidden"); }

  // The whole model's stream before the map, rows [first, first + count), kept channels.
  at::Tensor stream(std::int64_t first, std::int64_t count) const {
    const at::Tensor there = whole_.x.flatten(0, 1).narrow(0, first, count);
    return hidden_.defined() ? there.index_select(1, hidden_) : there;
  }

  void repair(const std::string& map, const at::Tensor& dense_inputs, const at::Tensor& inputs, engine::PlainWeights& weights) {
    const ir::TensorSpec &spec = *cut_.find(map), *bias = cut_.find(map + ".bias");
    const bool stream_too = onto_stream(map);
    Affine target = targets_.of(map);
    target.weight = target.weight.to(device_);
    if (bias) target.bias = target.bias.to(device_);
    const auto sums = [&](std::int64_t from, std::int64_t to) {
      const at::NoGradGuard no_grad;
      Sums out(spec.shape[0], inputs.size(1), bias != nullptr, device_);
      for (std::int64_t first = from; first < to; first += kRows) {
        const std::int64_t count = std::min(kRows, to - first);
        const at::Tensor x = inputs.narrow(0, first, count);
        const at::Tensor wanted = at::linear(dense_inputs.narrow(0, first, count), target.weight,
                                             bias ? std::optional<at::Tensor>(target.bias) : std::nullopt);
        at::Tensor missing = wanted - weights.linear(map, x), g = at::ones({count, 1}, x.options());
        if (stream_too) {
          const at::Tensor there = stream(first, count);
          missing = missing + there - own_.x.flatten(0, 1).narrow(0, first, count);
          g = engine::reciprocal_lengths(there + wanted);
        }
        out.add(x, missing, wanted, g);
      }
      return out.mean();
    };
    const Missing fit = sums(0, fit_rows_), held = one_window_ ? fit : sums(fit_rows_, inputs.size(0));
    const Affine from{weights.tensor(map), bias ? weights.tensor(map + ".bias") : at::Tensor()};
    const Refitted refitted = refit(from, fit, held, spec, bias);
    keep(out_, refitted, cut_);
    if (refitted.now.weight.defined()) weights.all()[map] = refitted.now.weight.to(device_);
    if (refitted.now.bias.defined()) weights.all()[map + ".bias"] = refitted.now.bias.to(device_);
  }

  const ir::Plan& plan_;
  Targets targets_;
  ir::Model cut_;
  Walker whole_, own_;
  at::Device device_;
  at::Tensor hidden_;                              // the kept channels; undefined: all
  std::int64_t fit_rows_;
  bool one_window_;
  Repaired out_;
};

}  // namespace

Repaired repair_in_sequence(const ir::Model& model, const ir::Plan& plan, const at::Tensor& windows, at::Device device, stage::Events& events) {
  return Sequence(model, plan, windows, device).run(events);
}

}  // namespace slmc::pruning
