#include "pruning/width/measure.h"

#include <algorithm>

namespace slmc::pruning {
namespace {

using engine::Request;
using engine::Statistic;

constexpr std::int64_t kHeldOutShare = 8;            // one window of eight judges

struct Sites {
  std::vector<std::string> criterion;                // inputs of attn.o and ffn.down whose structures are scored
  std::vector<std::string> refit;                    // inputs of maps that lose some
  std::vector<std::string> norms;                    // outputs of the blocks' norms
};

Sites sites_of(const ir::Model& model, const Widths& widths) {
  Sites out;
  const bool hidden = narrows(model.sizes().hidden, widths.hidden);
  for (std::int64_t i = 0; i < model.blocks(); ++i) {
    const ir::BlockSizes& sizes = model.sizes().blocks[static_cast<std::size_t>(i)];
    const std::string block = "block." + std::to_string(i);
    if (narrows_attention(sizes, widths)) out.criterion.push_back(block + ".attn.o.in");
    if (narrows(sizes.ffn, widths.ffn_in(i))) out.criterion.push_back(block + ".ffn.down.in");
    if (hidden && sizes.heads() > 0) out.norms.push_back(block + ".attn.q.in");
    if (hidden && sizes.ffn > 0) out.norms.push_back(block + ".ffn.up.in");
  }
  out.refit = out.criterion;
  out.refit.insert(out.refit.end(), out.norms.begin(), out.norms.end());
  return out;
}

std::vector<Statistic> of_inputs(const Wants& wants, bool windows) {
  std::vector<Statistic> out;
  if (windows && wants.mean_square) out.push_back(Statistic::WindowSquare);
  if (windows && wants.mean) out.push_back(Statistic::WindowMean);
  if (wants.mean_square) out.push_back(Statistic::MeanSquare);
  if (wants.mean) out.push_back(Statistic::Mean);
  if (wants.window_mean_abs) out.push_back(Statistic::WindowAbs);
  if (wants.gram) out.push_back(Statistic::Gram);
  return out;
}

}  // namespace

SplitWindows split(const at::Tensor& windows) {
  const std::int64_t n = windows.size(0);
  if (n < 2) return {windows, windows};
  const std::int64_t held = std::max<std::int64_t>(1, n / kHeldOutShare);
  return {windows.narrow(0, 0, n - held), windows.narrow(0, n - held, held)};
}

Measured measure(const ir::Model& model, const at::Tensor& windows, const Widths& widths, const Asked& asked, at::Device device,
                 const std::filesystem::path& cache, stage::Events& events) {
  engine::CollectSettings fit{.device = device}, held{.device = device};
  const Sites sites = sites_of(model, widths);
  for (const std::string& site : sites.criterion) {
    for (const Statistic what : of_inputs(asked.wants, asked.windows)) fit.requests.insert({site, what});
  }
  for (const std::string& site : sites.norms) {
    if (asked.wants.window_mean_abs) fit.requests.insert({site, Statistic::WindowAbs});
  }
  for (const std::string& site : sites.refit) {
    for (engine::CollectSettings* one : {&fit, &held}) {
      if (asked.grams) one->requests.insert({site, Statistic::Gram});
      if (asked.means) one->requests.insert({site, Statistic::Mean});
    }
  }
  if (asked.norms) {
    for (const ir::TensorSpec& spec : model.tensors()) {
      if (is_stream_norm(spec.name)) fit.requests.insert({stream_site(model, spec.name), Statistic::MeanSquare});
    }
  }
  Measured out;
  if (fit.requests.empty()) return out;
  const SplitWindows parts = split(windows);
  out.windows = parts.fit.size(0);
  out.fit = engine::collect_cached(model, parts.fit, fit, cache, events);
  if (!held.requests.empty()) out.held_out = engine::collect_cached(model, parts.held_out, held, cache, events);
  return out;
}

bool is_stream_norm(const std::string& name) { return name == "norm" || name.ends_with(".attn.norm") || name.ends_with(".ffn.norm"); }

std::string stream_site(const ir::Model& model, const std::string& norm) {
  if (norm == "norm") return "block." + std::to_string(model.blocks() - 1) + ".out";
  const std::int64_t block = model.find(norm)->block;
  const bool behind_attention = norm.ends_with(".ffn.norm") && !model.decoder().parallel_residual &&
                                model.sizes().blocks[static_cast<std::size_t>(block)].heads() > 0;
  return "block." + std::to_string(block) + (behind_attention ? ".mid" : ".in");
}

Inputs inputs_of(const engine::Statistics& statistics, const std::string& map, const Wants& wants) {
  const std::string site = map + ".in";
  Inputs out;
  if (wants.mean_square) out.mean_square = statistics.at(site, Statistic::MeanSquare);
  if (wants.mean) out.mean = statistics.at(site, Statistic::Mean);
  if (wants.window_mean_abs) out.window_mean_abs = statistics.at(site, Statistic::WindowAbs);
  if (wants.gram) out.gram = statistics.at(site, Statistic::Gram);
  return out;
}

}  // namespace slmc::pruning
