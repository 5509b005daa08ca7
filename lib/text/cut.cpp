#include "text/cut.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>

#include "text/pre_rules.h"
#include "text/unicode.h"

namespace slmc::text {
namespace {

// The token of an id, as the file spells it.
std::string spelling(const Parts& parts, std::int32_t id) {
  for (const AddedToken& token : parts.added)
    if (token.id == id) return token.content;
  return std::string(parts.vocabulary.text(id));
}

// Calls visit(token's text, its id in the JSON) for each token that a post-processor puts in.
void for_template_tokens(Json& processor, const std::function<void(const std::string& text, Json& id)>& visit) {
  if (!processor.is_object()) return;
  if (Json* inner = processor.contains("processors") ? &processor["processors"] : nullptr; inner && inner->is_array())
    for (Json& one : *inner) for_template_tokens(one, visit);
  for (const char* key : {"sep", "cls"})  // of BertProcessing and RobertaProcessing: ["</s>", 2]
    if (processor.contains(key) && processor[key].is_array() && processor[key].size() == 2 && processor[key][0].is_string())
      visit(processor[key][0].get<std::string>(), processor[key][1]);
  if (!processor.contains("special_tokens") || !processor["special_tokens"].is_object()) return;
  for (const auto& special : processor["special_tokens"].items()) {
    const Json& names = part(special.value(), "tokens");
    if (!names.is_array() || !part(special.value(), "ids").is_array()) continue;
    for (std::size_t i = 0; i < std::min(names.size(), special.value()["ids"].size()); ++i)
      if (names[i].is_string()) visit(names[i].get<std::string>(), special.value()["ids"][i]);
  }
}

// A word as Bpe reads it: bytes for a byte-level token; false when the token is not spelled in bytes.
bool word_of(std::string_view token, bool byte_level, std::string& word) {
  if (!byte_level) {
    word = token;
    return true;
  }
  word.clear();
  for (std::size_t at = 0; at < token.size();) {
    int length = 0;
    const int byte = byte_of_alphabet(code_point(token.data() + at, length));
    if (byte < 0) return false;
    word += static_cast<char>(byte);
    at += static_cast<std::size_t>(length);
  }
  return true;
}

void need_characters(const Parts& parts, std::vector<NeededToken>& all) {
  const auto need = [&](std::string_view token, const std::string& why) {
    if (const std::int32_t id = parts.vocabulary.find(token); id != kNoId) all.push_back({id, why});
    return parts.vocabulary.find(token) != kNoId;
  };
  bool spells = parts.rules.byte_fallback;  // every character has tokens, whatever goes
  for (int b = 0; b < 256; ++b) {
    std::string letter;
    append_utf8(letter, byte_alphabet()[static_cast<std::size_t>(b)]);
    const std::string why = fmt::format("the byte 0x{:02X}", b);
    if (parts.rules.byte_level) need(letter, why);
    if (!parts.rules.byte_level && parts.rules.byte_fallback) spells &= need(fmt::format("<0x{:02X}>", b), why);
  }
  if (parts.rules.byte_level) return;
  need(kBlankMark, "the mark of blanks");
  if (spells) return;
  for (std::int32_t id = 0; id < parts.vocabulary.size(); ++id) {
    const std::string_view text = parts.vocabulary.text(id);
    int length = 0;
    if (!text.empty()) code_point(text.data(), length);
    if (!text.empty() && text.size() == static_cast<std::size_t>(length)) all.push_back({id, "a character without bytes to fall back on"});
  }
}

}  // namespace

std::vector<std::int32_t> new_ids(const std::vector<std::int64_t>& kept, std::int64_t size) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(size), kNoId);
  for (std::size_t i = 0; i < kept.size(); ++i)
    if (kept[i] >= 0 && kept[i] < size && ids[static_cast<std::size_t>(kept[i])] == kNoId)
      ids[static_cast<std::size_t>(kept[i])] = static_cast<std::int32_t>(i);
  return ids;
}

std::vector<NeededToken> needed_of(const Parts& parts) {
  std::vector<NeededToken> all;
  for (const auto& [id, why] : {std::pair(parts.special.bos, "the beginning of a text"),
                                {parts.special.eos, "the end of a text"},
                                {parts.special.unknown, "the unknown token"},
                                {parts.special.padding, "the padding token"}})
    if (id) all.push_back({*id, why});
  if (parts.rules.unknown != kNoId) all.push_back({parts.rules.unknown, "the unknown token"});
  Json processor = part(*parts.rest, "post_processor");
  for_template_tokens(processor, [&](const std::string& text, Json&) {
    if (const std::int32_t id = find_id(parts, text); id != kNoId) all.push_back({id, "the post-processor"});
  });
  for (const AddedToken& token : parts.added)
    if (parts.special.chat_template.find(token.content) != std::string::npos) all.push_back({token.id, "the chat template"});
  need_characters(parts, all);
  return all;
}

std::vector<TokenParts> token_parts_of(const Parts& parts, const Bpe& bpe) {
  std::vector<TokenParts> all(static_cast<std::size_t>(parts.vocabulary.size()));
  std::vector<bool> found(all.size());  // in the text itself
  for (const AddedToken& token : parts.added)
    if (token.id < parts.vocabulary.size()) found[static_cast<std::size_t>(token.id)] = true;
  const BpeScratchPtr scratch = Bpe::make_scratch();
  std::string word;
  for (std::int32_t id = 0; id < parts.vocabulary.size(); ++id) {
    const auto i = static_cast<std::size_t>(id);
    if (found[i] || !parts.vocabulary.has(id) || !word_of(parts.vocabulary.text(id), parts.rules.byte_level, word)) continue;
    const Merge last = bpe.last_merge(word, *scratch);
    if (last.result == id) all[i] = {last.left, last.right};
  }
  return all;
}

std::string numbering_problem(const Parts& parts, const std::vector<std::int32_t>& ids) {
  const auto count = std::count_if(ids.begin(), ids.begin() + parts.vocabulary.size(), [](std::int32_t id) { return id != kNoId; });
  auto next = static_cast<std::int32_t>(count);
  for (const AddedToken& token : parts.added) {
    const std::int32_t id = ids[static_cast<std::size_t>(token.id)];
    if (id == kNoId || parts.vocabulary.has(token.id)) continue;
    if (id != next)
      return fmt::format("the added token '{}' must have the id {}, right after the tokens of the vocabulary, but would have {}", token.content, next, id);
    ++next;
  }
  return {};
}

Parts cut_parts(const Parts& parts, const std::vector<std::int64_t>& kept) {
  std::int64_t size = parts.vocabulary.size();
  for (const AddedToken& token : parts.added) size = std::max<std::int64_t>(size, token.id + 1);
  const std::vector<std::int32_t> ids = new_ids(kept, size);
  const auto id_of = [&](std::int32_t old) { return old == kNoId ? kNoId : ids[static_cast<std::size_t>(old)]; };
  Parts cut;
  cut.rules = parts.rules;
  cut.rules.unknown = id_of(parts.rules.unknown);
  cut.special = parts.special;
  for (std::optional<std::int32_t>* id : {&cut.special.bos, &cut.special.eos, &cut.special.unknown, &cut.special.padding})
    if (*id) *id = id_of(**id);
  for (std::int32_t old = 0; old < parts.vocabulary.size(); ++old)
    if (parts.vocabulary.has(old) && id_of(old) != kNoId) cut.vocabulary.add(parts.vocabulary.text(old), id_of(old));
  for (AddedToken token : parts.added) {
    token.id = id_of(token.id);
    if (token.id != kNoId) cut.added.push_back(std::move(token));
  }
  for (const Merge& merge : parts.merges) {
    const Merge now{id_of(merge.left), id_of(merge.right), id_of(merge.result)};
    if (now.left != kNoId && now.right != kNoId && now.result != kNoId) cut.merges.push_back(now);
  }
  Json rest = *parts.rest;
  if (rest.contains("post_processor"))
    for_template_tokens(rest["post_processor"], [&](const std::string& text, Json& id) {
      if (const std::int32_t now = find_id(cut, text); now != kNoId) id = now;
    });
  if (rest.contains("padding") && rest["padding"].is_object() && part(rest["padding"], "pad_token").is_string())
    if (const std::int32_t now = find_id(cut, rest["padding"]["pad_token"].get<std::string>()); now != kNoId) rest["padding"]["pad_id"] = now;
  cut.rest = std::make_shared<const Json>(std::move(rest));
  return cut;
}

std::vector<NeededToken> Tokenizer::needed() const { return needed_of(parts()); }

std::vector<TokenParts> Tokenizer::token_parts() const { return token_parts_of(parts(), bpe()); }

std::vector<std::string> Tokenizer::cut_problems(const std::vector<std::int64_t>& kept) const {
  constexpr std::size_t kMost = 8;
  const std::vector<std::int32_t> ids = new_ids(kept, size());
  const auto goes = [&](std::int32_t id) { return id != kNoId && ids[static_cast<std::size_t>(id)] == kNoId; };
  std::vector<std::string> problems;
  std::size_t more = 0;
  const auto add = [&](std::string problem) {
    if (problems.size() < kMost) return problems.push_back(std::move(problem));
    ++more;
  };
  for (const NeededToken& needed : this->needed())
    if (goes(needed.id)) add(fmt::format("the token '{}' (id {}) must stay, since it is {}, but goes", spelling(parts(), needed.id), needed.id, needed.why));
  const std::vector<TokenParts> of = token_parts();
  for (std::size_t id = 0; id < of.size(); ++id) {
    if (ids[id] == kNoId) continue;
    for (const std::int32_t part : {of[id].left, of[id].right})
      if (goes(part))
        add(fmt::format("the token '{}' (id {}) must keep the parts that it is merged from, but '{}' (id {}) goes", spelling(parts(), static_cast<std::int32_t>(id)),
                        id, spelling(parts(), part), part));
  }
  if (problems.empty())
    if (std::string problem = numbering_problem(parts(), ids); !problem.empty()) add(std::move(problem));
  if (more > 0) problems.push_back(fmt::format("{} more tokens must stay, but go", more));
  return problems;
}

}  // namespace slmc::text
