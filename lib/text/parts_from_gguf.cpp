// GGUF's tokenizer.ggml.* keys, read.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "text/parts.h"
#include "text/pre_rules.h"
#include "text/sentencepiece.h"
#include "text/unicode.h"

namespace slmc::text {
namespace {

[[noreturn]] void fail(const std::string& file, const std::string& message) {
  throw Error(ErrorKind::Data, Place{file, 0, 0, 1, {}}, message);
}

template <typename Value>
const Value* value_of(const io::GgufMetadata& metadata, std::string_view key, const std::string& file) {
  const io::GgufValue* value = io::find(metadata, key);
  if (!value) return nullptr;
  const Value* typed = std::get_if<Value>(&value->value);
  if (!typed) fail(file, std::string(key) + " must have the type that GGUF gives it, but has another");
  return typed;
}

std::vector<std::int64_t> integers(const io::GgufMetadata& metadata, std::string_view key, std::size_t count,
                                   const std::string& file) {
  const io::GgufValue* value = io::find(metadata, key);
  std::vector<std::int64_t> out;
  if (value) {
    if (const auto* s = std::get_if<std::vector<std::int64_t>>(&value->value)) out = *s;
    if (const auto* u = std::get_if<std::vector<std::uint64_t>>(&value->value))
      out.assign(u->begin(), u->end());
    if (out.size() != count)
      fail(file, fmt::format("{} must hold {} whole numbers, but holds {}", key, count, out.size()));
  }
  return out;
}

std::optional<std::int32_t> id_key(const io::GgufMetadata& metadata, const char* name, const Parts& parts,
                                   const std::string& file) {
  const std::string key = std::string("tokenizer.ggml.") + name + "_token_id";
  const io::GgufValue* value = io::find(metadata, key);
  if (!value) return {};
  std::int64_t id = -1;
  if (const auto* u = std::get_if<std::uint64_t>(&value->value))
    id = *u < static_cast<std::uint64_t>(kMostIds) ? static_cast<std::int64_t>(*u) : -1;
  if (const auto* s = std::get_if<std::int64_t>(&value->value)) id = *s;
  if (id < 0 || id >= kMostIds) fail(file, key + " must be an id, but is not");
  if (!parts.vocabulary.has(static_cast<std::int32_t>(id))) return {};
  return static_cast<std::int32_t>(id);
}

bool flag_key(const io::GgufMetadata& metadata, const char* key, bool fallback, const std::string& file) {
  const bool* value = value_of<bool>(metadata, key, file);
  return value ? *value : fallback;
}

void read_tokens(Parts& parts, const std::vector<std::string>& tokens, const std::vector<std::int64_t>& types,
                 const std::string& file) {
  if (tokens.size() > static_cast<std::size_t>(kMostIds))
    fail(file, fmt::format("tokenizer.ggml.tokens must have at most {} tokens, but has {}", kMostIds,
                           tokens.size()));
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const std::int64_t type = types.empty() ? kNormal : types[i];
    if (type == kUnused) continue;
    if (!is_utf8(tokens[i])) fail(file, fmt::format("the token {} must be UTF-8, but is not", i));
    const auto id = static_cast<std::int32_t>(i);
    parts.vocabulary.add(tokens[i], id);
    if ((type != kControl && type != kUser && type != kUnknown) || tokens[i].empty()) continue;
    parts.added.push_back({.id = id, .content = tokens[i], .normalized = false, .special = type != kUser});
    if (type == kUnknown) parts.rules.unknown = id;
  }
}

const std::vector<double>& scores_key(const io::GgufMetadata& metadata, std::size_t count,
                                      const std::string& file) {
  const auto* scores = value_of<std::vector<double>>(metadata, "tokenizer.ggml.scores", file);
  if (!scores || scores->size() != count ||
      !std::all_of(scores->begin(), scores->end(), [](double s) { return std::isfinite(s); }))
    fail(file, fmt::format("tokenizer.ggml.scores must hold {} finite numbers, but does not", count));
  return *scores;
}

void read_merges(Parts& parts, const io::GgufMetadata& metadata, const std::string& file) {
  const auto* merges = value_of<std::vector<std::string>>(metadata, "tokenizer.ggml.merges", file);
  if (!merges) fail(file, "tokenizer.ggml.merges must be present for a gpt2 tokenizer, but is missing");
  for (const std::string& merge : *merges) {
    const std::size_t blank = merge.find(' ', 1);
    if (merge.empty() || blank == merge.npos)
      fail(file, "a merge must be two tokens and a blank between them, but is '" + merge + "'");
    add_merge(parts, std::string_view(merge).substr(0, blank), std::string_view(merge).substr(blank + 1),
              file);
  }
}

// All of a tokenizer.json but its post-processor, model and added tokens.
Json document_of(Json normalizer, Json pre_tokenizer, Json decoder) {
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", Json::array()},
          {"normalizer", std::move(normalizer)},
          {"pre_tokenizer", std::move(pre_tokenizer)},
          {"post_processor", nullptr},
          {"decoder", std::move(decoder)}};
}

Json sentencepiece_decoder(bool prefix) {
  std::vector<Json> steps = {{{"type", "Replace"}, {"pattern", {{"String", kBlankMark}}}, {"content", " "}},
                             {{"type", "ByteFallback"}},
                             {{"type", "Fuse"}}};
  if (prefix) steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return json_sequence("decoders", std::move(steps));
}

Json template_with(const Parts& parts) {  // a post-processor that adds bos and eos
  const SpecialTokens& special = parts.special;
  if (!special.add_bos && !special.add_eos) return {};
  Json single = Json::array(), pair = Json::array(), tokens = Json::object();
  const auto put = [&](std::optional<std::int32_t> id) {
    const std::string text(parts.vocabulary.text(*id));
    const Json piece = {{"SpecialToken", {{"id", text}, {"type_id", 0}}}};
    single.push_back(piece);
    pair.push_back(piece);
    tokens[text] = {{"id", text}, {"ids", Json::array({*id})}, {"tokens", Json::array({text})}};
  };
  if (special.add_bos) put(special.bos);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  pair.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 0}}}});
  if (special.add_eos) put(special.eos);
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", tokens}};
}

}  // namespace

Parts parts_from_gguf(const io::GgufMetadata& metadata, const std::string& file) {
  const auto* model = value_of<std::string>(metadata, "tokenizer.ggml.model", file);
  const auto* tokens = value_of<std::vector<std::string>>(metadata, "tokenizer.ggml.tokens", file);
  if (!model || !tokens)
    fail(file, "a GGUF with a tokenizer must have tokenizer.ggml.model and tokens, but lacks them");
  const bool bytes = *model == "gpt2";
  if (!bytes && *model != "llama")
    throw Error(ErrorKind::Unsupported, Place{file, 0, 0, 1, {}},
                "tokenizer.ggml.model must be gpt2 or llama, but is " + *model);
  Parts parts;
  const std::vector<std::int64_t> types =
      integers(metadata, "tokenizer.ggml.token_type", tokens->size(), file);
  try {
    read_tokens(parts, *tokens, types, file);
  } catch (const Error& error) {
    throw Error(error.kind(), Place{file, 0, 0, 1, {}}, error.message());
  }
  for (const auto& [name, id] : {std::pair("bos", &parts.special.bos),
                                 {"eos", &parts.special.eos},
                                 {"unknown", &parts.special.unknown},
                                 {"padding", &parts.special.padding}})
    *id = id_key(metadata, name, parts, file);
  parts.special.add_bos =
      flag_key(metadata, "tokenizer.ggml.add_bos_token", false, file) && parts.special.bos;
  parts.special.add_eos =
      flag_key(metadata, "tokenizer.ggml.add_eos_token", false, file) && parts.special.eos;
  if (const auto* chat = value_of<std::string>(metadata, "tokenizer.chat_template", file))
    parts.special.chat_template = *chat;

  Json document;
  if (bytes) {
    const auto* pre = value_of<std::string>(metadata, "tokenizer.ggml.pre", file);
    const NamedRules rules = byte_level_rules(pre ? *pre : "default", file);
    const Json decoder = {
        {"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
    document = document_of(*rules.normalizer, *rules.pre_tokenizer, decoder);
    parts.rules.ignore_merges = rules.ignore_merges;
    parts.rules.unknown = kNoId;
    read_merges(parts, metadata, file);
  } else {
    const bool prefix = flag_key(metadata, "tokenizer.ggml.add_space_prefix", true, file);
    document = document_of(sentencepiece_normalizer(prefix), nullptr, sentencepiece_decoder(prefix));
    parts.merges = merges_by_score(parts.vocabulary, scores_key(metadata, tokens->size(), file), types);
    if (parts.special.unknown) parts.rules.unknown = *parts.special.unknown;
    parts.rules.byte_fallback = parts.rules.fuse_unknown = true;
  }
  const Json unknown =
      parts.rules.unknown == kNoId ? Json() : Json(std::string(parts.vocabulary.text(parts.rules.unknown)));
  document["post_processor"] = template_with(parts);
  document["model"] = {{"type", "BPE"},
                       {"dropout", nullptr},
                       {"unk_token", unknown},
                       {"continuing_subword_prefix", nullptr},
                       {"end_of_word_suffix", nullptr},
                       {"fuse_unk", parts.rules.fuse_unknown},
                       {"byte_fallback", parts.rules.byte_fallback},
                       {"ignore_merges", parts.rules.ignore_merges}};
  parts.rest = std::make_shared<const Json>(std::move(document));
  return parts;
}

}  // namespace slmc::text
