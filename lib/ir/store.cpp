#include "ir/store.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/bytes.h"
#include "core/error.h"
#include "ir/packed.h"
#include "ir/plan.h"
#include "ir/state.h"

namespace slmc::ir {
namespace {

using io::Quantized;
using io::TensorData;

// Where a factor on q . k goes: into the gain of the query norm when there is one (it undoes what is before
// it), else into the queries.
bool takes_scale(const Model& model, const TensorSpec& spec) {
  if (spec.block < 0) return false;
  const std::string q = "block." + std::to_string(spec.block) + ".attn.q";
  if (model.has(q + "_norm")) return spec.name == q + "_norm";
  return spec.name == q || spec.name == q + ".bias";
}

TensorData scaled(const TensorData& data, double factor) {
  if (!data.quantized && data.dtype == DType::F64) {
    std::vector<double> values(static_cast<std::size_t>(data.count()));
    std::memcpy(values.data(), data.bytes.data(), data.bytes.size());
    for (double& v : values) v *= factor;
    std::vector<std::byte> bytes(data.bytes.size());
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return TensorData::dense(data.shape, DType::F64, std::move(bytes));
  }
  std::vector<float> values = data.to_floats();
  for (float& v : values) v = static_cast<float>(static_cast<double>(v) * factor);
  return TensorData::floats(data.shape, values);
}

std::int64_t product(const std::vector<std::int64_t>& shape) {
  std::int64_t n = 1;
  for (const std::int64_t s : shape) n *= s;
  return n;
}

// Quantized parts whose rows move whole: codes, scales and mins are scattered without being decoded.
std::optional<TensorData> scatter_rows(const StoredTensor& stored, const std::vector<TensorData>& parts) {
  const std::int64_t columns = stored.shape.back();
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (!parts[i].quantized || !(parts[i].quantized->scheme == parts[0].quantized->scheme))
      return std::nullopt;
    if (!moves_rows(stored.parts[i], columns, parts[i].shape.back())) return std::nullopt;
  }
  const io::QuantScheme scheme = parts[0].quantized->scheme;
  const std::int64_t groups = columns / scheme.group;
  Quantized out;
  out.scheme = scheme;
  out.codes.resize(static_cast<std::size_t>(product(stored.shape)));
  out.scales.resize(out.codes.size() / static_cast<std::size_t>(scheme.group));
  if (!parts[0].quantized->mins.empty()) out.mins.resize(out.scales.size());
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Quantized& q = *parts[i].quantized;
    visit_runs(
        in_units(stored.parts[i], columns), [&](std::int64_t to, std::int64_t from, std::int64_t rows) {
          std::copy_n(q.codes.begin() + from * columns, rows * columns, out.codes.begin() + to * columns);
          std::copy_n(q.scales.begin() + from * groups, rows * groups, out.scales.begin() + to * groups);
          if (!q.mins.empty())
            std::copy_n(q.mins.begin() + from * groups, rows * groups, out.mins.begin() + to * groups);
        });
  }
  return TensorData::of(stored.shape, std::move(out));
}

TensorData scatter_dense(const StoredTensor& stored, const std::vector<TensorData>& parts) {
  const DType dtype = parts[0].dtype;
  const std::size_t size = size_of(dtype);
  std::vector<std::byte> bytes(static_cast<std::size_t>(product(stored.shape)) * size);
  for (std::size_t i = 0; i < parts.size(); ++i) scatter(stored.parts[i], size, parts[i].bytes, bytes);
  return TensorData::dense(stored.shape, dtype, std::move(bytes));
}

bool whole(const StoredTensor& stored) {
  if (stored.parts.size() != 1) return false;
  const std::optional<std::int64_t> run = contiguous_run(stored.parts[0]);
  return run && *run == 0;
}

// First index where two tensors differ as values, or nothing.
std::optional<std::size_t> first_difference(const TensorData& a, const TensorData& b) {
  if (a.quantized && b.quantized) {
    if (*a.quantized == *b.quantized) return std::nullopt;
  } else if (!a.quantized && !b.quantized && a.dtype == b.dtype && a.bytes.size() == b.bytes.size()) {
    if (std::memcmp(a.bytes.data(), b.bytes.data(), a.bytes.size()) == 0) return std::nullopt;
  }
  const std::vector<float> x = a.to_floats(), y = b.to_floats();
  for (std::size_t i = 0; i < std::min(x.size(), y.size()); ++i)
    if (!(x[i] == y[i])) return i;
  return x.size() == y.size() ? std::nullopt : std::optional(std::min(x.size(), y.size()));
}

}  // namespace

Fit require_fit(const Model& model, const std::string& container) {
  const bool own = model.container() == container;
  Fit result = fit(facts_of(model.state()), container, own ? &model.config() : nullptr);
  if (!result.violations.empty()) {
    Verdict verdict;
    verdict.cannot[container] = result.violations;
    require_ok(verdict, container);
  }
  return result;
}

TensorData intended(const Model& model, const TensorSpec& spec, const Fit& fit, const std::string& type) {
  TensorData data = model.read(spec.name);
  if (fit.fold_q != 1 && takes_scale(model, spec)) data = scaled(data, fit.fold_q);
  return stored_as(data, type, spec.name);
}

TensorData stored_form(const Model& model, const StoredTensor& stored, const Fit& fit,
                       const TypeOf& type_of) {
  std::vector<TensorData> parts;
  std::string type;
  for (const Part& part : stored.parts) {
    const TensorSpec& spec = *model.find(part.tensor);
    const std::string own = type_of(spec);
    if (!type.empty() && own != type)
      throw Error(ErrorKind::Recipe, "the parts of '" + stored.name + "' must have one stored type, but '" +
                                         part.tensor + "' is " + own + " and the one before it " + type);
    type = own;
    parts.push_back(intended(model, spec, fit, type));
  }
  if (stored.add != 0)
    for (TensorData& part : parts) {
      std::vector<float> values = part.to_floats();
      for (float& v : values) v = static_cast<float>(static_cast<double>(v) - stored.add);
      part = stored_as(TensorData::floats(part.shape, values), type, stored.name);
    }
  if (whole(stored)) {
    TensorData same = parts[0];
    same.shape = stored.shape;
    return same;
  }
  if (parts[0].quantized) {
    if (std::optional<TensorData> rows = scatter_rows(stored, parts)) return *rows;
    if (type == kPacked)
      throw Error(ErrorKind::Recipe, "'" + stored.name + "' must be made of whole quantized rows of one scheme to be packed, but is not",
                  "this family stores its matrices in another form; take to: gguf");
    for (TensorData& part : parts) part = TensorData::floats(part.shape, part.to_floats());
    return stored_as(scatter_dense(stored, parts), type, stored.name);
  }
  return scatter_dense(stored, parts);
}

void require_read_back(const std::string& path, const Model& model, const Fit& fit, const TypeOf& type_of) {
  const auto fail = [&](const std::string& what) {
    throw Error(ErrorKind::Resource, Place{path, 0, 0, 1, {}},
                "what was written must read back equal, but " + what, "check the disk, then try again");
  };
  const Model again = load_with(path, model.state().templates);
  if (!(again.sizes() == model.sizes())) fail("its sizes differ");
  if (!(again.decoder() == fit.decoder)) fail("its decoder options differ");
  for (const TensorSpec& spec : model.tensors()) {
    if (spec.derived) continue;
    if (!again.has(spec.name)) fail("'" + spec.name + "' is missing");
    const TensorData wanted = intended(model, spec, fit, type_of(spec)), found = again.read(spec.name);
    if (wanted.shape != found.shape) fail("'" + spec.name + "' is " + shape_text(found.shape));
    if (const auto i = first_difference(wanted, found))
      fail("'" + spec.name + "' differs at element " + std::to_string(*i));
  }
  for (const TensorSpec& spec : again.tensors())
    if (!model.has(spec.name)) fail("'" + spec.name + "' was not in the model");
}

}  // namespace slmc::ir
