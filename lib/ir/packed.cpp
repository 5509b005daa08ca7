#include "ir/packed.h"

#include <cstring>
#include <nlohmann/json.hpp>

#include "core/bytes.h"
#include "core/error.h"
#include "io/packed.h"

namespace slmc::ir {
namespace {

using io::QuantScheme;
using io::TensorData;

constexpr std::string_view kSuffix = "_packed";      // of "M.weight_packed"

std::vector<std::byte> scale_bytes(const std::vector<float>& scales, DType type) {
  std::vector<std::byte> out(scales.size() * size_of(type));
  from_f32(type, scales, out);
  return out;
}

std::vector<std::uint8_t> zero_codes(const std::vector<float>& mins) { return {mins.begin(), mins.end()}; }

// Whether one entry of `config_groups` says of a matrix with `columns` columns what its tensors say. Without a size, or with -1, a group is
// a row ("channel").
bool says(const Json& group, const QuantScheme& scheme, std::int64_t columns) {
  const auto weights = group.is_object() ? group.find("weights") : group.end();
  if (weights == group.end() || !weights->is_object()) return false;
  const auto number = [&](const char* key) {
    const auto it = weights->find(key);
    return it != weights->end() && it->is_number_integer() ? it->get<std::int64_t>() : -1;
  };
  const auto symmetric = weights->find("symmetric");
  const bool zero_points = symmetric != weights->end() && symmetric->is_boolean() && !symmetric->get<bool>();
  const std::int64_t size = number("group_size");
  return number("num_bits") == scheme.bits && (size == -1 ? columns : size) == scheme.group &&
         zero_points == (scheme.zero == QuantScheme::Zero::ZeroPoint);
}

class Reader {
 public:
  Reader(std::map<std::string, StoredValue, std::less<>>& stored, std::string name, const Json& groups, const std::string& file)
      : stored_(stored), name_(std::move(name)), groups_(groups), file_(file) {}

  // The value of "M.weight", checked against its companions' headers; the codes are read later.
  StoredValue read() {
    const StoredValue packed = take("_packed"), scale = take("_scale");
    const std::vector<std::int64_t> shape = read_shape(take("_shape"));
    QuantScheme scheme{.bits = bits_of(packed, shape), .group = group_of(scale, shape), .scale_dtype = scale_type(scale)};
    std::optional<StoredValue> zero;
    if (stored_.contains(name_ + "_zero_point")) {
      zero = take("_zero_point");
      scheme.zero = QuantScheme::Zero::ZeroPoint;
      require(zero->shape == std::vector<std::int64_t>{io::packed_words(shape[0], scheme.bits), shape[1] / scheme.group} && zero->dtype == "I32",
              "_zero_point", *zero);
    }
    if (stored_.contains(name_ + "_g_idx")) {
      throw Error(ErrorKind::Unsupported, Place{file_, 0, 0, 1, {}}, "the groups of '" + name_ + "' must be runs of columns, but are given one by one (g_idx)");
    }
    require_said(scheme, shape[1]);
    return {shape, "packed" + std::to_string(scheme.bits), [=] { return value(shape, scheme, packed, scale, zero); }};
  }

 private:
  StoredValue take(const std::string& suffix) {
    const auto it = stored_.find(name_ + suffix);
    if (it == stored_.end()) fail("the packed tensor '" + name_ + "' must have '" + name_ + suffix + "', but has not");
    const StoredValue found = it->second;
    stored_.erase(it);
    return found;
  }

  [[noreturn]] void fail(const std::string& message) const { throw Error(ErrorKind::Model, Place{file_, 0, 0, 1, {}}, message); }

  void require(bool good, const std::string& suffix, const StoredValue& found) const {
    if (!good) fail("the shape of '" + name_ + suffix + "' must agree with '" + name_ + "_shape', but is " + shape_text(found.shape) + " of " + found.dtype);
  }

  // Other widths have shapes of 4 or 8 bits too (7 bits: four codes in a word), so shapes alone prove nothing.
  void require_said(const QuantScheme& scheme, std::int64_t columns) const {
    for (const Json& group : groups_)
      if (says(group, scheme, columns)) return;
    fail("one of the config_groups must say what the tensors of '" + name_ + "' say (num_bits " + std::to_string(scheme.bits) + ", group_size " +
         std::to_string(scheme.group) + ", symmetric " + (scheme.zero == QuantScheme::Zero::ZeroPoint ? "false" : "true") + "), but none does");
  }

  std::vector<std::int64_t> read_shape(const StoredValue& stored) const {
    if (stored.dtype != "I64" || stored.shape != std::vector<std::int64_t>{2}) {
      fail("'" + name_ + "_shape' must be two 64-bit integers, but is " + shape_text(stored.shape) + " of " + stored.dtype);
    }
    std::vector<std::int64_t> shape(2);
    const TensorData data = stored.read();
    std::memcpy(shape.data(), data.bytes.data(), 16);
    constexpr std::int64_t kMost = std::int64_t{1} << 40;
    if (shape[0] <= 0 || shape[1] <= 0 || shape[0] > kMost || shape[1] > kMost) fail("'" + name_ + "_shape' must be two sizes, but is " + shape_text(shape));
    return shape;
  }

  int bits_of(const StoredValue& packed, const std::vector<std::int64_t>& shape) const {
    for (const int bits : {4, 8}) {
      if (packed.dtype == "I32" && packed.shape == std::vector<std::int64_t>{shape[0], io::packed_words(shape[1], bits)}) return bits;
    }
    require(false, "_packed", packed);
    return 0;
  }

  std::int64_t group_of(const StoredValue& scale, const std::vector<std::int64_t>& shape) const {
    require(scale.shape.size() == 2 && scale.shape[0] == shape[0] && scale.shape[1] > 0 && shape[1] % scale.shape[1] == 0, "_scale", scale);
    return shape[1] / scale.shape[1];
  }

  DType scale_type(const StoredValue& scale) const {
    const std::optional<DType> type = dtype_from(scale.dtype);
    require(type == DType::F16 || type == DType::BF16 || type == DType::F32, "_scale", scale);
    return *type;
  }

  static TensorData value(const std::vector<std::int64_t>& shape, const QuantScheme& scheme, const StoredValue& packed, const StoredValue& scale,
                          const std::optional<StoredValue>& zero) {
    io::Quantized q{.scheme = scheme, .codes = io::unpack_rows(packed.read().bytes, shape[0], shape[1], scheme.bits), .scales = scale.read().to_floats(), .mins = {}};
    if (zero) {
      const std::vector<std::uint8_t> zeros = io::unpack_columns(zero->read().bytes, shape[0], shape[1] / scheme.group, scheme.bits);
      q.mins.assign(zeros.begin(), zeros.end());
    }
    return TensorData::of(shape, std::move(q));
  }

  std::map<std::string, StoredValue, std::less<>>& stored_;
  std::string name_;                                 // "M.weight"
  const Json& groups_;                               // config_groups
  const std::string& file_;
};

}  // namespace

bool can_pack(const QuantScheme& scheme) { return (scheme.bits == 4 || scheme.bits == 8) && scheme.zero != QuantScheme::Zero::Min; }

std::vector<io::SafetensorsWriter::Entry> packed_entries(const std::string& name, const std::vector<std::int64_t>& shape, const QuantScheme& scheme) {
  const std::int64_t out = shape[0], in = shape[1], groups = in / scheme.group;
  std::vector<io::SafetensorsWriter::Entry> entries = {{name + "_packed", DType::I32, {out, io::packed_words(in, scheme.bits)}},
                                                       {name + "_scale", scheme.scale_dtype, {out, groups}},
                                                       {name + "_shape", DType::I64, {2}}};
  if (scheme.zero == QuantScheme::Zero::ZeroPoint) entries.push_back({name + "_zero_point", DType::I32, {io::packed_words(out, scheme.bits), groups}});
  return entries;
}

std::vector<std::vector<std::byte>> packed_bytes(const TensorData& data) {
  const io::Quantized& q = *data.quantized;
  const std::int64_t out = data.shape[0], in = data.shape[1];
  std::vector<std::byte> shape(16);
  std::memcpy(shape.data(), data.shape.data(), 16);
  std::vector<std::vector<std::byte>> bytes = {io::pack_rows(q.codes, out, in, q.scheme.bits), scale_bytes(q.scales, q.scheme.scale_dtype), shape};
  if (!q.mins.empty()) bytes.push_back(io::pack_columns(zero_codes(q.mins), out, in / q.scheme.group, q.scheme.bits));
  return bytes;
}

Json packed_config(const QuantScheme& scheme, const std::vector<std::string>& ignore) {
  const Json weights = {{"actorder", nullptr}, {"block_structure", nullptr}, {"dynamic", false}, {"group_size", scheme.group}, {"num_bits", scheme.bits},
                        {"observer", "minmax"}, {"observer_kwargs", Json::object()}, {"strategy", "group"},
                        {"symmetric", scheme.zero == QuantScheme::Zero::Symmetric}, {"type", "int"}};
  const Json group = {{"format", "pack-quantized"}, {"input_activations", nullptr}, {"output_activations", nullptr}, {"targets", {"Linear"}}, {"weights", weights}};
  return {{"config_groups", {{"group_0", group}}}, {"format", "pack-quantized"}, {"global_compression_ratio", nullptr}, {"ignore", ignore},
          {"kv_cache_scheme", nullptr}, {"quant_method", "compressed-tensors"}, {"quantization_status", "compressed"}};
}

void unpack_stored(std::map<std::string, StoredValue, std::less<>>& stored, Json& config, const std::string& file) {
  const auto found = config.find("quantization_config");
  if (found == config.end()) return;
  if (found->is_null()) {
    config.erase(found);
    return;
  }
  const auto text = [&](const char* key) {
    const auto it = found->is_object() ? found->find(key) : found->end();
    return it != found->end() && it->is_string() ? it->get<std::string>() : std::string();
  };
  if (text("quant_method") != "compressed-tensors" || text("format") != "pack-quantized") {
    throw Error(ErrorKind::Unsupported, Place{file, 0, 0, 1, {}},
                "a quantized folder must be compressed-tensors pack-quantized, but is '" + text("quant_method") + "' '" + text("format") + "'",
                "load the unquantized model, or a GGUF of it");
  }
  const auto listed = found->find("config_groups");
  const Json groups = listed != found->end() && listed->is_object() ? *listed : Json::object();
  std::vector<std::string> names;
  for (const auto& [name, value] : stored) {
    if (name.ends_with(kSuffix)) names.push_back(name.substr(0, name.size() - kSuffix.size()));
  }
  for (const std::string& name : names) {
    if (stored.contains(name)) throw Error(ErrorKind::Model, Place{file, 0, 0, 1, {}}, "'" + name + "' must be stored once, but is there plain and packed");
    StoredValue value = Reader(stored, name, groups, file).read();
    stored.emplace(name, std::move(value));
  }
  config.erase("quantization_config");               // the tensors say all of it
}

}  // namespace slmc::ir
