// tokenizer.json and tokenizer_config.json, read and written.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "text/parts.h"

namespace slmc::text {
namespace {

[[noreturn]] void fail(const std::string& file, const std::string& message) {
  throw Error(ErrorKind::Data, Place{file, 0, 0, 1, {}}, message);
}

std::int32_t token_id(const Json& value, std::string_view token, const std::string& file) {
  const bool fits =
      value.is_number_unsigned() && value.get<std::uint64_t>() < static_cast<std::uint64_t>(kMostIds);
  if (!fits)
    fail(file, "the id of token '" + std::string(token) + "' must be a whole number below " +
                   std::to_string(kMostIds) + ", but is " + dump_compact(value));
  return value.get<std::int32_t>();
}

// Vocabulary, merges and added tokens know no file; their errors get it here.
template <typename Body>
void in_file(const std::string& file, Body body) {
  try {
    body();
  } catch (const Error& error) {
    throw Error(error.kind(), Place{file, 0, 0, 1, {}}, error.message());
  }
}

bool flag(Fields& fields, const char* key, bool fallback) {  // null means the default, as for `tokenizers`
  const Json* value = fields.find(key);
  return !value || value->is_null() ? fallback : fields.boolean_or(key, fallback);
}

void refuse(Fields& model, const char* key) {  // "" and null are the same as absent
  const Json* value = model.find(key);
  if (!value || value->is_null() || (value->is_string() && value->get_ref<const std::string&>().empty()))
    return;
  if (value->is_number() && value->get<double>() == 0) return;
  throw Error(ErrorKind::Unsupported,
              std::string("the model's '") + key + "' must be absent, but is " + dump_compact(*value));
}

void read_vocabulary(Parts& parts, const Json& vocab, const std::string& file) {
  if (!vocab.is_object()) fail(file, "'model.vocab' must be an object, but is not");
  for (const auto& [token, id] : vocab.items()) parts.vocabulary.add(token, token_id(id, token, file));
}

void read_merges(Parts& parts, const Json& merges, const std::string& file) {
  if (!merges.is_array()) fail(file, "'model.merges' must be an array, but is not");
  parts.merges.reserve(merges.size());
  for (const Json& merge : merges) {
    if (merge.is_string()) {  // before tokenizers 0.20: "left right"
      const std::string& line = merge.get_ref<const std::string&>();
      if (line.starts_with("#version")) continue;
      const std::size_t blank = line.find(' ');
      if (blank == line.npos || line.find(' ', blank + 1) != line.npos)
        fail(file, "a merge must be two tokens and a blank between them, but is '" + line + "'");
      add_merge(parts, std::string_view(line).substr(0, blank), std::string_view(line).substr(blank + 1),
                file);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      add_merge(parts, merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>(), file);
    } else {
      fail(file, "a merge must be a pair of tokens, but is " + dump_compact(merge).substr(0, 80));
    }
  }
}

void read_model(Parts& parts, Json& model, const std::string& file) {
  Fields fields(model, file, "model", ErrorKind::Data);
  const std::string type = fields.text_or("type", "BPE");
  if (type != "BPE")
    throw Error(ErrorKind::Unsupported, Place{file, 0, 0, 1, {}},
                "the tokenizer's model must be BPE, but is " + type);
  for (const char* key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) refuse(fields, key);
  read_vocabulary(parts, fields.at("vocab"), file);
  read_merges(parts, fields.at("merges"), file);
  parts.rules.byte_fallback = flag(fields, "byte_fallback", false);
  parts.rules.ignore_merges = flag(fields, "ignore_merges", false);
  parts.rules.fuse_unknown = flag(fields, "fuse_unk", false);
  const Json* unknown = fields.find("unk_token");
  if (unknown && !unknown->is_null()) {
    parts.rules.unknown = parts.vocabulary.find(fields.text("unk_token"));
    if (parts.rules.unknown == kNoId) fields.fail("unk_token", "must be in the vocabulary, but is not");
    parts.special.unknown = parts.rules.unknown;
  }
}

// `tokenizers` ignores the stated id: a token of the vocabulary has the id from there, the others are
// numbered on from the vocabulary's count. A file that says something else would mean other ids there than
// here.
void read_added(Parts& parts, const Json& added, const std::string& file) {
  if (added.is_null()) return;
  if (!added.is_array()) fail(file, "'added_tokens' must be an array, but is not");
  std::int32_t next = parts.vocabulary.count();
  Vocabulary seen;
  for (std::size_t i = 0; i < added.size(); ++i) {
    Fields fields(added[i], file, "added_tokens[" + std::to_string(i) + "]", ErrorKind::Data);
    AddedToken token;
    token.content = fields.text("content");
    if (token.content.empty()) continue;
    token.id = token_id(fields.at("id"), token.content, file);
    token.special = fields.boolean_or("special", false);
    token.normalized = fields.boolean_or("normalized", !token.special);
    token.single_word = fields.boolean_or("single_word", false);
    token.lstrip = fields.boolean_or("lstrip", false);
    token.rstrip = fields.boolean_or("rstrip", false);
    const std::int32_t known = parts.vocabulary.find(token.content);
    const std::int32_t expected = known != kNoId ? known : next++;
    if (token.id != expected || (known == kNoId && parts.vocabulary.has(token.id)))
      fields.fail("id", "must be " + std::to_string(expected) + " for '" + token.content + "', but is " +
                            std::to_string(token.id));
    seen.add(token.content, token.id);
    parts.added.push_back(std::move(token));
  }
}

const Json* template_processing(const Json& processor) {
  if (!processor.is_object()) return nullptr;
  const Json& type = part(processor, "type");
  if (type == "TemplateProcessing") return &processor;
  const Json& inner = part(processor, "processors");
  if (inner.is_array())
    for (const Json& one : inner)
      if (const Json* found = template_processing(one)) return found;
  return nullptr;
}

void read_post_processor(Parts& parts, const Json& processor) {
  const Json* found = template_processing(processor);
  const Json& single = found ? part(*found, "single") : part({}, "");
  if (!single.is_array() || single.empty()) return;
  const auto special = [&](const Json& piece) -> std::optional<std::int32_t> {
    const Json& token = piece.is_object() ? part(piece, "SpecialToken") : part({}, "");
    const Json& id = token.is_object() ? part(token, "id") : part({}, "");
    const std::int32_t known = id.is_string() ? find_id(parts, id.get_ref<const std::string&>()) : kNoId;
    return known == kNoId ? std::nullopt : std::optional(known);
  };
  if (const auto bos = special(single.front())) parts.special.bos = bos, parts.special.add_bos = true;
  if (const auto eos = special(single.back()); eos && single.size() > 1)
    parts.special.eos = eos, parts.special.add_eos = true;
}

Json added_json(const std::vector<AddedToken>& added) {
  Json list = Json::array();
  for (const AddedToken& token : added)
    list.push_back({{"id", token.id},
                    {"content", token.content},
                    {"single_word", token.single_word},
                    {"lstrip", token.lstrip},
                    {"rstrip", token.rstrip},
                    {"normalized", token.normalized},
                    {"special", token.special}});
  return list;
}

std::string quoted(std::string_view text) { return dump_compact(Json(std::string(text))); }

}  // namespace

const Json& part(const Json& document, const char* key) {
  static const Json null;
  const auto at = document.is_object() ? document.find(key) : document.end();
  return at == document.end() ? null : *at;
}

std::int32_t find_id(const Parts& parts, std::string_view token) {
  for (const AddedToken& added : parts.added)
    if (added.content == token) return added.id;
  return parts.vocabulary.find(token);
}

void add_merge(Parts& parts, std::string_view left, std::string_view right, const std::string& file) {
  std::string joined(left);
  joined += right;
  const Merge merge{parts.vocabulary.find(left), parts.vocabulary.find(right), parts.vocabulary.find(joined)};
  if (merge.left != kNoId && merge.right != kNoId && merge.result != kNoId && !left.empty() && !right.empty())
    return parts.merges.push_back(merge);
  const std::string_view missing = merge.left == kNoId    ? left
                                   : merge.right == kNoId ? right
                                                          : std::string_view(joined);
  fail(file, "a merge must join two tokens to a third of the vocabulary, but '" + std::string(missing) +
                 "' of '" + std::string(left) + "' + '" + std::string(right) + "' is not in it");
}

Parts parts_from_json(std::string_view json, const std::string& file) {
  Json document = parse_json(json, file, ErrorKind::Data);
  Parts parts;
  Fields fields(document, file, "", ErrorKind::Data);
  if (const Json& version = part(document, "version"); version.is_string() && version != "1.0")
    throw Error(ErrorKind::Unsupported, Place{file, 0, 0, 1, {}},
                "the version of a tokenizer.json must be 1.0, but is " + dump_compact(version));
  in_file(file, [&] {
    fields.at("model");
    read_model(parts, document["model"], file);
    read_added(parts, part(document, "added_tokens"), file);
    read_post_processor(parts, part(document, "post_processor"));
  });
  document["model"]["vocab"] = Json::object();
  document["model"]["merges"] = Json::array();
  document["added_tokens"] = Json::array();
  parts.rest = std::make_shared<const Json>(std::move(document));
  return parts;
}

// Written piece by piece: a Json object of a whole vocabulary would look every key up in a list.
std::string json_from_parts(const Parts& parts) {
  Json shell = *parts.rest;
  shell["added_tokens"] = added_json(parts.added);
  Json model = std::move(shell["model"]);
  shell.erase("model");
  model.erase("vocab");
  model.erase("merges");
  model["type"] = "BPE";
  std::string out = dump_compact(shell);
  out.back() = ',';
  out += "\"model\":" + dump_compact(model);
  out.back() = ',';
  out += "\"vocab\":{";
  for (std::int32_t id = 0; id < parts.vocabulary.size(); ++id)
    if (parts.vocabulary.has(id)) out += quoted(parts.vocabulary.text(id)) + ":" + std::to_string(id) + ",";
  if (out.back() == ',') out.pop_back();
  out += "},\"merges\":[";
  for (const Merge& merge : parts.merges)
    out += "[" + quoted(parts.vocabulary.text(merge.left)) + "," +
           quoted(parts.vocabulary.text(merge.right)) + "],";
  if (out.back() == ',') out.pop_back();
  return out + "]}}\n";
}

void read_tokenizer_config(Parts& parts, const Json& config, const std::string& file) {
  if (!config.is_object()) fail(file, "tokenizer_config.json must be an object, but is not");
  const auto read = [&](const char* key, std::optional<std::int32_t>& id) {
    const Json* value = &part(config, key);
    if (value->is_object()) value = &part(*value, "content");  // an AddedToken written out
    if (!value->is_string()) return;
    const std::int32_t known = find_id(parts, value->get_ref<const std::string&>());
    if (known != kNoId) id = known;  // one that does not exist can't be used either
  };
  read("bos_token", parts.special.bos);
  read("eos_token", parts.special.eos);
  read("unk_token", parts.special.unknown);
  read("pad_token", parts.special.padding);
  if (part(config, "add_bos_token").is_boolean())
    parts.special.add_bos = part(config, "add_bos_token").get<bool>() && parts.special.bos;
  if (part(config, "add_eos_token").is_boolean())
    parts.special.add_eos = part(config, "add_eos_token").get<bool>() && parts.special.eos;
  if (part(config, "chat_template").is_string())
    parts.special.chat_template = part(config, "chat_template").get<std::string>();
}

void read_model_config(Parts& parts, const Json& config) {
  const auto read = [&](const char* key, std::optional<std::int32_t>& id) {
    const Json* value = &part(config, key);
    if (value->is_array() && !value->empty()) value = &value->front();  // several ends: the first
    const std::int64_t stated = value->is_number_unsigned() && value->get<std::uint64_t>() < kMostIds
                                    ? value->get<std::int64_t>()
                                    : -1;
    const auto token = static_cast<std::int32_t>(stated);
    const bool added = std::any_of(parts.added.begin(), parts.added.end(),
                                   [&](const AddedToken& one) { return one.id == token; });
    if (!id && (added || parts.vocabulary.has(token))) id = token;
  };
  read("bos_token_id", parts.special.bos);
  read("eos_token_id", parts.special.eos);
  read("pad_token_id", parts.special.padding);
}

Json tokenizer_config(const Parts& parts) {
  Json config = Json::object();
  const auto put = [&](const char* key, std::optional<std::int32_t> id) {
    if (!id) return;
    for (const AddedToken& added : parts.added)
      if (added.id == *id) return void(config[key] = added.content);
    config[key] = std::string(parts.vocabulary.text(*id));
  };
  put("bos_token", parts.special.bos);
  put("eos_token", parts.special.eos);
  put("unk_token", parts.special.unknown);
  put("pad_token", parts.special.padding);
  config["clean_up_tokenization_spaces"] = false;
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  if (!parts.special.chat_template.empty()) config["chat_template"] = parts.special.chat_template;
  return config;
}

}  // namespace slmc::text
