#include "engine/statistics.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <variant>

#include "core/cancel.h"
#include "core/error.h"
#include "core/hash.h"
#include "engine/kernels.h"
#include "engine/moments.h"
#include "engine/stream.h"
#include "engine/tensors.h"
#include "io/statistics_file.h"

namespace slmc::engine {
namespace {

constexpr std::int64_t kGroup = 16;          // windows whose inner activations are in memory together
constexpr int kVersion = 1;                  // of what the numbers mean: part of the cache's key

std::string key_of(const std::string& site, Statistic what) { return site + "/" + std::string(to_string(what)); }

// One running sum. MeanSquare beside Gram is summed on its own: the same bytes whoever else asks.
class Sum {
 public:
  Sum(Statistic what, std::int64_t n, at::Device device) {
    switch (what) {
      case Statistic::Gram: sum_.emplace<GramSum>(n, device); break;
      case Statistic::Mean: sum_.emplace<ChannelSum>(ChannelSum::Of::Value, n, device); break;
      case Statistic::MeanAbs: sum_.emplace<ChannelSum>(ChannelSum::Of::Abs, n, device); break;
      case Statistic::MaxAbs: sum_.emplace<ChannelSum>(ChannelSum::Of::MaxAbs, n, device); break;
      default: sum_.emplace<ChannelSum>(ChannelSum::Of::Square, n, device); break;
    }
  }
  void add(const at::Tensor& x) {
    if (auto* gram = std::get_if<GramSum>(&sum_)) return gram->add(x);
    std::get<ChannelSum>(sum_).add(x);
  }
  at::Tensor mean() const {
    if (const auto* gram = std::get_if<GramSum>(&sum_)) return gram->mean();
    return std::get<ChannelSum>(sum_).mean();
  }

 private:
  std::variant<std::monostate, GramSum, ChannelSum> sum_;
};

// What is asked for at the inputs of linears that read the same value; one sum serves all their names.
class SiteSums {
 public:
  explicit SiteSums(const CollectSettings& settings) : settings_(settings) {}

  void add(const std::vector<std::string>& linears, const at::Tensor& inputs) {
    std::set<Statistic> wanted;
    for (const std::string& linear : linears) {
      for (const Statistic what : asked(linear + ".in")) {
        wanted.insert(what);
        names_[key_of(linear + ".in", what)] = {linears.front(), what};
      }
    }
    for (const Statistic what : wanted) {
      auto& sum = sums_[{linears.front(), what}];
      if (!sum) sum = std::make_unique<Sum>(what, inputs.size(1), inputs.device());
      sum->add(inputs);
    }
  }

  void finish(Statistics& into) const {
    for (const auto& [name, source] : names_) into.of[name] = sums_.at(source)->mean();
  }

 private:
  std::vector<Statistic> asked(const std::string& site) const {
    std::vector<Statistic> out;
    for (const Statistic what : {Statistic::Gram, Statistic::Mean, Statistic::MeanAbs, Statistic::MaxAbs, Statistic::MeanSquare}) {
      if (settings_.requests.contains({site, what})) out.push_back(what);
    }
    return out;
  }

  using Source = std::pair<std::string, Statistic>;
  const CollectSettings& settings_;
  std::map<Source, std::unique_ptr<Sum>> sums_;
  std::map<std::string, Source> names_;
};

std::string block_site(std::int64_t block) { return "block." + std::to_string(block); }

bool asks_about(const Request& request, std::int64_t block) {
  const std::string prefix = block_site(block);
  return request.site == prefix || request.site.starts_with(prefix + ".");
}

at::Tensor rows(const at::Tensor& x) { return x.flatten(0, 1); }      // [n, seq, hidden] -> [n * seq, hidden]

void collect_block(const Arch& arch, PlainWeights& weights, std::int64_t block, at::Tensor& x, const CollectSettings& settings, Statistics& into) {
  SiteSums sums(settings);
  const bool cosine = settings.requests.contains({block_site(block), Statistic::Cosine});
  CosineSum cosines;
  for (std::int64_t first = 0; first < x.size(0); first += kGroup) {
    const at::Tensor part = x.narrow(0, first, std::min(kGroup, x.size(0) - first));
    const at::Tensor before = cosine ? part.clone() : at::Tensor();
    for (BlockSteps steps(arch, weights, block, part); !steps.done(); steps.next()) sums.add(steps.linears(), steps.inputs());
    if (cosine) cosines.add(rows(before), rows(part));
  }
  sums.finish(into);
  if (cosine) {
    into.of[key_of(block_site(block), Statistic::Cosine)] = at::full({1}, cosines.mean(), at::kDouble);
  }
}

void collect_head(const Arch& arch, PlainWeights& outside, const at::Tensor& x, const CollectSettings& settings, Statistics& into) {
  const at::NoGradGuard no_grad;
  SiteSums sums(settings);
  for (std::int64_t first = 0; first < x.size(0); first += kGroup) {
    const at::Tensor part = x.narrow(0, first, std::min(kGroup, x.size(0) - first));
    sums.add({"head"}, rows(final_norm(arch, outside, part)));
  }
  sums.finish(into);
}

void require_finite(const Statistics& statistics) {
  for (const auto& [name, value] : statistics.of) {
    if (value.isfinite().all().item<bool>()) continue;
    throw Error(ErrorKind::Numeric, "the activations at " + name.substr(0, name.find('/')) + " must be finite, but are not",
                "the model overflows on these windows; check it with `slmc eval`");
  }
}

// The last block that must be run, and whether head.in is wanted. Unknown sites are bugs of methods.
std::int64_t blocks_to_run(const ir::Model& model, const CollectSettings& settings) {
  std::int64_t last = 0;
  for (const Request& request : settings.requests) {
    if (request.site == "head.in") return model.blocks();
    std::int64_t found = -1;
    for (std::int64_t i = 0; i < model.blocks() && found < 0; ++i) {
      if (asks_about(request, i)) found = i;
    }
    SLMC_CHECK(found >= 0);
    last = std::max(last, found + 1);
  }
  return last;
}

}  // namespace

std::string_view to_string(Statistic s) {
  switch (s) {
    case Statistic::Gram: return "gram";
    case Statistic::Mean: return "mean";
    case Statistic::MeanAbs: return "mean_abs";
    case Statistic::MaxAbs: return "max_abs";
    case Statistic::MeanSquare: return "mean_square";
    default: return "cosine";
  }
}

const at::Tensor& Statistics::at(const std::string& site, Statistic what) const {
  const auto it = of.find(key_of(site, what));
  SLMC_CHECK(it != of.end());
  return it->second;
}

Statistics collect(const ir::Model& model, const at::Tensor& windows, const CollectSettings& settings, stage::Events& events) {
  const Arch arch = arch_of(model);
  Statistics out;
  out.tokens = windows.numel();
  PlainWeights outside = load_block(model, -1, at::kFloat, settings.device, Storage::Mapped);
  at::Tensor x = embed_windows(arch, outside, windows, settings.device);
  const std::int64_t last = blocks_to_run(model, settings);
  for (std::int64_t i = 0; i < last; ++i) {
    cancel_point("nothing was written");
    PlainWeights weights = load_block(model, i, at::kFloat, settings.device, Storage::Mapped);
    const bool asked = std::any_of(settings.requests.begin(), settings.requests.end(), [&](const Request& r) { return asks_about(r, i); });
    if (asked) {
      collect_block(arch, weights, i, x, settings, out);
    } else {
      run_windows(arch, weights, x, i, i + 1);
    }
    events.progress("statistics", i + 1, last);
  }
  if (last == model.blocks()) collect_head(arch, outside, x, settings, out);
  require_finite(out);
  SLMC_CHECK(out.of.size() == settings.requests.size());
  return out;
}

namespace {

Json cache_header(const ir::Model& model, const at::Tensor& windows) {
  const at::Tensor ids = windows.to(at::kCPU, at::kLong).contiguous();
  Sha256 hash;
  hash.add_number(static_cast<std::uint64_t>(ids.size(0))).add_number(static_cast<std::uint64_t>(ids.size(1)));
  hash.add(std::as_bytes(std::span(ids.const_data_ptr<std::int64_t>(), static_cast<std::size_t>(ids.numel()))));
  return {{"slmc_statistics", kVersion}, {"model", model.content_hash()}, {"windows", hash.hex()},
          {"gemm", to_string(current_kernels().gemm)}, {"tokens", ids.numel()}};
}

// What the file holds of this model and these windows; empty when there is none, or when it is damaged.
std::map<std::string, io::TensorData> read_cache(const std::filesystem::path& file, const Json& header, stage::Events& events) {
  std::map<std::string, io::TensorData> found;
  if (!std::filesystem::exists(file)) return found;
  try {
    const io::StatisticsFile cached = io::StatisticsFile::open(file);
    if (cached.header() != header) return found;
    for (const std::string& name : cached.names()) found.emplace(name, cached.read(name));
  } catch (const Error& e) {
    events.warning("the statistics in " + file.string() + " can't be used and are collected again: " + e.message());
    found.clear();
  }
  return found;
}

}  // namespace

Statistics collect_cached(const ir::Model& model, const at::Tensor& windows, const CollectSettings& settings,
                          const std::filesystem::path& cache, stage::Events& events) {
  if (cache.empty()) return collect(model, windows, settings, events);
  const Json header = cache_header(model, windows);
  const std::filesystem::path file = cache / ("statistics-" + sha256(dump_compact(header)).substr(0, 16) + ".h5");
  auto known = read_cache(file, header, events);
  CollectSettings missing = settings;
  Statistics out;
  for (const Request& request : settings.requests) {
    const auto it = known.find(key_of(request.site, request.what));
    if (it == known.end()) continue;
    out.of[it->first] = to_tensor(it->second, at::kDouble).clone();
    missing.requests.erase(request);
  }
  if (!missing.requests.empty()) {
    const Statistics fresh = collect(model, windows, missing, events);
    for (const auto& [name, value] : fresh.of) {
      out.of[name] = value;
      known[name] = to_data(value);
    }
    std::filesystem::create_directories(cache);
    io::StatisticsWriter writer(file, header);
    for (const auto& [name, data] : known) writer.write(name, data);
    writer.finish();
  }
  out.tokens = windows.numel();
  return out;
}

}  // namespace slmc::engine
