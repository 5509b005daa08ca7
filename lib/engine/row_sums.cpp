#include "engine/row_sums.h"

#include <cmath>
#include <cstring>

// One body for every vector width: sixteen lanes are one AVX-512 register or several smaller ones. The order of sums is that of
// the lanes, whatever the CPU.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define SLMC_EVERY_CPU __attribute__((target_clones("avx512f", "avx2", "default"), flatten))
#else
#define SLMC_EVERY_CPU
#endif

namespace slmc::engine {
namespace {

constexpr int kLanes = 16;
typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef std::int32_t Ints __attribute__((vector_size(4 * kLanes)));

constexpr float kLowest = -std::numeric_limits<float>::infinity();
constexpr float kZeroBelow = -87.0f;             // exp of less is taken as 0: under 2e-38

// e^x for x <= 0, 0 below kZeroBelow; NaN stays NaN. Cody-Waite reduction and the minimax polynomial of Cephes' expf; error 1 ulp.
inline __attribute__((always_inline)) Floats exp_of(Floats x) {
  const Ints tiny = x < kZeroBelow;
  const Floats y = tiny ? Floats{} : x;
  const Floats magic = Floats{} + 12582912.0f;                       // 1.5 * 2^23: adding it rounds to an integer
  const Floats n = (y * 1.44269504088896341f + magic) - magic;
  const Floats r = (y - n * 0.693359375f) - n * -2.12194440e-4f;     // |r| <= ln(2) / 2
  Floats p = Floats{} + 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const Ints exponent = (__builtin_convertvector(n, Ints) + 127) << 23;
  return tiny ? Floats{} : p * (Floats)exponent;
}

inline __attribute__((always_inline)) Floats load(const float* z, std::int64_t i, std::int64_t n, float rest) {
  Floats v;
  if (i + kLanes <= n) {
    std::memcpy(&v, z + i, sizeof v);
  } else {
    float part[kLanes];
    for (int l = 0; l < kLanes; ++l) part[l] = i + l < n ? z[i + l] : rest;
    std::memcpy(&v, part, sizeof v);
  }
  return v;
}

inline __attribute__((always_inline)) float most_of(const float* z, std::int64_t n) {
  Floats m = Floats{} + kLowest;
  for (std::int64_t i = 0; i < n; i += kLanes) {
    const Floats v = load(z, i, n, kLowest);
    m = v > m ? v : m;
  }
  float most = kLowest;
  for (int l = 0; l < kLanes; ++l) most = m[l] > most ? m[l] : most;
  return most;
}

inline __attribute__((always_inline)) double total(Floats v) {
  double sum = 0;
  for (int l = 0; l < kLanes; ++l) sum += static_cast<double>(v[l]);
  return sum;
}

// A vector of floats adds at most this many times before it is folded into a double.
constexpr std::int64_t kFold = 1024 * kLanes;

SLMC_EVERY_CPU float tile_most(const float* z, std::int64_t n) { return most_of(z, n); }

SLMC_EVERY_CPU double tile_sum(const float* z, std::int64_t n, float most) {
  double sum = 0;
  for (std::int64_t begin = 0; begin < n; begin += kFold) {
    const std::int64_t end = begin + kFold < n ? begin + kFold : n;
    Floats s = Floats{};
    for (std::int64_t i = begin; i < end; i += kLanes) s += exp_of(load(z, i, end, kLowest) - most);
    sum += total(s);
  }
  return sum;
}

SLMC_EVERY_CPU double tile_gap(const float* z_p, const float* z_q, std::int64_t n, float most) {
  double gap = 0;
  for (std::int64_t begin = 0; begin < n; begin += kFold) {
    const std::int64_t end = begin + kFold < n ? begin + kFold : n;
    Floats s = Floats{};
    for (std::int64_t i = begin; i < end; i += kLanes) {
      const Floats p = load(z_p, i, end, kLowest), q = load(z_q, i, end, kLowest);
      const Floats e = exp_of(p - most);
      s += e > 0.0f ? e * (p - q) : Floats{};
    }
    gap += total(s);
  }
  return gap;
}

// Moves a row's sums to a new largest logit; gives the factor that they took.
double rebase(RowSum& row, float most) {
  const double factor = row.most == kLowest ? 0.0 : std::exp(static_cast<double>(row.most) - static_cast<double>(most));
  row.sum *= factor;
  row.most = most;
  return factor;
}

double raise(RowSum& row, const float* z, std::int64_t n, std::int64_t first) {
  const float most = tile_most(z, n);
  if (!(most > row.most)) return 1.0;
  const double factor = rebase(row, most);
  std::int64_t i = 0;
  while (z[i] != most) ++i;
  row.at = first + i;
  return factor;
}

void add_sum(RowSum& row, const float* z, std::int64_t n) {
  if (row.most != kLowest) row.sum += tile_sum(z, n, row.most);
}

}  // namespace

double RowSum::log_sum_exp() const { return static_cast<double>(most) + std::log(sum); }

void add_columns(RowSum& row, const float* z, std::int64_t n, std::int64_t first) {
  raise(row, z, n, first);
  add_sum(row, z, n);
}

double RowDivergence::kl() const { return gap / p.sum - p.log_sum_exp() + q.log_sum_exp(); }

void add_columns(RowDivergence& row, const float* z_p, const float* z_q, std::int64_t n, std::int64_t first) {
  const double factor = raise(row.p, z_p, n, first);
  if (factor != 1.0) row.gap *= factor;
  add_columns(row.q, z_q, n, first);
  add_sum(row.p, z_p, n);
  if (row.p.most != kLowest) row.gap += tile_gap(z_p, z_q, n, row.p.most);
}

}  // namespace slmc::engine
