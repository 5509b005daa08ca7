#pragma once
// origin.json, and GGUF metadata as JSON.
//   {"slmc_origin": 1, "ancestor": hash, "blocks": [..], "axes": {"hidden": [..], "block.0.ffn": [..]}}
#include "core/json.h"
#include "io/gguf.h"
#include "ir/model.h"

namespace slmc::ir {

Origin origin_from_json(const Json& json, const std::string& file);  // Error(Model)
Json to_json(const Origin& origin, const std::string& ancestor);

// All metadata but the vocabulary: lists of more than 64 entries become {"entries": n}.
Json config_from_metadata(const io::GgufMetadata& metadata);
io::GgufValue to_gguf_value(const Json& value);  // whole -> U32, fraction -> F32, list of whole -> I32s, bool, text

}  // namespace slmc::ir
