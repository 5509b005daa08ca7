#include "engine/prompt.h"

#include <nlohmann/json.hpp>

namespace slmc::engine {
namespace {

bool adds_bos(const ir::Model& model) {
  if (const auto it = model.side_files().find("tokenizer_config.json"); it != model.side_files().end()) {
    const Json config = parse_json(it->second, it->first, ErrorKind::Model);
    if (config.is_object() && config.contains("add_bos_token") && config["add_bos_token"].is_boolean()) {
      return config["add_bos_token"].get<bool>();
    }
  }
  const Json& meta = model.config();
  if (!meta.is_object() || !meta.contains("tokenizer.ggml.add_bos_token")) return false;
  const Json& value = meta["tokenizer.ggml.add_bos_token"];
  return value.is_boolean() && value.get<bool>();
}

// An integer or a list of them under `key`; anything else is ignored.
void collect_ids(const Json& object, const char* key, std::set<std::int32_t>& out) {
  if (!object.is_object() || !object.contains(key)) return;
  const Json& value = object[key];
  const auto add = [&](const Json& id) {
    if (id.is_number_integer() && id.get<std::int64_t>() >= 0 && id.get<std::int64_t>() < INT32_MAX) out.insert(id.get<std::int32_t>());
  };
  if (value.is_array()) {
    for (const Json& id : value) add(id);
  } else {
    add(value);
  }
}

// Bytes that the character beginning with `lead` takes; 1 for what can't begin one.
std::size_t utf8_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  if (byte >= 0xF0 && byte < 0xF8) return 4;
  if (byte >= 0xE0) return byte < 0xF0 ? 3 : 1;
  return byte >= 0xC2 ? 2 : 1;
}

}  // namespace

const text::Tokenizer& tokenizer_of(const ir::Model& model) {
  const auto& tokenizer = model.tokenizer();
  if (!tokenizer) {
    throw Error(ErrorKind::Model, "the model must have a tokenizer, but " + model.source() + " has none",
                "a Hugging Face folder keeps it in tokenizer.json");
  }
  return *tokenizer;
}

std::vector<std::int32_t> prompt_ids(const ir::Model& model, std::string_view text) {
  const text::Tokenizer& tokenizer = tokenizer_of(model);
  std::vector<std::int32_t> ids = tokenizer.encode(text);
  const auto bos = tokenizer.bos();
  if (bos && (ids.empty() || (adds_bos(model) && ids.front() != *bos))) ids.insert(ids.begin(), *bos);
  if (ids.empty()) throw Error(ErrorKind::Usage, "the prompt must hold at least one token, but is empty");
  return ids;
}

std::set<std::int32_t> end_tokens(const ir::Model& model) {
  std::set<std::int32_t> out;
  if (const auto it = model.side_files().find("generation_config.json"); it != model.side_files().end()) {
    collect_ids(parse_json(it->second, it->first, ErrorKind::Model), "eos_token_id", out);
  }
  collect_ids(model.config(), "eos_token_id", out);
  if (const auto eos = tokenizer_of(model).eos()) out.insert(*eos);
  return out;
}

std::string Utf8Stream::push(std::string_view bytes) {
  held_ += bytes;
  std::size_t whole = 0;
  while (whole < held_.size()) {
    const std::size_t length = utf8_length(held_[whole]);
    if (whole + length > held_.size()) break;
    whole += length;
  }
  std::string out = held_.substr(0, whole);
  held_.erase(0, whole);
  return out;
}

std::string Utf8Stream::finish() {
  const std::string out = held_.empty() ? "" : "\xEF\xBF\xBD";
  held_.clear();
  return out;
}

}  // namespace slmc::engine
