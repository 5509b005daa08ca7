// Moving the elements of tensors: out of stored form, along kept entries, into another stored type.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/bytes.h"
#include "core/error.h"
#include "io/ggml_types.h"
#include "io/gguf.h"
#include "ir/packed.h"
#include "ir/state.h"

namespace slmc::ir {
namespace {

using io::Quantized;
using io::TensorData;

std::int64_t product(const std::vector<std::int64_t>& shape) {
  std::int64_t n = 1;
  for (const std::int64_t s : shape) n *= s;
  return n;
}

bool aligned(const TensorData& data) {
  return reinterpret_cast<std::uintptr_t>(data.bytes.data()) % size_of(data.dtype) == 0;
}

// Rows of a quantized tensor as units: codes move `columns` at a time, scales and mins `columns / group`.
template <class Move>
Quantized move_rows(const Quantized& q, std::int64_t columns, std::int64_t rows, const Move& move) {
  const auto groups = static_cast<std::size_t>(columns / q.scheme.group);
  Quantized r;
  r.scheme = q.scheme;
  r.codes.resize(static_cast<std::size_t>(rows * columns));
  r.scales.resize(static_cast<std::size_t>(rows) * groups);
  if (!q.mins.empty()) r.mins.resize(r.scales.size());
  move([&](std::int64_t from, std::int64_t to, std::int64_t count) {
    const auto f = static_cast<std::size_t>(from), t = static_cast<std::size_t>(to),
               n = static_cast<std::size_t>(count);
    const auto c = static_cast<std::size_t>(columns);
    std::copy_n(q.codes.begin() + static_cast<std::ptrdiff_t>(f * c), n * c,
                r.codes.begin() + static_cast<std::ptrdiff_t>(t * c));
    std::copy_n(q.scales.begin() + static_cast<std::ptrdiff_t>(f * groups), n * groups,
                r.scales.begin() + static_cast<std::ptrdiff_t>(t * groups));
    if (!q.mins.empty())
      std::copy_n(q.mins.begin() + static_cast<std::ptrdiff_t>(f * groups), n * groups,
                  r.mins.begin() + static_cast<std::ptrdiff_t>(t * groups));
  });
  return r;
}

// Whole groups kept in order? Then columns can move without decoding. Gives the kept groups.
std::optional<std::vector<std::int64_t>> whole_groups(const std::vector<std::int64_t>& kept,
                                                      std::int64_t group) {
  const auto g = static_cast<std::size_t>(group);
  if (kept.size() % g != 0) return std::nullopt;
  std::vector<std::int64_t> groups;
  for (std::size_t i = 0; i < kept.size(); i += g) {
    if (kept[i] % group != 0) return std::nullopt;
    for (std::size_t j = 1; j < g; ++j)
      if (kept[i + j] != kept[i] + static_cast<std::int64_t>(j)) return std::nullopt;
    groups.push_back(kept[i] / group);
  }
  return groups;
}

Quantized take_groups(const Quantized& q, std::int64_t columns, std::int64_t rows,
                      const std::vector<std::int64_t>& groups) {
  const std::int64_t group = q.scheme.group, old_groups = columns / group;
  Quantized r;
  r.scheme = q.scheme;
  for (std::int64_t row = 0; row < rows; ++row)
    for (const std::int64_t g : groups) {
      const auto code = q.codes.begin() + static_cast<std::ptrdiff_t>(row * columns + g * group);
      r.codes.insert(r.codes.end(), code, code + static_cast<std::ptrdiff_t>(group));
      const auto at = static_cast<std::size_t>(row * old_groups + g);
      r.scales.push_back(q.scales[at]);
      if (!q.mins.empty()) r.mins.push_back(q.mins[at]);
    }
  return r;
}

TensorData take_dense(const TensorData& data, const std::vector<Index>& indices,
                      std::vector<std::int64_t> shape) {
  const std::size_t size = size_of(data.dtype);
  const std::int64_t columns = data.shape.back();
  const bool vector = data.shape.size() == 1;
  const Index& rows_kept = indices[0];
  const Index none;
  const Index& columns_kept = vector ? none : indices[1];
  std::vector<std::byte> bytes(static_cast<std::size_t>(product(shape)) * size);
  const std::int64_t rows = shape[0];
  const std::int64_t row_entries = vector ? 1 : columns;
  std::byte* out = bytes.data();
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t from = rows_kept ? (*rows_kept)[static_cast<std::size_t>(r)] : r;
    const std::byte* row = data.bytes.data() + static_cast<std::size_t>(from * row_entries) * size;
    if (!columns_kept) {
      std::memcpy(out, row, static_cast<std::size_t>(row_entries) * size);
      out += static_cast<std::size_t>(row_entries) * size;
      continue;
    }
    for (const std::int64_t c : *columns_kept) {
      std::memcpy(out, row + static_cast<std::size_t>(c) * size, size);
      out += size;
    }
  }
  return TensorData::dense(std::move(shape), data.dtype, std::move(bytes));
}

template <class Bits>
bool all_finite(std::span<const std::byte> bytes, Bits exponent) {
  bool bad = false;
  for (std::size_t i = 0; i + sizeof(Bits) <= bytes.size(); i += sizeof(Bits)) {
    Bits x;
    std::memcpy(&x, bytes.data() + i, sizeof x);
    bad |= (x & exponent) == exponent;
  }
  return !bad;
}

bool all_finite(const std::vector<float>& values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}

}  // namespace

TensorData extract(const TensorData& data, const Part& part, const std::vector<std::int64_t>& shape,
                   double add) {
  const std::int64_t count = product(shape);
  if (add != 0) {
    Part same = part;
    TensorData plain = extract(data, same, shape, 0);
    std::vector<float> values = plain.to_floats();
    for (float& v : values) v = static_cast<float>(static_cast<double>(v) + add);
    return TensorData::floats(shape, values);
  }
  const std::optional<std::int64_t> run = contiguous_run(part);
  if (data.quantized) {
    const std::int64_t columns = data.shape.back();
    if (run && *run == 0 && count == data.count() && data.shape == shape) return data;
    if (moves_rows(part, columns, shape.back())) {
      const Part rows = in_units(part, columns);
      Quantized q = move_rows(*data.quantized, columns, count / columns,
                              [&](const auto& copy) { visit_runs(rows, copy); });
      return TensorData::of(shape, std::move(q));
    }
    return extract(TensorData::floats(data.shape, data.to_floats()), part, shape, 0);
  }
  const std::size_t size = size_of(data.dtype);
  if (run) {
    TensorData view = data;
    view.shape = shape;
    view.bytes =
        data.bytes.subspan(static_cast<std::size_t>(*run) * size, static_cast<std::size_t>(count) * size);
    if (aligned(view)) return view;
    return TensorData::dense(shape, data.dtype, std::vector<std::byte>(view.bytes.begin(), view.bytes.end()));
  }
  std::vector<std::byte> bytes(static_cast<std::size_t>(count) * size);
  gather(part, size, data.bytes, bytes);
  return TensorData::dense(shape, data.dtype, std::move(bytes));
}

TensorData take(const TensorData& data, const std::vector<Index>& indices) {
  SLMC_CHECK(indices.size() == data.shape.size());
  std::vector<std::int64_t> shape = data.shape;
  bool all = true;
  for (std::size_t d = 0; d < indices.size(); ++d)
    if (indices[d]) {
      shape[d] = static_cast<std::int64_t>(indices[d]->size());
      all = false;
    }
  if (all) return data;
  if (!data.quantized) return take_dense(data, indices, std::move(shape));
  const Quantized& q = *data.quantized;
  const std::int64_t columns = data.shape.back();
  const Index& columns_kept = indices.back();
  std::optional<std::vector<std::int64_t>> groups;
  if (columns_kept) {
    groups = whole_groups(*columns_kept, q.scheme.group);
    if (!groups)
      return take_dense(TensorData::floats(data.shape, data.to_floats()), indices, std::move(shape));
  }
  const bool vector = data.shape.size() == 1;
  const std::int64_t rows = vector ? 1 : shape[0];
  Quantized kept = move_rows(q, columns, rows, [&](const auto& copy) {
    if (vector || !indices[0]) return copy(0, 0, rows);
    for (std::int64_t r = 0; r < rows; ++r) copy((*indices[0])[static_cast<std::size_t>(r)], r, 1);
  });
  if (groups) kept = take_groups(kept, columns, rows, *groups);
  return TensorData::of(std::move(shape), std::move(kept));
}

TensorData stored_as(const TensorData& data, const std::string& format, const std::string& name) {
  if (format == kPacked) {
    if (data.quantized) return data;
    throw Error(ErrorKind::Recipe, "the codes of '" + name + "' must be stored as they are, but the container folds a factor into them");
  }
  if (const std::optional<DType> dtype = dtype_from(format)) {
    if (!data.quantized && data.dtype == *dtype) return data;
    const std::vector<float> values = data.to_floats();
    std::vector<std::byte> bytes(values.size() * size_of(*dtype));
    from_f32(*dtype, values, bytes);
    return TensorData::dense(data.shape, *dtype, std::move(bytes));
  }
  const io::GgmlTypeInfo* type = io::ggml_type(std::string_view(format));
  if (!type || !type->writable)
    throw Error(ErrorKind::Recipe,
                "the stored type must be F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0 or Q5_1, but is '" + format +
                    "' for " + name);
  if (type->block == 1)
    return stored_as(data,
                     type->type == io::GgmlType::F32   ? "F32"
                     : type->type == io::GgmlType::F16 ? "F16"
                                                       : "BF16",
                     name);
  if (data.quantized && data.quantized->scheme == io::scheme_of(type->type)) return data;
  return TensorData::of(data.shape, io::unpack_blocks(type->type, io::encode(data, type->type, name)));
}

void require_finite(const TensorData& data, const std::string& name, const std::string& source) {
  bool good = true;
  if (data.quantized) {
    good = all_finite(data.quantized->scales) && all_finite(data.quantized->mins);
  } else {
    switch (data.dtype) {
      case DType::F64: good = all_finite<std::uint64_t>(data.bytes, 0x7ff0000000000000ull); break;
      case DType::F32: good = all_finite<std::uint32_t>(data.bytes, 0x7f800000u); break;
      case DType::F16: good = all_finite<std::uint16_t>(data.bytes, 0x7c00); break;
      case DType::BF16: good = all_finite<std::uint16_t>(data.bytes, 0x7f80); break;
      default: good = all_finite(data.to_floats()); break;
    }
  }
  if (!good)
    throw Error(ErrorKind::Model, Place{source, 0, 0, 1, {}},
                "the values of '" + name + "' must be finite, but some are NaN or infinite");
}

}  // namespace slmc::ir
