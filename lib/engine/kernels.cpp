#include "engine/kernels.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <c10/core/CPUAllocator.h>
#include <malloc.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/error.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace slmc::engine {
namespace {

Kernels current;

// ---- products ----

void use(Gemm gemm) {
  // "BF16" on the oneDNN side is what selects it; on CPUs that have no bf16 units for it the kernel stays fp32, which `error` verifies.
  const auto precision = gemm == Gemm::OneDnn ? at::Float32Precision::BF16 : at::Float32Precision::NONE;
  at::globalContext().setFloat32Precision(at::Float32Backend::MKLDNN, at::Float32Op::MATMUL, precision);
}

struct Problem {                       // y = x w^T and the gradient of w, as a feed-forward part has them
  at::Tensor x, w, y;
  at::Tensor exact_y, size_y;          // fp64 value and sum |x||w|
};

constexpr std::int64_t kRows = 512, kIn = 576, kOut = 1536;
constexpr double kFlops = 2.0 * kRows * kIn * kOut;

// Reproducible values in [-0.5, 0.5) whose fp32 products are inexact.
at::Tensor values(std::int64_t rows, std::int64_t columns, double step) {
  const at::Tensor phase = at::arange(rows * columns, at::kDouble) * step;
  return (phase - phase.floor() - 0.5).to(at::kFloat).view({rows, columns});
}

Problem make_problem() {
  Problem p;
  p.x = values(kRows, kIn, 0.6180339887498949);
  p.w = values(kOut, kIn, 0.7548776662466927);
  p.y = at::empty({kRows, kOut}, at::kFloat);
  p.exact_y = at::mm(p.x.to(at::kDouble), p.w.to(at::kDouble).t());
  p.size_y = at::mm(p.x.to(at::kDouble).abs(), p.w.to(at::kDouble).abs().t());
  return p;
}

GemmTrial trial(Gemm gemm, const Problem& p) {
  GemmTrial t;
  t.present = gemm == Gemm::Mkl ? at::globalContext().hasMKL() : at::globalContext().hasMKLDNN();
  if (!t.present) return t;
  use(gemm);
  const at::Tensor y = at::linear(p.x, p.w);                                       // also the warm-up
  t.error = ((y.to(at::kDouble) - p.exact_y).abs() / p.size_y).max().item<double>();
  double best = 1e9;
  for (int i = 0; i < 4; ++i) {
    const double start = cpu_seconds();
    (void)at::linear(p.x, p.w);
    (void)at::mm(y.t(), p.x);                                                      // [out, in], the gradient's shape
    best = std::min(best, cpu_seconds() - start);
  }
  t.gflops = 2 * kFlops / best / 1e9;
  return t;
}

// Rates of one core: those of several hang on what else the machine does, and the choice is part of keys.
class OneThread {
 public:
  OneThread() : before_(at::get_num_threads()) { at::set_num_threads(1); }
  ~OneThread() { at::set_num_threads(before_); }

 private:
  int before_;
};

// ---- peak ----

constexpr int kChains = 12;              // independent sums: two units times the latency of a multiply-add, with some to spare
constexpr std::int64_t kTurns = 400'000;

#if defined(__x86_64__)
__attribute__((target("avx512f"), noinline)) double fma_avx512() {
  __m512 sum[kChains];
  for (auto& s : sum) s = _mm512_set1_ps(1.0f);
  const __m512 a = _mm512_set1_ps(0.999999f), b = _mm512_set1_ps(1e-7f);
  for (std::int64_t i = 0; i < kTurns; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) sum[c] = _mm512_fmadd_ps(sum[c], a, b);
  }
  alignas(64) float lanes[16];
  float total = 0;
  for (auto& s : sum) {
    _mm512_store_ps(lanes, s);
    for (const float x : lanes) total += x;
  }
  volatile float keep = total;
  (void)keep;
  return 2.0 * 16 * kChains * kTurns;
}

__attribute__((target("avx2,fma"), noinline)) double fma_avx2() {
  __m256 sum[kChains];
  for (auto& s : sum) s = _mm256_set1_ps(1.0f);
  const __m256 a = _mm256_set1_ps(0.999999f), b = _mm256_set1_ps(1e-7f);
  for (std::int64_t i = 0; i < kTurns; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) sum[c] = _mm256_fmadd_ps(sum[c], a, b);
  }
  alignas(32) float lanes[8];
  float total = 0;
  for (auto& s : sum) {
    _mm256_store_ps(lanes, s);
    for (const float x : lanes) total += x;
  }
  volatile float keep = total;
  (void)keep;
  return 2.0 * 8 * kChains * kTurns;
}
#endif

typedef float Four __attribute__((vector_size(16)));

__attribute__((noinline)) double multiply_add_plain() {
  Four sum[kChains];
  for (auto& s : sum) s = Four{1, 1, 1, 1};
  const Four a = {0.999999f, 0.999999f, 0.999999f, 0.999999f}, b = {1e-7f, 1e-7f, 1e-7f, 1e-7f};
  for (std::int64_t i = 0; i < kTurns; ++i) {
    for (int c = 0; c < kChains; ++c) sum[c] = sum[c] * a + b;
  }
  float total = 0;
  for (auto& s : sum) total += s[0] + s[1] + s[2] + s[3];
  volatile float keep = total;
  (void)keep;
  return 2.0 * 4 * kChains * kTurns;
}

double multiply_adds() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return fma_avx512();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return fma_avx2();
#endif
  return multiply_add_plain();
}

}  // namespace

namespace {

// Memory of tensors straight from malloc, aligned inside; the word before the data is the block's address. The allocator of LibTorch asks for aligned memory, for which glibc cuts slivers
// off both ends of a block; freed, it is then too small for its own size, and the heap of a training run grows by a sixth.
class HeapAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t n) override {
    constexpr std::size_t kAlignment = 64;
    void* block = std::malloc(n + sizeof block + kAlignment);
    TORCH_CHECK(block, "not enough memory for a tensor of ", n, " bytes");
    const auto least = reinterpret_cast<std::uintptr_t>(block) + sizeof block;
    auto* data = reinterpret_cast<void**>((least + kAlignment - 1) / kAlignment * kAlignment);
    data[-1] = block;
    return {data, data, &release, at::kCPU};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t n) const override { default_copy_data(to, from, n); }

 private:
  static void release(void* data) {
    if (data) std::free(static_cast<void**>(data)[-1]);
  }
};

}  // namespace

void keep_pages() {
  c10::SetCPUAllocator(new HeapAllocator, 1);   // it lives as long as the process
  mallopt(M_MMAP_MAX, 0);                // large buffers come from the heap too
  mallopt(M_TRIM_THRESHOLD, -1);         // and its end is never given back
}

std::string to_string(Gemm gemm) { return gemm == Gemm::Mkl ? "mkl" : "onednn"; }

// fp32 sums of n terms err by at most n eps of sum |a||b|, blocked ones by far less; bf16 factors err by 2^-8.
bool GemmTrial::correct() const { return present && error <= 1e-6; }

Kernels choose_kernels(const std::string& wish) {
  const at::NoGradGuard no_grad;
  const OneThread measured_alone;
  const Problem p = make_problem();
  Kernels k;
  k.onednn = trial(Gemm::OneDnn, p);
  k.mkl = trial(Gemm::Mkl, p);
  constexpr double kClearly = 1.15;
  if (wish == "mkl" || wish == "onednn") {
    k.gemm = wish == "mkl" ? Gemm::Mkl : Gemm::OneDnn;
  } else {
    SLMC_CHECK(wish == "auto");
    const bool ahead = k.onednn.correct() && k.onednn.gflops > kClearly * k.mkl.gflops;
    k.gemm = ahead || !k.mkl.correct() ? Gemm::OneDnn : Gemm::Mkl;
  }
  const GemmTrial& chosen = k.gemm == Gemm::Mkl ? k.mkl : k.onednn;
  if (!chosen.correct()) {
    throw Error(ErrorKind::Unsupported,
                "fp32 products by " + to_string(k.gemm) + " must agree with fp64 to 1e-6, but " +
                    (chosen.present ? "differ by " + std::to_string(chosen.error) : "this LibTorch doesn't carry it"),
                "try the other one: --gemm mkl, --gemm onednn");
  }
  use(k.gemm);
  return current = k;
}

Kernels current_kernels() { return current; }

Json to_json(const Kernels& k) {
  return {{"chosen", to_string(k.gemm)},
          {"mkl_gflops", k.mkl.gflops},
          {"onednn_gflops", k.onednn.gflops},
          {"mkl_error", k.mkl.error},
          {"onednn_error", k.onednn.error}};
}

double peak_gflops() {
  double best = 0;
  for (int i = 0; i < 8; ++i) {
    const double start = cpu_seconds();
    const double operations = multiply_adds();
    best = std::max(best, operations / (cpu_seconds() - start) / 1e9);
  }
  return best;
}

double cpu_seconds() {
  rusage r{};
  getrusage(RUSAGE_SELF, &r);
  const auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec); };
  return seconds(r.ru_utime) + seconds(r.ru_stime);
}

namespace {

// "KEY:   123 kB" of /proc/self/status in bytes, 0 when there is none.
std::uint64_t status_bytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.compare(0, key.size(), key) == 0) return std::strtoull(line.c_str() + key.size(), nullptr, 10) * 1024;
  }
  return 0;
}

}  // namespace

std::uint64_t anonymous_bytes() { return status_bytes("RssAnon:"); }

std::uint64_t reserved_bytes() { return status_bytes("VmData:"); }

}  // namespace slmc::engine
