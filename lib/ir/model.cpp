#include "ir/model.h"

#include <cstring>
#include <nlohmann/json.hpp>

#include "core/bytes.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/units.h"
#include "ir/state.h"

namespace slmc::ir {
namespace {

// Rotary frequencies of a block, [freq] fp64.
io::TensorData rope_tensor(const Rope& rope, std::int64_t pairs) {
  const std::vector<double> w = frequencies(rope, pairs);
  std::vector<std::byte> bytes(w.size() * sizeof(double));
  std::memcpy(bytes.data(), w.data(), bytes.size());
  return io::TensorData::dense({pairs}, DType::F64, std::move(bytes));
}

std::string decoder_text(const Model::State& s) {
  const Decoder& d = s.decoder;
  std::string text =
      s.arch->family + ";" + std::to_string(static_cast<int>(d.norm)) + ";" + format_number(d.norm_eps) +
      ";" + to_string(d.activation) + ";" + std::to_string(d.gated) + std::to_string(d.parallel_residual) +
      std::to_string(d.tied_head) + ";" + format_number(d.attn_scale) + ";" + format_number(d.rope_factor) +
      ";" + (d.window ? std::to_string(*d.window) : "-") + ";" + std::to_string(d.context) + ";";
  for (const bool b : d.window_blocks) text += b ? '1' : '0';
  if (d.pos_offset > 0) text += ";+" + std::to_string(d.pos_offset);
  text += ";" + std::to_string(s.sizes.vocab) + ";" + std::to_string(s.sizes.hidden) + ";" +
          std::to_string(s.sizes.pos);
  for (const BlockSizes& b : s.sizes.blocks)
    for (const std::int64_t n : {b.kv, b.q, b.freq, b.pass, b.vd, b.ffn}) text += "," + std::to_string(n);
  return text;
}

// Values in fp32; what fp64 holds beyond is hashed after it, when there is any. So F32, BF16 and quantized
// forms of equal values agree.
void hash_values(Sha256& hash, const io::TensorData& data) {
  const std::vector<float> values = data.to_floats();
  hash.add(std::as_bytes(std::span(values)));
  if (data.quantized || data.dtype != DType::F64) return;
  bool exact = true;
  std::vector<double> rest(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    double x = 0;
    std::memcpy(&x, data.bytes.data() + i * sizeof x, sizeof x);
    rest[i] = x - static_cast<double>(values[i]);
    exact = exact && rest[i] == 0;
  }
  if (!exact) hash.add(std::as_bytes(std::span(rest)));
}

}  // namespace

const Decoder& Model::decoder() const { return state_->decoder; }
const Sizes& Model::sizes() const { return state_->sizes; }
const Template& Model::arch() const { return *state_->arch; }
const std::string& Model::family() const { return state_->arch->family; }
const std::string& Model::source() const { return state_->source; }
const std::string& Model::container() const { return state_->container; }
const std::vector<TensorSpec>& Model::tensors() const { return state_->tensors; }
const Json& Model::config() const { return state_->config; }
const std::optional<text::Tokenizer>& Model::tokenizer() const { return state_->tokenizer; }
const std::map<std::string, std::string>& Model::side_files() const { return state_->side_files; }
const Origin& Model::origin() const { return state_->origin; }
const Json& Model::lineage() const { return state_->lineage; }

const TensorSpec* Model::find(std::string_view name) const {
  const auto it = state_->by_name.find(name);
  return it == state_->by_name.end() ? nullptr : &state_->tensors[it->second];
}

io::TensorData Model::read(std::string_view name) const {
  const auto it = state_->by_name.find(name);
  if (it == state_->by_name.end()) {
    std::vector<std::string> names;
    for (const TensorSpec& t : state_->tensors) names.push_back(t.name);
    const std::string near = closest(name, names);
    throw Error(ErrorKind::Model,
                "the tensor must be one that " + state_->source + " has, but is '" + std::string(name) + "'",
                near.empty() ? "" : "did you mean '" + near + "'?");
  }
  const TensorSpec& spec = state_->tensors[it->second];
  if (spec.derived) return rope_tensor(state_->ropes[static_cast<std::size_t>(spec.block)], spec.shape[0]);
  const Value& value = state_->values[it->second];
  if (!value.base)
    throw Error(ErrorKind::Model,
                "'" + spec.name + "' must have values to be read, but this model is shapes only");
  io::TensorData data = value.base();
  require_finite(data, spec.name, state_->source);
  if (!value.take.empty()) data = take(data, value.take);
  if (data.shape != spec.shape)
    throw Error(ErrorKind::Model, "'" + spec.name + "' must be " + shape_text(spec.shape) + ", but is " +
                                      shape_text(data.shape));
  if (!value.format.empty()) data = stored_as(data, value.format, spec.name);
  return data;
}

std::string Model::shape_hash() const { return sha256(decoder_text(*state_)); }

std::string Model::content_hash() const {
  const std::lock_guard lock(state_->hash_lock);
  if (!state_->content.empty()) return state_->content;
  Sha256 hash;
  hash.add(decoder_text(*state_));
  for (const TensorSpec& spec : state_->tensors) {
    hash.add(spec.name);
    hash.add_number(spec.name.size());
    for (const std::int64_t n : spec.shape) hash.add_number(static_cast<std::uint64_t>(n));
    hash_values(hash, read(spec.name));
  }
  if (state_->tokenizer) hash.add(state_->tokenizer->content_hash());
  state_->content = hash.hex();
  return state_->content;
}

std::string first_ancestor(const Model& model) {
  const Model::State& s = model.state();
  if (!s.origin.ancestor.empty() || !s.ancestor) return s.origin.ancestor;
  return s.ancestor->content_hash();
}

}  // namespace slmc::ir
