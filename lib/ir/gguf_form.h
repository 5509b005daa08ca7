#pragma once
// Metadata and stored types of a GGUF to be written; shared by the writer and by the forecast of its size. Private to lib/ir.
#include <string>
#include <utility>
#include <vector>

#include "io/gguf.h"
#include "ir/store.h"

namespace slmc::ir {

using Format = std::vector<std::pair<std::string, std::string>>;      // glob over logical names -> type; the last match wins

bool glob_matches(std::string_view glob, std::string_view name);      // '*' is any run of characters, '?' one

// Type per logical tensor, after the rules no format can change: 1-D tensors and learned positions are F32, rows that are not a multiple
// of the block fall back to F16. Tensors that no glob matches keep their type where GGUF can hold it.
TypeOf gguf_type_of(const Model& model, const Format& format);
std::vector<io::GgufWriter::Entry> gguf_entries(const Model& model, const Fit& fit, const TypeOf& type_of);
io::GgufMetadata gguf_metadata(const Model& model, const Fit& fit, const TypeOf& type_of);

}  // namespace slmc::ir
