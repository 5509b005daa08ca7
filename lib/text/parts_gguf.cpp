// GGUF's tokenizer.ggml.* keys, read and written. The rules that llama.cpp keeps under a name (tokenizer.ggml.pre) are
// spelled out here as the pre-tokenizers of tokenizer.json that give the same words. Facts: llama.cpp, src/llama-vocab.cpp.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "text/parts.h"
#include "text/scanners.h"
#include "text/unicode.h"

namespace slmc::text {
namespace {

enum TokenType : std::int64_t { kNormal = 1, kUnknown = 2, kControl = 3, kUser = 4, kUnused = 5, kByte = 6 };
constexpr const char* kMark = "\u2581";

[[noreturn]] void fail(const std::string& file, const std::string& message) {
  throw Error(ErrorKind::Data, Place{file, 0, 0, 1, {}}, message);
}

// ---- rules by name ------------------------------------------------------------------------------------------------

Json split(std::string_view pattern) {
  return {{"type", "Split"}, {"pattern", {{"Regex", std::string(pattern)}}}, {"behavior", "Isolated"}, {"invert", false}};
}
Json byte_level(bool regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", regex}};
}
Json sequence(const char* key, std::vector<Json> parts) {
  if (parts.size() == 1) return parts[0];
  Json list = Json::array();
  for (Json& one : parts) list.push_back(std::move(one));
  return {{"type", "Sequence"}, {key, std::move(list)}};
}
Json digits() { return {{"type", "Digits"}, {"individual_digits", true}}; }

// One row per set of rules. The first name is the one that is written. NFC is the normalizer of the model that the name was
// made for; llama.cpp itself does not normalize.
struct PreRules {
  std::vector<std::string_view> names;
  bool nfc, ignore_merges;
  std::vector<Json> steps;
};

const std::vector<PreRules>& pre_rules() {
  static const std::vector<PreRules> rules = {
      {{"gpt-2", "phi-2", "jais", "exaone4", "gigachat", "trillion", "mellum", "modern-bert", "granite-docling"}, false, false, {byte_level(true)}},
      {{"smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b"}, false, false, {digits(), byte_level(true)}},
      {{"command-r"}, true, false, {digits(), byte_level(true)}},
      {{"olmo", "mpt"}, true, false, {byte_level(true)}},
      {{"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2"}, false, true, {split(kLlama3Pattern), byte_level(false)}},
      {{"smaug-bpe", "dbrx", "glm4", "chatglm-bpe"}, false, false, {split(kLlama3Pattern), byte_level(false)}},
      {{"qwen2", "deepseek-r1-qwen", "megrez"}, true, false, {split(kQwen2Pattern), byte_level(false)}},
      {{"stablelm2", "hunyuan", "grok-2"}, false, false, {split(kQwen2Pattern), byte_level(false)}},
      {{"default", ""}, false, false,
       {split(R"([\p{P}\$\+<=>\^~\|]+)"), split(kGpt2Pattern), split(R"(\p{N}+)"), split("[0-9][0-9][0-9]"), byte_level(false)}},
  };
  return rules;
}

const PreRules& rules_named(const std::string& name, const std::string& file) {
  for (const PreRules& rules : pre_rules())
    if (std::find(rules.names.begin(), rules.names.end(), name) != rules.names.end()) return rules;
  std::string known;
  for (const PreRules& rules : pre_rules()) known += (known.empty() ? "" : ", ") + std::string(rules.names[0]);
  throw Error(ErrorKind::Unsupported, Place{file, 0, 0, 1, {}},
              "tokenizer.ggml.pre must be a known set of rules (" + known + "), but is '" + name + "'");
}

// A component as the list of its steps, each with its defaults filled in: equal lists mean equal rules.
std::vector<std::string> steps_of(const Json& component) {
  if (component.is_null()) return {};
  std::vector<std::string> steps;
  const std::string type = part(component, "type").is_string() ? part(component, "type").get<std::string>() : "";
  if (type == "Sequence") {
    for (const char* key : {"normalizers", "pretokenizers"})
      for (const Json& one : part(component, key))
        for (std::string& step : steps_of(one)) steps.push_back(std::move(step));
    return steps;
  }
  const auto option = [&](const char* key, const Json& fallback) {
    const Json& value = part(component, key);
    return " " + dump_compact(value.is_null() ? fallback : value);
  };
  std::string step = type;
  if (type == "ByteLevel") step += option("add_prefix_space", true) + option("use_regex", true);
  if (type == "Digits") step += option("individual_digits", false);
  if (type == "Split") step += option("pattern", {}) + option("behavior", {}) + option("invert", false);
  if (type == "Prepend") step += option("prepend", {});
  if (type == "Replace") step += option("pattern", {}) + option("content", {});
  steps.push_back(std::move(step));
  return steps;
}

Json prepend() { return {{"type", "Prepend"}, {"prepend", kMark}}; }
Json replace_blanks() { return {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kMark}}; }

// ---- reading ------------------------------------------------------------------------------------------------------

template <typename Value>
const Value* value_of(const io::GgufMetadata& metadata, std::string_view key, const std::string& file) {
  const io::GgufValue* value = io::find(metadata, key);
  if (!value) return nullptr;
  const Value* typed = std::get_if<Value>(&value->value);
  if (!typed) fail(file, std::string(key) + " must have the type that GGUF gives it, but has another");
  return typed;
}

std::vector<std::int64_t> integers(const io::GgufMetadata& metadata, std::string_view key, std::size_t count, const std::string& file) {
  const io::GgufValue* value = io::find(metadata, key);
  std::vector<std::int64_t> out;
  if (value) {
    if (const auto* s = std::get_if<std::vector<std::int64_t>>(&value->value)) out = *s;
    if (const auto* u = std::get_if<std::vector<std::uint64_t>>(&value->value)) out.assign(u->begin(), u->end());
    if (out.size() != count) fail(file, fmt::format("{} must hold {} whole numbers, but holds {}", key, count, out.size()));
  }
  return out;
}

std::optional<std::int32_t> id_key(const io::GgufMetadata& metadata, const char* name, const Parts& parts, const std::string& file) {
  const std::string key = std::string("tokenizer.ggml.") + name + "_token_id";
  const io::GgufValue* value = io::find(metadata, key);
  if (!value) return {};
  std::int64_t id = -1;
  if (const auto* u = std::get_if<std::uint64_t>(&value->value)) id = *u < static_cast<std::uint64_t>(kMostIds) ? static_cast<std::int64_t>(*u) : -1;
  if (const auto* s = std::get_if<std::int64_t>(&value->value)) id = *s;
  if (id < 0 || id >= kMostIds) fail(file, key + " must be an id, but is not");
  if (!parts.vocabulary.has(static_cast<std::int32_t>(id))) return {};
  return static_cast<std::int32_t>(id);
}

bool flag_key(const io::GgufMetadata& metadata, const char* key, bool fallback, const std::string& file) {
  const bool* value = value_of<bool>(metadata, key, file);
  return value ? *value : fallback;
}

void read_tokens(Parts& parts, const std::vector<std::string>& tokens, const std::vector<std::int64_t>& types, const std::string& file) {
  if (tokens.size() > static_cast<std::size_t>(kMostIds)) fail(file, fmt::format("tokenizer.ggml.tokens must have at most {} tokens, but has {}", kMostIds, tokens.size()));
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

// SentencePiece merges the two neighbours whose joint piece has the highest score. As ranks: pieces by falling score, and of
// the cuts of one piece the one with the longest left part first, which is how `transformers` writes tokenizer.json.
std::vector<Merge> merges_by_score(const Vocabulary& vocabulary, const std::vector<double>& scores, const std::vector<std::int64_t>& types) {
  struct Ranked {
    Merge merge;
    double score;
    std::size_t left, right;                                           // characters
  };
  const auto normal = [&](std::int32_t id) { return id != kNoId && (types.empty() || types[static_cast<std::size_t>(id)] == kNormal); };
  std::vector<Ranked> ranked;
  for (std::int32_t id = 0; id < vocabulary.size(); ++id) {
    if (!normal(id)) continue;
    const std::string_view piece = vocabulary.text(id);
    std::vector<std::size_t> cuts;                                     // where its characters start, the first left out
    int bytes = 0;
    for (std::size_t at = 0; at < piece.size(); at += static_cast<std::size_t>(bytes)) {
      code_point(piece.data() + at, bytes);
      if (at > 0) cuts.push_back(at);
    }
    for (std::size_t i = 0; i < cuts.size(); ++i) {
      const Merge merge{vocabulary.find(piece.substr(0, cuts[i])), vocabulary.find(piece.substr(cuts[i])), id};
      if (normal(merge.left) && normal(merge.right))
        ranked.push_back({merge, scores[static_cast<std::size_t>(id)], i + 1, cuts.size() - i});
    }
  }
  std::stable_sort(ranked.begin(), ranked.end(), [](const Ranked& a, const Ranked& b) {
    return std::tie(a.score, a.left, a.right) > std::tie(b.score, b.left, b.right);
  });
  std::vector<Merge> merges;
  for (const Ranked& one : ranked) merges.push_back(one.merge);
  return merges;
}

void read_merges(Parts& parts, const io::GgufMetadata& metadata, const std::string& file) {
  const auto* merges = value_of<std::vector<std::string>>(metadata, "tokenizer.ggml.merges", file);
  if (!merges) fail(file, "tokenizer.ggml.merges must be present for a gpt2 tokenizer, but is missing");
  for (const std::string& merge : *merges) {
    const std::size_t blank = merge.find(' ', 1);
    if (merge.empty() || blank == merge.npos) fail(file, "a merge must be two tokens and a blank between them, but is '" + merge + "'");
    add_merge(parts, std::string_view(merge).substr(0, blank), std::string_view(merge).substr(blank + 1), file);
  }
}

Json byte_level_document(const PreRules& rules) {
  const Json normalizer = rules.nfc ? Json{{"type", "NFC"}} : Json();
  Json decoder = byte_level(true);
  decoder["add_prefix_space"] = true;
  return {{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}, {"added_tokens", Json::array()}, {"normalizer", normalizer},
          {"pre_tokenizer", sequence("pretokenizers", rules.steps)}, {"post_processor", nullptr}, {"decoder", decoder}};
}

Json sentencepiece_document(bool prefix) {
  std::vector<Json> decoders = {{{"type", "Replace"}, {"pattern", {{"String", kMark}}}, {"content", " "}},
                                {{"type", "ByteFallback"}}, {{"type", "Fuse"}}};
  if (prefix) decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  std::vector<Json> normalizers;
  if (prefix) normalizers.push_back(prepend());
  normalizers.push_back(replace_blanks());
  return {{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}, {"added_tokens", Json::array()},
          {"normalizer", sequence("normalizers", normalizers)}, {"pre_tokenizer", nullptr}, {"post_processor", nullptr},
          {"decoder", sequence("decoders", decoders)}};
}

Json template_with(const Parts& parts) {                               // a post-processor that adds bos and eos
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
  if (!model || !tokens) fail(file, "a GGUF with a tokenizer must have tokenizer.ggml.model and tokens, but lacks them");
  const bool bytes = *model == "gpt2";
  if (!bytes && *model != "llama")
    throw Error(ErrorKind::Unsupported, Place{file, 0, 0, 1, {}}, "tokenizer.ggml.model must be gpt2 or llama, but is " + *model);
  Parts parts;
  const std::vector<std::int64_t> types = integers(metadata, "tokenizer.ggml.token_type", tokens->size(), file);
  try {
    read_tokens(parts, *tokens, types, file);
  } catch (const Error& error) {
    throw Error(error.kind(), Place{file, 0, 0, 1, {}}, error.message());
  }
  for (const auto& [name, id] : {std::pair("bos", &parts.special.bos), {"eos", &parts.special.eos},
                                 {"unknown", &parts.special.unknown}, {"padding", &parts.special.padding}})
    *id = id_key(metadata, name, parts, file);
  parts.special.add_bos = flag_key(metadata, "tokenizer.ggml.add_bos_token", false, file) && parts.special.bos;
  parts.special.add_eos = flag_key(metadata, "tokenizer.ggml.add_eos_token", false, file) && parts.special.eos;
  if (const auto* chat = value_of<std::string>(metadata, "tokenizer.chat_template", file)) parts.special.chat_template = *chat;

  Json document;
  if (bytes) {
    const auto* pre = value_of<std::string>(metadata, "tokenizer.ggml.pre", file);
    const PreRules& rules = rules_named(pre ? *pre : "default", file);
    document = byte_level_document(rules);
    parts.rules.ignore_merges = rules.ignore_merges;
    parts.rules.unknown = kNoId;
    read_merges(parts, metadata, file);
  } else {
    const auto* scores = value_of<std::vector<double>>(metadata, "tokenizer.ggml.scores", file);
    if (!scores || scores->size() != tokens->size() || !std::all_of(scores->begin(), scores->end(), [](double s) { return std::isfinite(s); }))
      fail(file, fmt::format("tokenizer.ggml.scores must hold {} finite numbers, but does not", tokens->size()));
    document = sentencepiece_document(flag_key(metadata, "tokenizer.ggml.add_space_prefix", true, file));
    parts.merges = merges_by_score(parts.vocabulary, *scores, types);
    if (parts.special.unknown) parts.rules.unknown = *parts.special.unknown;
    parts.rules.byte_fallback = parts.rules.fuse_unknown = true;
  }
  const Json unknown = parts.rules.unknown == kNoId ? Json() : Json(std::string(parts.vocabulary.text(parts.rules.unknown)));
  document["post_processor"] = template_with(parts);
  document["model"] = {{"type", "BPE"}, {"dropout", nullptr}, {"unk_token", unknown}, {"continuing_subword_prefix", nullptr},
                       {"end_of_word_suffix", nullptr}, {"fuse_unk", parts.rules.fuse_unknown},
                       {"byte_fallback", parts.rules.byte_fallback}, {"ignore_merges", parts.rules.ignore_merges}};
  parts.rest = std::make_shared<const Json>(std::move(document));
  return parts;
}

// ---- writing ------------------------------------------------------------------------------------------------------

namespace {

std::string pre_name(const Parts& parts) {
  const std::vector<std::string> normalizer = steps_of(part(*parts.rest, "normalizer"));
  const std::vector<std::string> words = steps_of(part(*parts.rest, "pre_tokenizer"));
  for (const PreRules& rules : pre_rules()) {
    const std::vector<std::string> expected = rules.nfc ? std::vector<std::string>{"NFC"} : std::vector<std::string>{};
    if (normalizer == expected && words == steps_of(sequence("pretokenizers", rules.steps)) &&
        rules.ignore_merges == parts.rules.ignore_merges)
      return std::string(rules.names[0]);
  }
  std::string have;
  for (const auto* steps : {&normalizer, &words})
    for (const std::string& step : *steps) have += (have.empty() ? "" : ", ") + step;
  throw Error(ErrorKind::Unsupported, "a byte-level tokenizer must have rules that llama.cpp knows by name, but has " + have +
                                          (parts.rules.ignore_merges ? ", ignore_merges" : ""));
}

// Whether text gets a blank in front; Error(Unsupported) when llama.cpp would see other words.
bool space_prefix(const Parts& parts) {
  const std::vector<std::string> normalizer = steps_of(part(*parts.rest, "normalizer"));
  const std::string prefix = steps_of(prepend())[0], blanks = steps_of(replace_blanks())[0];
  const Json& words = part(*parts.rest, "pre_tokenizer");
  if (words.is_null() && normalizer == std::vector{prefix, blanks}) return true;
  if (words.is_null() && normalizer == std::vector{blanks}) return false;
  if (part(words, "type") == "Metaspace" && part(words, "replacement") == kMark && normalizer.empty()) return part(words, "prepend_scheme") != "never";
  throw Error(ErrorKind::Unsupported, "a tokenizer without ByteLevel must replace blanks by U+2581 and do nothing else, as llama.cpp does, but does more");
}

// Scores fall with the rank of the first merge that makes a piece. They say everything only if the merges are those that
// `merges_by_score` gives back, up to the order within one piece, where llama.cpp takes the leftmost.
std::vector<double> scores_of(const Parts& parts, const std::vector<std::int64_t>& types) {
  std::vector<double> scores(types.size(), 0);
  std::vector<bool> scored(types.size());
  double next = 0;
  bool ordered = true;
  for (std::size_t i = 0; i < parts.merges.size(); ++i) {
    const auto result = static_cast<std::size_t>(parts.merges[i].result);
    if (scored[result]) {
      ordered &= parts.merges[i - 1].result == parts.merges[i].result;
      continue;
    }
    scored[result] = true;
    scores[result] = --next;
  }
  for (std::size_t id = 0; id < types.size(); ++id)
    if (types[id] == kNormal && !scored[id]) scores[id] = --next;
  const auto sorted = [](std::vector<Merge> merges) {
    std::sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) { return std::tie(a.left, a.right) < std::tie(b.left, b.right); });
    return merges;
  };
  if (!ordered || sorted(parts.merges) != sorted(merges_by_score(parts.vocabulary, scores, types)))
    throw Error(ErrorKind::Unsupported, "the merges of a SentencePiece tokenizer must follow from one score per piece, as llama.cpp needs, but do not");
  return scores;
}

}  // namespace

io::GgufMetadata gguf_from_parts(const Parts& parts, std::int64_t rows) {
  std::int64_t size = parts.vocabulary.size();
  for (const AddedToken& token : parts.added) size = std::max<std::int64_t>(size, token.id + 1);
  if (rows == 0) rows = size;
  if (rows < size || rows > kMostIds)
    throw Error(ErrorKind::Data, fmt::format("the rows of an embedding must be at least {}, the size of its tokenizer, but are {}", size, rows));
  std::vector<std::string> tokens(static_cast<std::size_t>(rows));
  std::vector<std::int64_t> types(static_cast<std::size_t>(rows), kUnused);
  const bool bytes = parts.rules.byte_level;
  for (std::int32_t id = 0; id < rows; ++id) {
    const auto i = static_cast<std::size_t>(id);
    tokens[i] = parts.vocabulary.has(id) ? std::string(parts.vocabulary.text(id)) : fmt::format("[PAD{}]", id);
    if (!parts.vocabulary.has(id)) continue;
    const bool is_byte = !bytes && tokens[i].size() == 6 && tokens[i].starts_with("<0x") && tokens[i].ends_with('>');
    types[i] = is_byte ? kByte : kNormal;
  }
  for (const AddedToken& token : parts.added) {
    tokens[static_cast<std::size_t>(token.id)] = token.content;
    types[static_cast<std::size_t>(token.id)] = token.special ? kControl : kUser;
  }
  if (!bytes && parts.rules.unknown != kNoId) types[static_cast<std::size_t>(parts.rules.unknown)] = kUnknown;

  io::GgufMetadata out;
  const auto put = [&](const char* key, io::GgufValue value) { out.emplace_back(std::string("tokenizer.ggml.") + key, std::move(value)); };
  put("model", io::GgufValue::text(bytes ? "gpt2" : "llama"));
  put("pre", io::GgufValue::text(bytes ? pre_name(parts) : "default"));
  if (!bytes) {
    put("add_space_prefix", io::GgufValue::boolean(space_prefix(parts)));
    put("scores", io::GgufValue::f32s(scores_of(parts, types)));
  }
  put("tokens", io::GgufValue::texts(std::move(tokens)));
  put("token_type", io::GgufValue::i32s(std::move(types)));
  if (bytes) {
    std::vector<std::string> merges;
    for (const Merge& merge : parts.merges) {
      const std::string_view left = parts.vocabulary.text(merge.left);
      if (left.find(' ', 1) != left.npos) throw Error(ErrorKind::Unsupported, fmt::format("a token of a GGUF's merge must not hold a blank, but '{}' does", left));
      merges.push_back(std::string(left) + " " + std::string(parts.vocabulary.text(merge.right)));
    }
    put("merges", io::GgufValue::texts(std::move(merges)));
  }
  for (const auto& [name, id] : {std::pair("bos_token_id", parts.special.bos), {"eos_token_id", parts.special.eos},
                                 {"unknown_token_id", parts.special.unknown}, {"padding_token_id", parts.special.padding}})
    if (id) put(name, io::GgufValue::u32(static_cast<std::uint32_t>(*id)));
  put("add_bos_token", io::GgufValue::boolean(parts.special.add_bos));
  put("add_eos_token", io::GgufValue::boolean(parts.special.add_eos));
  if (!parts.special.chat_template.empty()) out.emplace_back("tokenizer.chat_template", io::GgufValue::text(parts.special.chat_template));
  return out;
}

}  // namespace slmc::text
