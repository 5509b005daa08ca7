#include "ir/vocabulary.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "ir/build.h"
#include "ir/origin.h"

namespace slmc::ir {
namespace {

using text::NeededToken;

constexpr const char* kGeneration = "generation_config.json";

// Calls visit(key, ids) for each key of a config that gives one token or a list of them: "eos_token_id", "tokenizer.ggml.eot_token_id".
void for_token_ids(Json& config, const std::function<void(const std::string& key, Json& ids)>& visit) {
  if (!config.is_object()) return;
  for (const auto& item : config.items())
    if (item.key().ends_with("_token_id") || item.key().ends_with("_token_ids") || item.key().ends_with("suppress_tokens")) visit(item.key(), item.value());
}

// The id after a cut: itself where it never was a row, nothing where its row goes.
std::optional<std::int64_t> moved(const Json& id, const std::map<std::int64_t, std::int64_t>& place) {
  if (!id.is_number_integer() || id.get<std::int64_t>() < 0) return std::nullopt;
  const auto at = place.find(id.get<std::int64_t>());
  return at == place.end() ? std::nullopt : std::optional(at->second);
}

void move_ids(Json& ids, const std::map<std::int64_t, std::int64_t>& place) {
  if (ids.is_number_integer() && ids.get<std::int64_t>() >= 0) {
    const std::optional<std::int64_t> id = moved(ids, place);
    ids = id ? Json(*id) : Json();
  } else if (ids.is_array()) {
    Json list = Json::array();
    for (const Json& one : ids)
      if (const std::optional<std::int64_t> id = moved(one, place)) list.push_back(*id);
    ids = std::move(list);
  }
}

// tokenizer_config.json and special_tokens_map.json name tokens by text: one that is gone would be added anew by whoever reads them.
void drop_gone_texts(Json& json, const text::Tokenizer& tokenizer) {
  const auto gone = [&](const Json& token) {
    const Json& text = token.is_object() && token.contains("content") ? token["content"] : token;
    return text.is_string() && !tokenizer.id_of(text.get<std::string>());
  };
  for (const char* key : {"additional_special_tokens", "extra_special_tokens"}) {
    if (!json.contains(key) || !json[key].is_array()) continue;
    Json list = Json::array();
    for (const Json& token : json[key])
      if (!gone(token)) list.push_back(token);
    json[key] = std::move(list);
  }
}

void rekey_added(Json& json, const std::map<std::int64_t, std::int64_t>& place) {
  if (!json.contains("added_tokens_decoder") || !json["added_tokens_decoder"].is_object()) return;
  Json moved_tokens = Json::object();
  for (const auto& token : json["added_tokens_decoder"].items()) {
    std::int64_t id = -1;
    if (std::sscanf(token.key().c_str(), "%ld", &id) != 1) continue;
    if (const auto at = place.find(id); at != place.end()) moved_tokens[std::to_string(at->second)] = token.value();
  }
  json["added_tokens_decoder"] = std::move(moved_tokens);
}

void cut_side_files(Model::State& state, const std::map<std::int64_t, std::int64_t>& place) {
  for (const char* name : {"vocab.json", "merges.txt"}) state.side_files.erase(name);   // tokenizer.json says the same
  for (auto& [name, text] : state.side_files) {
    if (!name.ends_with(".json")) continue;
    Json json = parse_json(text, name, ErrorKind::Model);
    if (!json.is_object()) continue;
    const Json before = json;
    if (name == kGeneration) for_token_ids(json, [&](const std::string&, Json& ids) { move_ids(ids, place); });
    if (name == "added_tokens.json") {
      Json left = Json::object();
      for (const auto& token : json.items())
        if (const auto id = moved(token.value(), place)) left[token.key()] = *id;
      json = std::move(left);
    }
    if (name.starts_with("tokenizer") || name.starts_with("special")) {
      rekey_added(json, place);
      if (state.tokenizer) drop_gone_texts(json, *state.tokenizer);
    }
    if (json != before) text = json.dump(2) + "\n";
  }
}

}  // namespace

std::vector<NeededToken> needed_tokens(const Model& model) {
  if (!model.tokenizer()) return {};
  const text::Tokenizer& tokenizer = *model.tokenizer();
  std::vector<NeededToken> all = tokenizer.needed();
  const auto add = [&](const std::string& file, Json config) {
    for_token_ids(config, [&](const std::string& key, Json& ids) {
      for (const Json& id : ids.is_array() ? ids : Json::array({ids}))
        if (id.is_number_integer() && id.get<std::int64_t>() >= 0 && id.get<std::int64_t>() < model.sizes().vocab &&
            tokenizer.has(id.get<std::int32_t>()) && !key.ends_with("suppress_tokens"))
          all.push_back({id.get<std::int32_t>(), fmt::format("'{}' of {}", key, file)});
    });
  };
  add(model.container() == "gguf" ? "the metadata" : "config.json", model.config());
  if (const auto it = model.side_files().find(kGeneration); it != model.side_files().end())
    add(kGeneration, parse_json(it->second, kGeneration, ErrorKind::Model));
  std::stable_sort(all.begin(), all.end(), [](const NeededToken& a, const NeededToken& b) { return a.id < b.id; });
  all.erase(std::unique(all.begin(), all.end(), [](const NeededToken& a, const NeededToken& b) { return a.id == b.id; }), all.end());
  return all;
}

std::vector<std::int64_t> closed_vocabulary(const Model& model, const std::vector<std::int64_t>& wanted, std::int64_t size) {
  std::vector<text::TokenParts> parts;
  if (model.tokenizer()) parts = model.tokenizer()->token_parts();
  std::set<std::int64_t> kept;
  // The token and what it is merged from, as far as not kept yet.
  const auto missing = [&](std::int64_t token) {
    std::set<std::int64_t> found;
    std::vector<std::int64_t> next = {token};
    while (!next.empty()) {
      const std::int64_t id = next.back();
      next.pop_back();
      if (id < 0 || kept.contains(id) || !found.insert(id).second || id >= static_cast<std::int64_t>(parts.size())) continue;
      next.push_back(parts[static_cast<std::size_t>(id)].left);
      next.push_back(parts[static_cast<std::size_t>(id)].right);
    }
    return found;
  };
  for (const NeededToken& needed : needed_tokens(model)) kept.merge(missing(needed.id));
  const auto least = static_cast<std::int64_t>(kept.size());
  if (size < least || size > model.sizes().vocab)
    throw Error(ErrorKind::Recipe, fmt::format("the vocabulary must have {} to {} tokens, but would have {}", least, model.sizes().vocab, size));
  for (const std::int64_t token : wanted) {
    std::set<std::int64_t> more = missing(token);
    if (static_cast<std::int64_t>(kept.size() + more.size()) <= size) kept.merge(more);
    if (static_cast<std::int64_t>(kept.size()) == size) break;
  }
  return {kept.begin(), kept.end()};
}

std::vector<std::int64_t> first_tokens(const Model& model, std::int64_t size) {
  std::vector<std::int64_t> order, empty;
  for (std::int64_t id = 0; id < model.sizes().vocab; ++id)
    (!model.tokenizer() || model.tokenizer()->has(static_cast<std::int32_t>(id)) ? order : empty).push_back(id);
  order.insert(order.end(), empty.begin(), empty.end());
  return closed_vocabulary(model, order, size);
}

std::vector<Violation> vocabulary_violations(const Model& base, const std::vector<std::int64_t>& kept) {
  std::vector<Violation> all;
  if (!base.tokenizer()) return all;
  const auto nearest = [&] {
    const std::size_t whole = closed_vocabulary(base, kept, base.sizes().vocab).size();
    return fmt::format("{} tokens: these, what they are merged from, and those that must stay", whole);
  };
  for (const std::string& problem : base.tokenizer()->cut_problems(kept)) all.push_back({"vocab", problem, all.empty() ? nearest() : all.front().nearest});
  if (!all.empty()) return all;
  const std::set<std::int64_t> there(kept.begin(), kept.end());
  for (const NeededToken& needed : needed_tokens(base))
    if (!there.contains(needed.id)) all.push_back({"vocab", fmt::format("the token {} must stay, since it is {}, but goes", needed.id, needed.why), all.empty() ? nearest() : all.front().nearest});
  return all;
}

void cut_vocabulary(Model::State& state, const std::vector<std::int64_t>& kept) {
  std::map<std::int64_t, std::int64_t> place;
  for (std::size_t i = 0; i < kept.size(); ++i) place.try_emplace(kept[i], static_cast<std::int64_t>(i));
  if (state.metadata) {
    io::GgufMetadata metadata = text::cut_metadata(*state.metadata, kept);
    Json ids = config_from_metadata(metadata);
    for_token_ids(ids, [&](const std::string& key, Json& value) {
      move_ids(value, place);
      if (value.is_number()) return io::set(metadata, key, io::GgufValue::u32(value.get<std::uint32_t>()));
      std::erase_if(metadata, [&](const auto& pair) { return pair.first == key; });
    });
    state.config = config_from_metadata(metadata);
    if (state.tokenizer) state.tokenizer = text::Tokenizer::from_gguf(metadata, state.source);
    state.metadata = std::make_shared<const io::GgufMetadata>(std::move(metadata));
  } else {
    for_token_ids(state.config, [&](const std::string&, Json& ids) { move_ids(ids, place); });
    if (state.tokenizer) state.tokenizer = state.tokenizer->cut(kept);
  }
  cut_side_files(state, place);
}

}  // namespace slmc::ir
