#pragma once
// Continuing a token sequence with a key-value cache. Sampling is a pure function of (logits, settings, seed, position): the same text
// for the same seed, whatever came before.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <set>
#include <vector>

#include "engine/decoder.h"

namespace slmc::engine {

struct Sampling {
  double temperature = 0;        // 0 takes the likeliest token, the first of equals
  std::int64_t top_k = 0;        // only the k likeliest; 0 = all
  double top_p = 1;              // only the likeliest that together hold this share (the one that crosses it included)
  std::uint64_t seed = 0;
};
// logits [vocab] float on the CPU; `position` numbers the draw. Cuts by top_k first, then by top_p, both at the given temperature.
std::int32_t choose(const at::Tensor& logits, const Sampling& sampling, std::uint64_t position);

// A growing sequence. feed() may be called again after generate(): that is a chat.
class Session {
 public:
  Session(Loaded& model, std::int64_t capacity, at::ScalarType dtype, at::Device device);
  std::int64_t length() const { return cache_.length(); }          // tokens that the cache has seen
  void feed(const std::vector<std::int32_t>& ids);                 // at least one

  enum class Stop { Eos, Length, Asked };
  // Appends up to `most` tokens; each goes to `emit` before the next is computed. Ends after a token of `ends` (not emitted), or when
  // `asked` says so. feed() must have come before.
  Stop generate(std::int64_t most, const Sampling& sampling, const std::set<std::int32_t>& ends,
                const std::function<void(std::int32_t)>& emit, const std::function<bool()>& asked);

 private:
  Loaded& model_;
  KvCache cache_;
  at::Device device_;
  at::Tensor next_;                                                // logits of the next token, [vocab], float, on the CPU
};

}  // namespace slmc::engine
