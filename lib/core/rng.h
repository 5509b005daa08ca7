#pragma once
// Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
// The n-th number is a pure function of (seed, stream, n): order, threads and restarts can't change it.
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace slmc {

// One Philox block; known-answer vectors are in the paper's Random123 distribution (tests/unit/core_test.cpp).
std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key);

class Rng {
 public:
  Rng(std::uint64_t seed, std::uint64_t stream = 0);
  std::uint64_t bits(std::uint64_t n) const;                    // the n-th 64-bit number
  double uniform(std::uint64_t n) const;                        // [0, 1), 53 bits
  double normal(std::uint64_t n) const;                         // N(0, 1), Box-Muller on numbers 2n and 2n+1
  std::uint64_t below(std::uint64_t bound, std::uint64_t n) const;   // [0, bound), unbiased to 2^-64 * bound
  std::vector<std::int64_t> permutation(std::int64_t size) const;    // Fisher-Yates, same for every platform

 private:
  std::uint64_t seed_, stream_;
};

// Stage seeds: derive_seed(recipe seed, stage id).
std::uint64_t derive_seed(std::uint64_t seed, std::string_view name);

}  // namespace slmc
