#pragma once
// Rotary frequencies: how a config's rotary keys become angular frequencies per pair, in fp64, and back.
//   default   w_i = theta^(-i/n),  i = 0 .. n-1, n pairs                     [Su et al. 2021,
//   arXiv:2104.09864, eq. 15] linear    w_i / factor                                                   [Chen
//   et al. 2023, arXiv:2306.15595] llama3    long waves slowed by `factor`, short ones kept, a ramp between
//   (Hugging Face `_compute_llama3_parameters`) custom    given one by one (a model whose pairs were cut)
// Everything else (yarn, longrope, dynamic) is Error(Unsupported) by name.
#include <cstdint>
#include <string>
#include <vector>

#include "core/json.h"

namespace slmc::ir {

struct Rope {
  std::string type = "none";  // none (no rotation), default, linear, llama3, custom
  double theta = 10000;
  double factor = 1;          // linear, llama3
  double low = 1, high = 4;   // llama3
  std::int64_t original = 0;  // llama3: context of the pretraining, tokens
  std::vector<double> own;    // custom
  bool operator==(const Rope&) const = default;
};

std::vector<double> frequencies(const Rope& rope, std::int64_t pairs);

// `scaling` is `rope_parameters` of transformers 5, `rope_scaling` of older ones, or null. `original` stands
// in for a missing original_max_position_embeddings. Keys that are not understood are Error(Unsupported).
Rope rope_from_json(const Json& scaling, double theta, std::int64_t original, const std::string& file);
Json to_json(const Rope& rope);  // rope_parameters of transformers 5, without the partial factor

// Divisors of the default frequencies, as GGUF's rope_freqs.weight holds them.
std::vector<float> rope_factors(const Rope& rope, std::int64_t pairs);
// The rope behind such divisors: llama3's parameters when they explain every one to float precision, else
// custom.
Rope rope_from_factors(const std::vector<float>& factors, double theta);

}  // namespace slmc::ir
