// Question: do the loops that touch every weight run at the speed of memory on this machine?
// Roof: memcpy (reads and writes one byte per byte) of buffers far above the caches, printed as "roof".
// Run:   build/release/bin/bench_io --benchmark_min_time=0.3
// Times are CPU seconds. Column "of_roof" = bytes read and written per second over those of memcpy;
// "elements" = weights per second.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstring>
#include <ctime>
#include <vector>

#include "core/hash.h"
#include "core/rng.h"
#include "io/ggml_types.h"

namespace slmc::io {
namespace {

constexpr std::size_t kElements = 1 << 24;  // 64 MiB as fp32

double memory_roof() {  // bytes read plus written per second, best of five
  const std::vector<char> from(64 << 20, 1);
  std::vector<char> to(from.size());
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    const std::clock_t start =
        std::clock();  // CPU time, as the benchmarks' rates: other processes don't count
    std::memcpy(to.data(), from.data(), from.size());
    benchmark::DoNotOptimize(to.data());
    const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    best = std::max(best, 2.0 * static_cast<double>(from.size()) / seconds);
  }
  return best;
}

double roof() {
  static const double bytes_per_s = memory_roof();
  return bytes_per_s;
}

void report(benchmark::State& state, std::size_t elements, std::size_t bytes) {
  using benchmark::Counter;
  const auto rounds = static_cast<double>(state.iterations());
  state.counters["elements"] = Counter(static_cast<double>(elements) * rounds, Counter::kIsRate);
  state.counters["bytes"] = Counter(static_cast<double>(bytes) * rounds, Counter::kIsRate, Counter::kIs1024);
  state.counters["of_roof"] = Counter(static_cast<double>(bytes) * rounds / roof(), Counter::kIsRate);
}

std::vector<float> weights() {
  std::vector<float> out(kElements);
  const Rng rng(1);
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = i < 4096 ? static_cast<float>(rng.normal(i)) : out[i % 4096];
  return out;
}

std::vector<std::byte> blocks_of(GgmlType type) {
  const GgmlTypeInfo& t = info(type);
  std::vector<std::byte> out(kElements / static_cast<std::size_t>(t.block) *
                             static_cast<std::size_t>(t.bytes));
  if (t.writable) {
    quantize_reference(type, weights(), out);
  } else {
    for (std::size_t i = 0; i < out.size(); ++i)
      out[i] = static_cast<std::byte>(i * 2654435761u >> 24 & 0x3f);  // small halves
  }
  return out;
}

void bench_dequantize(benchmark::State& state, GgmlType type) {
  const std::vector<std::byte> blocks = blocks_of(type);
  std::vector<float> values(kElements);
  for (auto _ : state) {
    dequantize(type, blocks, values);
    benchmark::DoNotOptimize(values.data());
  }
  report(state, kElements, blocks.size() + kElements * sizeof(float));
}

void bench_quantize(benchmark::State& state, GgmlType type) {
  const std::vector<float> values = weights();
  std::vector<std::byte> blocks = blocks_of(type);
  for (auto _ : state) {
    quantize_reference(type, values, blocks);
    benchmark::DoNotOptimize(blocks.data());
  }
  report(state, kElements, blocks.size() + kElements * sizeof(float));
}

void bench_sha256(benchmark::State& state, Sha256::Path path) {
  const std::vector<std::byte> data(64 << 20, std::byte{1});
  for (auto _ : state) benchmark::DoNotOptimize(Sha256(path).add(data).hex());
  report(state, data.size(), data.size());
}

}  // namespace
}  // namespace slmc::io

int main(int argc, char** argv) {
  using namespace slmc::io;
  for (GgmlType type : {GgmlType::F16, GgmlType::BF16, GgmlType::Q8_0, GgmlType::Q4_0, GgmlType::Q4_1,
                        GgmlType::Q5_0, GgmlType::Q5_1, GgmlType::Q2_K, GgmlType::Q3_K, GgmlType::Q4_K,
                        GgmlType::Q5_K, GgmlType::Q6_K, GgmlType::IQ4_NL, GgmlType::IQ4_XS}) {
    const std::string name(info(type).name);
    benchmark::RegisterBenchmark(("dequantize/" + name).c_str(), bench_dequantize, type)
        ->Unit(benchmark::kMillisecond);
    if (info(type).writable) {
      benchmark::RegisterBenchmark(("quantize/" + name).c_str(), bench_quantize, type)
          ->Unit(benchmark::kMillisecond);
    }
  }
  benchmark::RegisterBenchmark("sha256/fastest", bench_sha256, slmc::Sha256::Path::Fastest)
      ->Unit(benchmark::kMillisecond);
  benchmark::RegisterBenchmark("sha256/portable", bench_sha256, slmc::Sha256::Path::Portable)
      ->Unit(benchmark::kMillisecond);
  benchmark::Initialize(&argc, argv);
  std::printf("roof: memcpy moves %.1f GB/s (read and written)\n", roof() / 1e9);
  benchmark::RunSpecifiedBenchmarks();
}
