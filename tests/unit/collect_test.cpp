// The statistics pass and the step-by-step stream on tiny checkpoints of every family, against taps of the decoder in fp64.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "core/rng.h"
#include "engine/statistics.h"
#include "engine/stream.h"
#include "test_folder.h"

namespace slmc::engine {
namespace {

const std::vector<std::string>& families() {
  static const std::vector<std::string> all = {"llama", "llama_tied", "mistral", "qwen2", "qwen3", "gpt2", "gpt_neox", "gpt_neox_serial", "phi3", "opt"};
  return all;
}

ir::Model tiny(const std::string& family) { return ir::load(std::string(SLMC_SOURCE_DIR) + "/tests/data/tiny/" + family); }

at::Tensor some_windows(const ir::Model& model, std::int64_t n, std::int64_t seq, std::uint64_t seed = 1) {
  const Rng rng(seed);
  at::Tensor ids = at::empty({n, seq}, at::kLong);
  for (std::int64_t i = 0; i < ids.numel(); ++i) {
    ids.mutable_data_ptr<std::int64_t>()[i] = static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(model.sizes().vocab), i));
  }
  return ids;
}

struct Events : stage::Events {
  std::vector<std::string> seen, warnings;
  void emit(const Json& event) override {
    seen.push_back(event["event"]);
    if (event["event"] == "warning") warnings.push_back(event["text"]);
  }
};

// Every value of one fp64 pass over all windows at once.
struct Everything : Tap {
  std::map<std::string, at::Tensor> of;
  bool wants(const std::string&) const override { return true; }
  void see(const std::string& site, const at::Tensor& value) override { of[site] = value.flatten(0, 1).clone(); }
};

Everything seen_in_fp64(const ir::Model& model, const at::Tensor& windows) {
  const at::NoGradGuard no_grad;
  PlainWeights weights(model, at::kDouble, at::kCPU);
  Everything tap;
  hidden_states(arch_of(model), weights, windows, {.tap = &tap});
  return tap;
}

double difference(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>() / (1e-12 + b.abs().max().item<double>());
}

TEST(Stream, StepsSeeWhatTapsOfTheDecoderSee) {
  for (const std::string& family : families()) {
    SCOPED_TRACE(family);
    const ir::Model model = tiny(family);
    const Arch arch = arch_of(model);
    const at::Tensor windows = some_windows(model, 3, 17);
    const Everything want = seen_in_fp64(model, windows);
    PlainWeights weights(model, at::kFloat, at::kCPU);
    at::Tensor x = embed_windows(arch, weights, windows, at::kCPU), whole = x.clone();
    std::size_t linears = 0;
    for (std::int64_t i = 0; i < model.blocks(); ++i) {
      for (BlockSteps steps(arch, weights, i, x); !steps.done(); steps.next()) {
        for (const std::string& linear : steps.linears()) {
          ++linears;
          EXPECT_TRUE(model.has(linear)) << linear;
          EXPECT_LE(difference(steps.inputs(), want.of.at(linear + ".in")), 2e-5) << linear;
        }
      }
      EXPECT_LE(difference(x.flatten(0, 1), want.of.at("block." + std::to_string(i) + ".out")), 2e-5);
    }
    EXPECT_EQ(linears, static_cast<std::size_t>(model.blocks()) * (arch.options.gated ? 7 : 6));
    run_windows(arch, weights, whole, 0, model.blocks());
    EXPECT_LE(difference(whole, x), 1e-6);
  }
}

TEST(Stream, WhatFollowsFeelsChangedWeights) {
  const ir::Model model = tiny("llama");
  const Arch arch = arch_of(model);
  PlainWeights weights(model, at::kFloat, at::kCPU);
  at::Tensor x = embed_windows(arch, weights, some_windows(model, 2, 9), at::kCPU);
  const at::Tensor before = x.clone();
  std::vector<at::Tensor> seen;
  for (BlockSteps steps(arch, weights, 0, x); !steps.done(); steps.next()) {
    for (const std::string& linear : steps.linears()) {
      if (linear == "block.0.attn.v" || linear == "block.0.ffn.down") weights.all()[linear] = at::zeros_like(weights.tensor(linear));
    }
    seen.push_back(steps.inputs().clone());
  }
  ASSERT_EQ(seen.size(), 4u);
  EXPECT_EQ(seen[1].abs().max().item<float>(), 0);       // heads of zero values
  EXPECT_GT(seen[3].abs().max().item<float>(), 0);
  EXPECT_TRUE(at::equal(x, before));                      // attention and feed-forward part add nothing
}

CollectSettings everything_of(const ir::Model& model) {
  CollectSettings settings;
  for (std::int64_t i = 0; i < model.blocks(); ++i) {
    const std::string block = "block." + std::to_string(i);
    for (const char* part : {".attn.q.in", ".attn.o.in", ".ffn.down.in"}) settings.requests.insert({block + part, Statistic::Gram});
    for (const Statistic what : {Statistic::Mean, Statistic::MeanAbs, Statistic::WindowAbs, Statistic::MaxAbs, Statistic::MeanSquare}) {
      settings.requests.insert({block + ".ffn.up.in", what});
    }
    settings.requests.insert({block + ".in", Statistic::MeanSquare});
    settings.requests.insert({block + ".out", Statistic::MeanAbs});
    if (!model.decoder().parallel_residual) settings.requests.insert({block + ".mid", Statistic::MeanSquare});
    settings.requests.insert({block, Statistic::Cosine});
  }
  settings.requests.insert({"head.in", Statistic::Gram});
  return settings;
}

TEST(Collect, EqualsTheDefinitionInFp64) {
  for (const std::string& family : families()) {
    SCOPED_TRACE(family);
    const ir::Model model = tiny(family);
    const at::Tensor windows = some_windows(model, 19, 13);                    // more than a group of windows
    const Everything want = seen_in_fp64(model, windows);
    Events events;
    const Statistics got = collect(model, windows, everything_of(model), events);
    EXPECT_EQ(got.tokens, 19 * 13);
    for (const Request& request : everything_of(model).requests) {
      SCOPED_TRACE(request.site);
      const at::Tensor value = got.at(request.site, request.what);
      if (request.what == Statistic::Cosine) {
        const at::Tensor a = want.of.at(request.site + ".in"), b = want.of.at(request.site + ".out");
        const at::Tensor cosines = (a * b).sum(1) / (a.norm(2, 1) * b.norm(2, 1));
        EXPECT_NEAR(value.item<double>(), cosines.mean().item<double>(), 1e-6);
        continue;
      }
      const at::Tensor x = want.of.at(request.site);
      at::Tensor oracle;
      switch (request.what) {
        case Statistic::Gram: oracle = at::mm(x.t(), x) / x.size(0); break;
        case Statistic::Mean: oracle = x.mean(0); break;
        case Statistic::MeanAbs: oracle = x.abs().mean(0); break;
        case Statistic::WindowAbs: oracle = x.abs().view({19, 13, -1}).mean(1); break;
        case Statistic::MaxAbs: oracle = x.abs().amax(0); break;
        default: oracle = x.square().mean(0); break;
      }
      EXPECT_LE(difference(value, oracle), 1e-5);
    }
  }
}

TEST(Collect, RunsNoBlockBehindTheLastOneAskedFor) {
  const ir::Model model = tiny("llama");
  Events events;
  const Statistics got = collect(model, some_windows(model, 2, 5), {.requests = {{"block.0.ffn.down.in", Statistic::MeanSquare}}}, events);
  EXPECT_EQ(got.names(), (std::vector<std::string>{"block.0.ffn.down.in/mean_square"}));
  EXPECT_EQ(std::count(events.seen.begin(), events.seen.end(), "progress"), 1);
}

TEST(Collect, SameBytesForOneTwoAndThreeThreads) {
  const ir::Model model = tiny("llama");
  const at::Tensor windows = some_windows(model, 20, 16);
  Events events;
  Statistics first;
  for (const int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    const Statistics got = collect(model, windows, everything_of(model), events);
    if (first.names().empty()) first = got;
    for (const Request& r : everything_of(model).requests) {
      EXPECT_TRUE(at::equal(got.at(r.site, r.what), first.at(r.site, r.what))) << r.site << " with " << threads << " threads";
    }
  }
  at::set_num_threads(1);
}

using CollectCache = FolderTest;

TEST_F(CollectCache, HitsReadAndDamageIsAMiss) {
  const ir::Model model = tiny("llama");
  const at::Tensor windows = some_windows(model, 4, 8);
  const CollectSettings all = everything_of(model), one = {.requests = {{"block.0.attn.q.in", Statistic::Gram}}};
  const auto progress = [](const Events& e) { return std::count(e.seen.begin(), e.seen.end(), "progress"); };

  Events miss, hit, more, other, damaged;
  const Statistics collected = collect_cached(model, windows, all, folder_, miss);
  EXPECT_GT(progress(miss), 0);
  const Statistics part = collect_cached(model, windows, one, folder_, hit);
  EXPECT_EQ(progress(hit), 0);
  EXPECT_TRUE(at::equal(part.at("block.0.attn.q.in", Statistic::Gram), collected.at("block.0.attn.q.in", Statistic::Gram)));

  const Statistics fresh = collect(model, windows, all, miss);                        // from the file as without one, bit for bit
  for (const Request& r : all.requests) EXPECT_TRUE(at::equal(collected.at(r.site, r.what), fresh.at(r.site, r.what))) << r.site;

  // Something new is collected and added; what was there stays.
  collect_cached(model, windows, {.requests = {{"block.1.attn.q.in", Statistic::MaxAbs}}}, folder_, more);
  EXPECT_GT(progress(more), 0);
  Events again;
  collect_cached(model, windows, all, folder_, again);
  EXPECT_EQ(progress(again), 0);

  collect_cached(model, some_windows(model, 4, 8, 99), one, folder_, other);          // other windows: another file
  EXPECT_GT(progress(other), 0);
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    ++files;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(2000);
    file.put('x');
  }
  EXPECT_EQ(files, 2);
  const Statistics good = collect(model, windows, all, miss);
  const Statistics rebuilt = collect_cached(model, windows, one, folder_, damaged);
  EXPECT_EQ(damaged.warnings.size(), 1u);
  EXPECT_TRUE(at::equal(rebuilt.at("block.0.attn.q.in", Statistic::Gram), good.at("block.0.attn.q.in", Statistic::Gram)));
}

TEST_F(CollectCache, TheFilesUsedLongestAgoGoWhenThereIsTooMuch) {
  namespace fs = std::filesystem;
  const auto large = [&](const char* name, int hours) {                                 // sparse
    std::ofstream(folder_ / name).put('x');
    fs::resize_file(folder_ / name, kMostCached * 2 / 5);
    fs::last_write_time(folder_ / name, fs::file_time_type::clock::now() - std::chrono::hours(hours));
  };
  large("statistics-old.h5", 9), large("statistics-older.h5", 10), large("statistics-new.h5", 1), large("of-somebody-else.h5", 20);
  const ir::Model model = tiny("llama");
  Events events;
  collect_cached(model, some_windows(model, 2, 5), {.requests = {{"block.0.in", Statistic::MeanSquare}}}, folder_, events);
  EXPECT_FALSE(fs::exists(folder_ / "statistics-older.h5"));
  EXPECT_TRUE(fs::exists(folder_ / "statistics-old.h5"));
  EXPECT_TRUE(fs::exists(folder_ / "statistics-new.h5"));
  EXPECT_TRUE(fs::exists(folder_ / "of-somebody-else.h5"));
}

TEST(Collect, OverflowIsRefusedWithItsSite) {
  const ir::Model base = tiny("llama");
  const ir::Model model = ir::with_weights(base.config(), [&](const ir::TensorSpec& spec) {
    io::TensorData data = base.read(spec.name);
    if (spec.name != "block.1.ffn.up") return data;
    std::vector<float> values = data.to_floats();
    for (float& v : values) v = 3e38f;
    return io::TensorData::floats(data.shape, values);
  });
  Events events;
  try {
    collect(model, some_windows(model, 2, 5), everything_of(model), events);
    FAIL() << "accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::Numeric);
    EXPECT_NE(e.message().find("block.1.ffn.down.in"), std::string::npos) << e.message();
  }
}

}  // namespace
}  // namespace slmc::engine
