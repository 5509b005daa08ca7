#pragma once
// What this machine computes with: which library multiplies fp32 matrices, how fast, and how memory is kept. Called by programs at
// start-up; everything here is process-wide.
//
// LibTorch carries two GEMM libraries. MKL takes its AVX-512 kernels on CPUs of other makers only when the executable defines
// mkl_serv_intel_cpu_true (apps/slmc-engine/mkl_any_cpu.cpp); oneDNN runs in place of it when fp32 products are allowed bf16 internally,
// which on CPUs without matrix units still computes in full fp32. Neither is taken on trust: both are measured against fp64.
#include <cstdint>
#include <string>

#include "core/json.h"

namespace slmc::engine {

// Keeps freed memory in the process: large buffers come back with their pages, which saves a third of a forward pass. Tensors get theirs
// from malloc in a way that lets freed blocks fit again. Once, before the first tensor.
void keep_pages();

enum class Gemm { Mkl, OneDnn };
std::string to_string(Gemm gemm);            // "mkl", "onednn": the word in keys and checkpoints

struct GemmTrial {
  bool present = false;                      // this LibTorch carries it
  double gflops = 0;                         // fp32 products per CPU second, model-sized, 1e9 operations
  double error = 0;                          // largest difference to fp64, relative to sum |a||b|
  bool correct() const;                      // error within what fp32 sums of that length give
};

struct Kernels {
  Gemm gemm = Gemm::Mkl;
  GemmTrial mkl, onednn;
};

// Measures both on one thread (about 0.1 s of CPU) and makes the faster correct one current; MKL unless oneDNN is clearly ahead, so
// that noise doesn't change keys. `wish`: "auto", "mkl", "onednn"; a wish is kept even when slower. Error(Unsupported) when the wish is
// missing or wrong, or when neither is correct.
Kernels choose_kernels(const std::string& wish);
Kernels current_kernels();                   // of the last choice
Json to_json(const Kernels& kernels);        // {"chosen", "mkl_gflops", "onednn_gflops", "mkl_error", "onednn_error"}

// Raw fp32 fused multiply-adds of one core in registers, 1e9 operations (two per multiply-add) per CPU second: the roof that rates are
// compared with. AVX-512, AVX2 or plain, whichever the CPU has; best of several tries.
double peak_gflops();

double cpu_seconds();                        // user + system time of this process
std::uint64_t anonymous_bytes();             // resident anonymous memory of this process now (RssAnon); 0 where /proc is absent
std::uint64_t reserved_bytes();              // private memory reserved, used or not (VmData): what RLIMIT_DATA counts

}  // namespace slmc::engine
