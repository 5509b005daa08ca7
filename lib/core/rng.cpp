#include "core/rng.h"

#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "core/hash.h"

namespace slmc {

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  constexpr std::uint64_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;  // the paper, table 2
  constexpr std::uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;              // golden ratio, sqrt(3) - 1
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = kMultiplier0 * counter[0], p1 = kMultiplier1 * counter[2];
    counter = {static_cast<std::uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(p1),
               static_cast<std::uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(p0)};
    key = {key[0] + kWeyl0, key[1] + kWeyl1};
  }
  return counter;
}

namespace {

std::uint32_t low(std::uint64_t x) { return static_cast<std::uint32_t>(x); }
std::uint32_t high(std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); }

}  // namespace

Rng::Rng(std::uint64_t seed, std::uint64_t stream) : seed_(seed), stream_(stream) {}

// One block gives two numbers: words 0-1 for even n, 2-3 for odd n.
std::uint64_t Rng::bits(std::uint64_t n) const {
  const std::uint64_t block = n / 2;
  const auto words =
      philox({low(block), high(block), low(stream_), high(stream_)}, {low(seed_), high(seed_)});
  const std::size_t at = n % 2 * 2;
  return words[at] | static_cast<std::uint64_t>(words[at + 1]) << 32;
}

double Rng::uniform(std::uint64_t n) const { return static_cast<double>(bits(n) >> 11) * 0x1p-53; }

double Rng::normal(std::uint64_t n) const {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform(2 * n)));  // 1 - u lies in (0, 1]
  return radius * std::cos(2.0 * std::numbers::pi * uniform(2 * n + 1));
}

std::uint64_t Rng::below(std::uint64_t bound, std::uint64_t n) const {
  SLMC_CHECK(bound > 0);
  __extension__ using Wide = unsigned __int128;
  return static_cast<std::uint64_t>(static_cast<Wide>(bits(n)) * bound >> 64);
}

std::vector<std::int64_t> Rng::permutation(std::int64_t size) const {
  std::vector<std::int64_t> out(static_cast<std::size_t>(size));
  std::iota(out.begin(), out.end(), 0);
  for (std::size_t i = out.size(); i > 1; --i) std::swap(out[i - 1], out[below(i, i)]);
  return out;
}

std::uint64_t derive_seed(std::uint64_t seed, std::string_view name) {
  const std::string hex = Sha256().add_number(seed).add(name).hex();
  return std::stoull(hex.substr(0, 16), nullptr, 16);
}

}  // namespace slmc
