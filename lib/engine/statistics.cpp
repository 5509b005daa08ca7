#include "engine/statistics.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <type_traits>
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
constexpr int kVersion = 2;                  // of what the numbers mean: part of the cache's key

std::string key_of(const std::string& site, Statistic what) { return site + "/" + std::string(to_string(what)); }

// Takes each value once it is complete.
using Keep = std::function<void(const std::string& name, const at::Tensor& value)>;

void require_finite(const std::string& name, const at::Tensor& value) {
  if (value.isfinite().all().item<bool>()) return;
  throw Error(ErrorKind::Numeric, "the activations at " + name.substr(0, name.find('/')) + " must be finite, but are not",
              "the model overflows on these windows; check it with `slmc eval`");
}

// The upper triangle of a [d, d], row by row: [d (d + 1) / 2] fp32.
at::Tensor triangle_of(const at::Tensor& a) {
  const std::int64_t d = a.size(0);
  const at::Tensor whole = a.to(at::kCPU, at::kDouble).contiguous();
  at::Tensor out = at::empty({d * (d + 1) / 2}, at::kFloat);
  const double* from = whole.const_data_ptr<double>();
  float* to = out.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < d; ++i) {
    for (std::int64_t j = i; j < d; ++j) *to++ = static_cast<float>(from[i * d + j]);
  }
  return out;
}

at::Tensor whole_of(const at::Tensor& triangle) {
  std::int64_t d = 0;
  while (d * (d + 1) / 2 < triangle.numel()) ++d;
  SLMC_CHECK(d * (d + 1) / 2 == triangle.numel() && triangle.scalar_type() == at::kFloat);
  at::Tensor out = at::empty({d, d}, at::kDouble);
  const float* from = triangle.const_data_ptr<float>();
  double* to = out.mutable_data_ptr<double>();
  for (std::int64_t i = 0; i < d; ++i) {
    for (std::int64_t j = i; j < d; ++j) to[i * d + j] = to[j * d + i] = static_cast<double>(*from++);
  }
  return out;
}

// A sum per channel of each window on its own: a row per window.
class WindowSums {
 public:
  WindowSums(ChannelSum::Of of, std::int64_t seq) : of_(of), seq_(seq) {}
  void add(const at::Tensor& x) {               // whole windows: [windows * seq, n]
    for (std::int64_t first = 0; first < x.size(0); first += seq_) {
      ChannelSum one(of_, x.size(1), x.device());
      one.add(x.narrow(0, first, seq_));
      rows_.push_back(one.mean());
    }
  }
  at::Tensor mean() const { return at::stack(rows_); }

 private:
  ChannelSum::Of of_;
  std::int64_t seq_;
  std::vector<at::Tensor> rows_;
};

// One running sum. MeanSquare beside Gram is summed on its own: the same bytes whoever else asks.
class Sum {
 public:
  Sum(Statistic what, std::int64_t n, std::int64_t seq, at::Device device) {
    switch (what) {
      case Statistic::Gram: sum_.emplace<GramSum>(n, device); break;
      case Statistic::Mean: sum_.emplace<ChannelSum>(ChannelSum::Of::Value, n, device); break;
      case Statistic::MeanAbs: sum_.emplace<ChannelSum>(ChannelSum::Of::Abs, n, device); break;
      case Statistic::WindowAbs: sum_.emplace<WindowSums>(ChannelSum::Of::Abs, seq); break;
      case Statistic::WindowMean: sum_.emplace<WindowSums>(ChannelSum::Of::Value, seq); break;
      case Statistic::WindowSquare: sum_.emplace<WindowSums>(ChannelSum::Of::Square, seq); break;
      case Statistic::MaxAbs: sum_.emplace<ChannelSum>(ChannelSum::Of::MaxAbs, n, device); break;
      default: sum_.emplace<ChannelSum>(ChannelSum::Of::Square, n, device); break;
    }
  }
  void add(const at::Tensor& x) {
    std::visit([&](auto& sum) { if constexpr (!std::is_same_v<std::decay_t<decltype(sum)>, std::monostate>) sum.add(x); }, sum_);
  }
  // In the form that is kept.
  at::Tensor value() const {
    if (const auto* gram = std::get_if<GramSum>(&sum_)) return triangle_of(gram->mean());
    if (const auto* windows = std::get_if<WindowSums>(&sum_)) return windows->mean();
    return std::get<ChannelSum>(sum_).mean();
  }

 private:
  std::variant<std::monostate, GramSum, ChannelSum, WindowSums> sum_;
};

// What is asked for at sites that hold the same value; one sum serves all their names.
class SiteSums {
 public:
  SiteSums(const CollectSettings& settings, std::int64_t seq) : settings_(settings), seq_(seq) {}

  void add(const std::vector<std::string>& sites, const at::Tensor& value) {
    std::set<Statistic> wanted;
    for (const std::string& site : sites) {
      for (const Statistic what : asked(site)) {
        wanted.insert(what);
        names_[key_of(site, what)] = {sites.front(), what};
      }
    }
    for (const Statistic what : wanted) {
      auto& sum = sums_[{sites.front(), what}];
      if (!sum) sum = std::make_unique<Sum>(what, value.size(1), seq_, value.device());
      sum->add(value);
    }
  }

  void finish(const Keep& keep) const {
    for (const auto& [name, source] : names_) {
      const at::Tensor value = sums_.at(source)->value();
      require_finite(name, value);
      keep(name, value);
    }
  }

 private:
  std::vector<Statistic> asked(const std::string& site) const {
    std::vector<Statistic> out;
    for (auto it = settings_.requests.lower_bound({site, Statistic::Gram}); it != settings_.requests.end() && it->site == site; ++it) {
      if (it->what != Statistic::Cosine) out.push_back(it->what);
    }
    return out;
  }

  using Source = std::pair<std::string, Statistic>;
  const CollectSettings& settings_;
  std::int64_t seq_;
  std::map<Source, std::unique_ptr<Sum>> sums_;
  std::map<std::string, Source> names_;
};

std::string block_site(std::int64_t block) { return "block." + std::to_string(block); }

bool asks_about(const Request& request, std::int64_t block) {
  const std::string prefix = block_site(block);
  return request.site == prefix || request.site.starts_with(prefix + ".");
}

at::Tensor rows(const at::Tensor& x) { return x.flatten(0, 1); }      // [n, seq, hidden] -> [n * seq, hidden]

std::vector<std::string> inputs_of(const std::vector<std::string>& linears) {
  std::vector<std::string> out;
  for (const std::string& linear : linears) out.push_back(linear + ".in");
  return out;
}

void collect_block(const Arch& arch, PlainWeights& weights, std::int64_t block, at::Tensor& x, const CollectSettings& settings, const Keep& keep) {
  SiteSums sums(settings, x.size(1));
  const std::string site = block_site(block);
  const bool cosine = settings.requests.contains({site, Statistic::Cosine});
  CosineSum cosines;
  for (std::int64_t first = 0; first < x.size(0); first += kGroup) {
    const at::Tensor part = x.narrow(0, first, std::min(kGroup, x.size(0) - first));
    const at::Tensor before = cosine ? part.clone() : at::Tensor();
    sums.add({site + ".in"}, rows(part));
    bool attends = false;
    for (BlockSteps steps(arch, weights, block, part); !steps.done(); steps.next()) {
      const std::vector<std::string> linears = steps.linears();
      const bool feeds = linears.back() == site + ".ffn.up";
      if (feeds && attends && !arch.options.parallel_residual) sums.add({site + ".mid"}, rows(part));
      attends = attends || linears.back() == site + ".attn.o";
      sums.add(inputs_of(linears), steps.inputs());
    }
    sums.add({site + ".out"}, rows(part));
    if (cosine) cosines.add(rows(before), rows(part));
  }
  sums.finish(keep);
  if (!cosine) return;
  const std::string name = key_of(site, Statistic::Cosine);
  const at::Tensor mean = at::full({1}, cosines.mean(), at::kDouble);
  require_finite(name, mean);
  keep(name, mean);
}

void collect_head(const Arch& arch, PlainWeights& outside, const at::Tensor& x, const CollectSettings& settings, const Keep& keep) {
  const at::NoGradGuard no_grad;
  SiteSums sums(settings, x.size(1));
  for (std::int64_t first = 0; first < x.size(0); first += kGroup) {
    const at::Tensor part = x.narrow(0, first, std::min(kGroup, x.size(0) - first));
    sums.add({"head.in"}, rows(final_norm(arch, outside, part)));
  }
  sums.finish(keep);
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
    case Statistic::WindowAbs: return "window_abs";
    case Statistic::WindowMean: return "window_mean";
    case Statistic::WindowSquare: return "window_square";
    case Statistic::MaxAbs: return "max_abs";
    case Statistic::MeanSquare: return "mean_square";
    default: return "cosine";
  }
}

at::Tensor Statistics::at(const std::string& site, Statistic what) const {
  const std::string name = key_of(site, what);
  SLMC_CHECK(has(site, what));
  const auto it = values_.find(name);
  const at::Tensor value = it != values_.end() ? it->second : to_tensor(file_->read(name), what == Statistic::Gram ? at::kFloat : at::kDouble);
  return what == Statistic::Gram ? whole_of(value) : value.clone();
}

bool Statistics::has(const std::string& site, Statistic what) const {
  const std::string name = key_of(site, what);
  return values_.contains(name) || (file_ && file_->has(name));
}

std::vector<std::string> Statistics::names() const {
  std::vector<std::string> out = file_ ? file_->names() : std::vector<std::string>();
  for (const auto& [name, value] : values_) out.push_back(name);
  std::sort(out.begin(), out.end());
  return out;
}

namespace {

void run(const ir::Model& model, const at::Tensor& windows, const CollectSettings& settings, const Keep& keep, stage::Events& events) {
  const Arch arch = arch_of(model);
  std::size_t kept = 0;
  const Keep counted = [&](const std::string& name, const at::Tensor& value) { ++kept, keep(name, value); };
  PlainWeights outside = load_block(model, -1, at::kFloat, settings.device, Storage::Mapped);
  at::Tensor x = embed_windows(arch, outside, windows, settings.device);
  const std::int64_t last = blocks_to_run(model, settings);
  for (std::int64_t i = 0; i < last; ++i) {
    cancel_point("nothing was written");
    PlainWeights weights = load_block(model, i, at::kFloat, settings.device, Storage::Mapped);
    const bool asked = std::any_of(settings.requests.begin(), settings.requests.end(), [&](const Request& r) { return asks_about(r, i); });
    if (asked) {
      collect_block(arch, weights, i, x, settings, counted);
    } else {
      run_windows(arch, weights, x, i, i + 1);
    }
    events.progress("statistics", i + 1, last);
  }
  if (last == model.blocks()) collect_head(arch, outside, x, settings, counted);
  SLMC_CHECK(kept == settings.requests.size());
}

namespace fs = std::filesystem;

Json cache_header(const ir::Model& model, const at::Tensor& windows) {
  const at::Tensor ids = windows.to(at::kCPU, at::kLong).contiguous();
  Sha256 hash;
  hash.add_number(static_cast<std::uint64_t>(ids.size(0))).add_number(static_cast<std::uint64_t>(ids.size(1)));
  hash.add(std::as_bytes(std::span(ids.const_data_ptr<std::int64_t>(), static_cast<std::size_t>(ids.numel()))));
  return {{"slmc_statistics", kVersion}, {"model", model.content_hash()}, {"windows", hash.hex()},
          {"gemm", to_string(current_kernels().gemm)}, {"tokens", ids.numel()}};
}

using Cached = std::shared_ptr<const io::StatisticsFile>;

// The file of this model and these windows; nothing when there is none, or when it is damaged.
Cached open_cached(const fs::path& path, const Json& header, stage::Events& events) {
  if (!fs::exists(path)) return nullptr;
  try {
    auto file = std::make_shared<const io::StatisticsFile>(io::StatisticsFile::open(path));
    if (file->header() != header) return nullptr;
    fs::last_write_time(path, fs::file_time_type::clock::now());           // last used, for drop_old_files
    return file;
  } catch (const Error& e) {
    events.warning("the statistics in " + path.string() + " can't be used and are collected again: " + e.message());
    return nullptr;
  }
}

// Removes the files that were used longest ago, until all have at most kMostCached bytes. `newest` stays.
void drop_old_files(const fs::path& cache, const fs::path& newest) {
  struct File {
    fs::file_time_type used;
    fs::path path;
    std::uint64_t bytes;
  };
  std::vector<File> files;
  std::uint64_t all = 0;
  std::error_code ignored;                                                 // another process may remove the same file
  for (const fs::directory_entry& entry : fs::directory_iterator(cache, ignored)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("statistics-") || !name.ends_with(".h5")) continue;
    const std::uint64_t bytes = entry.file_size(ignored);
    if (ignored) continue;
    all += bytes;
    if (entry.path() != newest) files.push_back({entry.last_write_time(ignored), entry.path(), bytes});
  }
  std::sort(files.begin(), files.end(), [](const File& a, const File& b) { return a.used < b.used; });
  for (const File& file : files) {
    if (all <= kMostCached) return;
    if (fs::remove(file.path, ignored)) all -= file.bytes;
  }
}

// Without those that the file holds.
CollectSettings missing_of(const CollectSettings& settings, const Cached& file) {
  CollectSettings out = settings;
  if (file) std::erase_if(out.requests, [&](const Request& r) { return file->has(key_of(r.site, r.what)); });
  return out;
}

}  // namespace

Statistics collect(const ir::Model& model, const at::Tensor& windows, const CollectSettings& settings, stage::Events& events) {
  Statistics out;
  out.tokens = windows.numel();
  run(model, windows, settings, [&](const std::string& name, const at::Tensor& value) { out.keep(name, value); }, events);
  return out;
}

Statistics collect_cached(const ir::Model& model, const at::Tensor& windows, const CollectSettings& settings,
                          const std::filesystem::path& cache, stage::Events& events) {
  if (cache.empty()) return collect(model, windows, settings, events);
  const Json header = cache_header(model, windows);
  const fs::path path = cache / ("statistics-" + sha256(dump_compact(header)).substr(0, 16) + ".h5");
  Cached file = open_cached(path, header, events);
  if (const CollectSettings missing = missing_of(settings, file); !missing.requests.empty()) {
    fs::create_directories(cache);
    io::StatisticsWriter writer(path, header);
    if (file) {
      for (const std::string& name : file->names()) writer.write(name, file->read(name));
    }
    run(model, windows, missing, [&](const std::string& name, const at::Tensor& value) { writer.write(name, to_data(value)); }, events);
    writer.finish();
    drop_old_files(cache, path);
    file = std::make_shared<const io::StatisticsFile>(io::StatisticsFile::open(path));
  }
  Statistics out;
  out.tokens = windows.numel();
  out.read_from(std::move(file));
  return out;
}

}  // namespace slmc::engine
