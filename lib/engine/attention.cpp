#include "engine/attention.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/error.h"
#include "engine/simd.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define SLMC_AVX512 __attribute__((target("avx512f")))
#endif

namespace slmc::engine {

#if defined(__x86_64__)
namespace {

constexpr std::int64_t kVector = 16, kPanel = 64, kRowsOfTile = 6, kRowsOfBlock = 48;

std::int64_t round_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

// ---- products of small matrices ----

// A matrix [rows, columns] as the right side of a product: panels of 64 columns (the last may be narrower), each [rows, width] in one
// piece, so that a product streams through it.
class Panels {
 public:
  Panels(std::int64_t rows, std::int64_t columns) : rows_(rows), columns_(round_up(columns, kVector)), data_(rows_ * columns_) {}
  std::int64_t columns() const { return columns_; }
  std::int64_t width(std::int64_t panel) const { return std::min(kPanel, columns_ - panel * kPanel); }
  float* at(std::int64_t panel) { return data_.data() + panel * kPanel * rows_; }
  const float* at(std::int64_t panel) const { return data_.data() + panel * kPanel * rows_; }

  // Row r of the matrix lies at from + r * stride.
  void fill(const float* from, std::int64_t stride, std::int64_t columns) {
    for (std::int64_t p = 0; p * kPanel < columns_; ++p) {
      const std::int64_t n = std::min(width(p), columns - p * kPanel);
      for (std::int64_t r = 0; r < rows_; ++r) std::memcpy(at(p) + r * width(p), from + r * stride + p * kPanel, n * sizeof(float));
    }
  }
  // Column c of the matrix lies at from + c * stride.
  void fill_transposed(const float* from, std::int64_t stride, std::int64_t columns) {
    for (std::int64_t p = 0; p * kPanel < columns_; ++p) {
      const std::int64_t n = std::min(width(p), columns - p * kPanel), w = width(p);
      for (std::int64_t c = 0; c < n; ++c) {
        const float* column = from + (p * kPanel + c) * stride;
        for (std::int64_t r = 0; r < rows_; ++r) at(p)[r * w + c] = column[r];
      }
    }
  }

 private:
  std::int64_t rows_, columns_;
  std::vector<float> data_;
};

// Left side: element (m, k) at data[m * row + k * step].
struct Left {
  const float* data;
  std::int64_t row, step;
};

// c [R, 16 V] (row stride ldc) = or += a [R, depth] b [depth, 16 V] (row stride ldb)
template <int R, int V>
SLMC_AVX512 inline void tile(float* c, std::int64_t ldc, const Left& a, const float* b, std::int64_t ldb, std::int64_t depth, bool add) {
  __m512 sum[R][V];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) sum[r][v] = add ? _mm512_loadu_ps(c + r * ldc + v * kVector) : _mm512_setzero_ps();
  }
  for (std::int64_t k = 0; k < depth; ++k) {
    __m512 right[V];
    for (int v = 0; v < V; ++v) right[v] = _mm512_loadu_ps(b + k * ldb + v * kVector);
    for (int r = 0; r < R; ++r) {
      const __m512 left = _mm512_set1_ps(a.data[r * a.row + k * a.step]);
      for (int v = 0; v < V; ++v) sum[r][v] = _mm512_fmadd_ps(left, right[v], sum[r][v]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) _mm512_storeu_ps(c + r * ldc + v * kVector, sum[r][v]);
  }
}

template <int R>
SLMC_AVX512 void tile_of(int vectors, float* c, std::int64_t ldc, const Left& a, const float* b, std::int64_t ldb, std::int64_t depth, bool add) {
  switch (vectors) {
    case 1: return tile<R, 1>(c, ldc, a, b, ldb, depth, add);
    case 2: return tile<R, 2>(c, ldc, a, b, ldb, depth, add);
    case 3: return tile<R, 3>(c, ldc, a, b, ldb, depth, add);
    default: return tile<R, 4>(c, ldc, a, b, ldb, depth, add);
  }
}

using TileOf = void (*)(int, float*, std::int64_t, const Left&, const float*, std::int64_t, std::int64_t, bool);
constexpr TileOf kTiles[kRowsOfTile] = {tile_of<1>, tile_of<2>, tile_of<3>, tile_of<4>, tile_of<5>, tile_of<6>};

// c [rows, columns from `first` to `last` of b] = or += a [rows, depth] b [depth, ..]; b's rows start at `skip`. first is a multiple of 64,
// last of 16. c points at the column `first`.
void multiply(float* c, std::int64_t ldc, std::int64_t rows, const Left& a, const Panels& b, std::int64_t first, std::int64_t last,
              std::int64_t skip, std::int64_t depth, bool add) {
  for (std::int64_t column = first; column < last; column += kPanel) {
    const std::int64_t panel = column / kPanel, width = b.width(panel);
    const int vectors = static_cast<int>(std::min(kPanel, last - column) / kVector);
    for (std::int64_t r = 0; r < rows; r += kRowsOfTile) {
      const std::int64_t n = std::min(kRowsOfTile, rows - r);
      kTiles[n - 1](vectors, c + r * ldc + (column - first), ldc, {a.data + r * a.row, a.row, a.step}, b.at(panel) + skip * width, width,
                    depth, add);
    }
  }
}

// ---- rows ----

// s [low, n) holds scores, those in [from, to) count: they become exp(s - most), the others 0. Returns log of the sum, and the sum.
struct Softmax {
  float lse, sum;
};
SLMC_SIMD Softmax softmax_row(float* s, std::int64_t n, std::int64_t from, std::int64_t to) {
  const float most = simd::largest(s + from, to - from);
  for (std::int64_t i = 0; i < from; ++i) s[i] = 0;
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = from; i < to; ++i) {
    s[i] = simd::exp_nonpositive(s[i] - most);
    sum += s[i];
  }
  for (std::int64_t i = to; i < n; ++i) s[i] = 0;
  return {most + std::log(sum), sum};
}

// p becomes probabilities exp(p - lse), d_p becomes p (d_p - product): gradients of scores. Rounding may lift p - lse above 0 a little.
SLMC_SIMD void gradient_row(float* p, float* d_p, std::int64_t n, std::int64_t from, std::int64_t to, float lse, float product) {
  for (std::int64_t i = 0; i < from; ++i) p[i] = d_p[i] = 0;
#pragma omp simd
  for (std::int64_t i = from; i < to; ++i) {
    const float x = p[i] - lse;
    p[i] = simd::exp_nonpositive(x < 0 ? x : 0);
    d_p[i] = p[i] * (d_p[i] - product);
  }
  for (std::int64_t i = to; i < n; ++i) p[i] = d_p[i] = 0;
}

SLMC_SIMD void copy_times(float* to, const float* from, std::int64_t n, float factor) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) to[i] = from[i] * factor;
}

SLMC_SIMD float dot(const float* a, const float* b, std::int64_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// ---- one group of heads of one window ----

// Some positions times the heads of the group; row r is position first_token + r / heads_per_group.
struct Rows {
  std::int64_t token, tokens;         // positions
  std::int64_t count;                 // rows
  std::int64_t low, high;             // keys [low, high): all that any row sees; low multiple of 64, high of 16
};

class Group {
 public:
  Group(const AttentionShape& s, std::int64_t batch, std::int64_t group, const std::int64_t* first)
      : s_(s), batch_(batch), group_(group), first_(first ? first + batch * s.tokens : nullptr), per_group_(s.heads / s.groups),
        positions_(std::max<std::int64_t>(1, kRowsOfBlock / per_group_)), padded_(round_up(s.tokens, kVector)),
        scores_(positions_ * per_group_ * padded_) {}

  std::int64_t heads() const { return per_group_; }
  std::int64_t most_rows() const { return positions_ * per_group_; }
  std::int64_t padded() const { return padded_; }
  float* scores() { return scores_.data(); }
  std::int64_t blocks() const { return (s_.tokens + positions_ - 1) / positions_; }
  std::int64_t first_key(std::int64_t token) const { return first_ ? first_[token] : 0; }
  std::int64_t token_of(const Rows& rows, std::int64_t row) const { return rows.token + row / per_group_; }

  Rows block(std::int64_t i) const {
    Rows rows{i * positions_, std::min(positions_, s_.tokens - i * positions_), 0, 0, 0};
    rows.count = rows.tokens * per_group_;
    rows.low = first_key(rows.token) / kPanel * kPanel;
    rows.high = round_up(rows.token + rows.tokens, kVector);
    return rows;
  }

  // Where this group's entries of a position lie in an array [batch, tokens, of, width]; `count` of them from `index`.
  std::int64_t place(std::int64_t token, std::int64_t of, std::int64_t index, std::int64_t width) const {
    return ((batch_ * s_.tokens + token) * of + index) * width;
  }
  std::int64_t key_place(std::int64_t token, std::int64_t width) const { return place(token, s_.groups, group_, width); }
  std::int64_t query_place(std::int64_t token, std::int64_t width) const { return place(token, s_.heads, group_ * per_group_, width); }
  std::int64_t lse_place(const Rows& rows, std::int64_t row) const {
    return (batch_ * s_.heads + group_ * per_group_ + row % per_group_) * s_.tokens + token_of(rows, row);
  }

  // Rows of an array [batch, tokens, heads, width] times a factor, side by side; and back.
  void gather(const Rows& rows, const float* from, std::int64_t width, float factor, float* to) const {
    for (std::int64_t t = 0; t < rows.tokens; ++t) {
      copy_times(to + t * per_group_ * width, from + query_place(rows.token + t, width), per_group_ * width, factor);
    }
  }
  void scatter(const Rows& rows, const float* from, std::int64_t width, float factor, float* to) const {
    for (std::int64_t t = 0; t < rows.tokens; ++t) {
      copy_times(to + query_place(rows.token + t, width), from + t * per_group_ * width, per_group_ * width, factor);
    }
  }

 private:
  const AttentionShape& s_;
  std::int64_t batch_, group_;
  const std::int64_t* first_;
  std::int64_t per_group_, positions_, padded_;
  std::vector<float> scores_;
};

// Few groups are cut into parts, so that threads have work; row blocks take turns, because late ones see more keys. The number of parts
// follows from the shape alone: sums over parts are the same for any number of threads.
struct Part {
  std::int64_t index, of;
};
std::int64_t parts_of(const AttentionShape& s) { return s.batch * s.groups >= 8 ? 1 : 4; }

void forward_part(const AttentionShape& s, Group g, Part part, const float* q, const float* k, const float* v, float* out, float* lse) {
  const std::int64_t n = s.tokens;
  Panels keys(s.d, n), values(n, s.vd);                                // K^T [d, T], V [T, vd]
  keys.fill_transposed(k + g.key_place(0, s.d), s.groups * s.d, n);
  values.fill(v + g.key_place(0, s.vd), s.groups * s.vd, s.vd);
  std::vector<float> queries(g.most_rows() * s.d), outputs(g.most_rows() * s.vd);
  for (std::int64_t i = part.index; i < g.blocks(); i += part.of) {
    const Rows rows = g.block(i);
    const std::int64_t wide = rows.high - rows.low, seen = std::min(rows.high, n) - rows.low;
    g.gather(rows, q, s.d, static_cast<float>(s.scale), queries.data());
    multiply(g.scores(), wide, rows.count, {queries.data(), s.d, 1}, keys, rows.low, rows.high, 0, s.d, false);
    std::vector<float> sums(rows.count);
    for (std::int64_t r = 0; r < rows.count; ++r) {
      const std::int64_t token = g.token_of(rows, r);
      const Softmax row = softmax_row(g.scores() + r * wide, wide, g.first_key(token) - rows.low, token + 1 - rows.low);
      lse[g.lse_place(rows, r)] = row.lse;
      sums[r] = row.sum;
    }
    multiply(outputs.data(), s.vd, rows.count, {g.scores(), wide, 1}, values, 0, s.vd, rows.low, seen, false);
    for (std::int64_t r = 0; r < rows.count; ++r) copy_times(&outputs[r * s.vd], &outputs[r * s.vd], s.vd, 1.0f / sums[r]);
    g.scatter(rows, outputs.data(), s.vd, 1.0f, out);
  }
}

// Sums over the rows of one part: dK [padded T, d], dV [padded T, vd].
struct KeyGradients {
  std::vector<float> k, v;
};

KeyGradients backward_part(const AttentionShape& s, Group g, Part part, const float* q, const float* k, const float* v, const float* out,
                           const float* lse, const float* d_out, float* d_q) {
  const std::int64_t n = s.tokens, most = g.most_rows();
  Panels keys(s.d, n), key_rows(n, s.d), values(s.vd, n), row_queries(most, s.d), row_gradients(most, s.vd);
  keys.fill_transposed(k + g.key_place(0, s.d), s.groups * s.d, n);
  key_rows.fill(k + g.key_place(0, s.d), s.groups * s.d, s.d);
  values.fill_transposed(v + g.key_place(0, s.vd), s.groups * s.vd, n);
  std::vector<float> queries(most * s.d), d_queries(most * s.d), outputs(most * s.vd), d_outputs(most * s.vd), d_scores(most * g.padded());
  KeyGradients sums{std::vector<float>(g.padded() * s.d), std::vector<float>(g.padded() * s.vd)};
  for (std::int64_t i = part.index; i < g.blocks(); i += part.of) {
    const Rows rows = g.block(i);
    const std::int64_t wide = rows.high - rows.low, seen = std::min(rows.high, n) - rows.low;
    g.gather(rows, q, s.d, static_cast<float>(s.scale), queries.data());
    g.gather(rows, out, s.vd, 1.0f, outputs.data());
    g.gather(rows, d_out, s.vd, 1.0f, d_outputs.data());
    row_queries.fill(queries.data(), s.d, s.d);
    row_gradients.fill(d_outputs.data(), s.vd, s.vd);
    multiply(g.scores(), wide, rows.count, {queries.data(), s.d, 1}, keys, rows.low, rows.high, 0, s.d, false);
    multiply(d_scores.data(), wide, rows.count, {d_outputs.data(), s.vd, 1}, values, rows.low, rows.high, 0, s.vd, false);
    for (std::int64_t r = 0; r < rows.count; ++r) {
      const std::int64_t token = g.token_of(rows, r);
      gradient_row(g.scores() + r * wide, &d_scores[r * wide], wide, g.first_key(token) - rows.low, token + 1 - rows.low,
                   lse[g.lse_place(rows, r)], dot(&d_outputs[r * s.vd], &outputs[r * s.vd], s.vd));
    }
    multiply(d_queries.data(), s.d, rows.count, {d_scores.data(), wide, 1}, key_rows, 0, s.d, rows.low, seen, false);
    multiply(&sums.k[rows.low * s.d], s.d, seen, {d_scores.data(), 1, wide}, row_queries, 0, s.d, 0, rows.count, true);
    multiply(&sums.v[rows.low * s.vd], s.vd, seen, {g.scores(), 1, wide}, row_gradients, 0, s.vd, 0, rows.count, true);
    g.scatter(rows, d_queries.data(), s.d, static_cast<float>(s.scale), d_q);
  }
  return sums;
}

// Adds up the parts of one group, in order, into arrays [batch, tokens, groups, width].
void add_parts(const AttentionShape& s, const Group& g, std::vector<KeyGradients>::const_iterator parts, std::int64_t count, float* d_k,
               float* d_v) {
  for (std::int64_t t = 0; t < s.tokens; ++t) {
    float *k = d_k + g.key_place(t, s.d), *v = d_v + g.key_place(t, s.vd);
    std::memcpy(k, &parts[0].k[t * s.d], s.d * sizeof(float));
    std::memcpy(v, &parts[0].v[t * s.vd], s.vd * sizeof(float));
    for (std::int64_t p = 1; p < count; ++p) {
      for (std::int64_t i = 0; i < s.d; ++i) k[i] += parts[p].k[t * s.d + i];
      for (std::int64_t i = 0; i < s.vd; ++i) v[i] += parts[p].v[t * s.vd + i];
    }
  }
}

// body(task) for each of n tasks, each from one thread.
template <typename Body>
void for_tasks(std::int64_t n, Body body) {
  at::parallel_for(0, n, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) body(i);
  });
}

}  // namespace

bool attention_supported(const AttentionShape& s) {
  static const bool avx512 = __builtin_cpu_supports("avx512f");
  return avx512 && s.d % kVector == 0 && s.vd % kVector == 0 && s.groups > 0 && s.heads % s.groups == 0;
}

void attention_forward(const AttentionShape& s, const float* q, const float* k, const float* v, const std::int64_t* first, float* out,
                       float* lse) {
  SLMC_CHECK(attention_supported(s));
  const std::int64_t parts = parts_of(s);
  for_tasks(s.batch * s.groups * parts, [&](std::int64_t i) {
    const std::int64_t group = i / parts;
    forward_part(s, Group(s, group / s.groups, group % s.groups, first), {i % parts, parts}, q, k, v, out, lse);
  });
}

void attention_backward(const AttentionShape& s, const float* q, const float* k, const float* v, const std::int64_t* first, const float* out,
                        const float* lse, const float* d_out, float* d_q, float* d_k, float* d_v) {
  SLMC_CHECK(attention_supported(s));
  const std::int64_t parts = parts_of(s), groups = s.batch * s.groups;
  const auto group_at = [&](std::int64_t i) { return Group(s, i / s.groups, i % s.groups, first); };
  if (parts == 1) {
    return for_tasks(groups, [&](std::int64_t i) {
      const std::vector<KeyGradients> whole{backward_part(s, group_at(i), {0, 1}, q, k, v, out, lse, d_out, d_q)};
      add_parts(s, group_at(i), whole.begin(), 1, d_k, d_v);
    });
  }
  std::vector<KeyGradients> sums(groups * parts);
  for_tasks(groups * parts, [&](std::int64_t i) {
    sums[i] = backward_part(s, group_at(i / parts), {i % parts, parts}, q, k, v, out, lse, d_out, d_q);
  });
  for_tasks(groups, [&](std::int64_t i) { add_parts(s, group_at(i), sums.begin() + i * parts, parts, d_k, d_v); });
}

#else

bool attention_supported(const AttentionShape&) { return false; }
void attention_forward(const AttentionShape&, const float*, const float*, const float*, const std::int64_t*, float*, float*) {
  internal_error(__FILE__, __LINE__, "attention_supported");
}
void attention_backward(const AttentionShape&, const float*, const float*, const float*, const std::int64_t*, const float*, const float*,
                        const float*, float*, float*, float*) {
  internal_error(__FILE__, __LINE__, "attention_supported");
}

#endif

}  // namespace slmc::engine
