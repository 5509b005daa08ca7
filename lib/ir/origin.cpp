#include "ir/origin.h"

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace slmc::ir {

Origin origin_from_json(const Json& json, const std::string& file) {
  Fields f(json, file, "", ErrorKind::Model);
  if (f.integer("slmc_origin") != 1) f.fail("slmc_origin", "the version must be 1, but is not");
  Origin origin;
  origin.ancestor = f.text("ancestor");
  origin.blocks = f.integers("blocks");
  const Json& axes = f.at("axes");
  if (!axes.is_object()) f.fail("axes", "the value must be an object, but is not");
  for (const auto& [axis, list] : axes.items()) {
    if (!list.is_array()) f.fail("axes", "the entries of '" + axis + "' must be a list, but are not");
    std::vector<std::int64_t>& entries = origin.axes[axis];
    for (const Json& v : list) {
      if (!v.is_number_integer())
        f.fail("axes", "the entries of '" + axis + "' must be whole numbers, but are not");
      entries.push_back(v.get<std::int64_t>());
    }
  }
  f.finish();
  return origin;
}

Json to_json(const Origin& origin, const std::string& ancestor) {
  Json json = Json::object();
  json["slmc_origin"] = 1;
  json["ancestor"] = ancestor;
  json["blocks"] = origin.blocks;
  json["axes"] = Json::object();
  for (const auto& [axis, entries] : origin.axes) json["axes"][axis] = entries;
  return json;
}

Json config_from_metadata(const io::GgufMetadata& metadata) {
  constexpr std::size_t kLongest = 64, kMostBlocks = 1000;  // lists of a vocabulary; others may have an entry per block
  Json json = Json::object();
  for (const auto& [key, value] : metadata)
    json[key] = std::visit(
        [longest = key.starts_with("tokenizer.") ? kLongest : kMostBlocks](const auto& v) -> Json {
          if constexpr (requires { v.size(); } && !std::is_same_v<std::decay_t<decltype(v)>, std::string>)
            return v.size() > longest ? Json{{"entries", v.size()}} : Json(v);
          else
            return Json(v);
        },
        value.value);
  return json;
}

io::GgufValue to_gguf_value(const Json& value) {
  if (value.is_boolean()) return io::GgufValue::boolean(value.get<bool>());
  if (value.is_number_integer())
    return io::GgufValue::u32(static_cast<std::uint32_t>(value.get<std::int64_t>()));
  if (value.is_number()) return io::GgufValue::f32(static_cast<float>(value.get<double>()));
  if (value.is_array()) return io::GgufValue::i32s(value.get<std::vector<std::int64_t>>());
  SLMC_CHECK(value.is_string());
  return io::GgufValue::text(value.get<std::string>());
}

}  // namespace slmc::ir
