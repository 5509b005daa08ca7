#include "text/pre_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "text/scanners.h"

namespace slmc::text {
namespace {

Json split(std::string_view pattern) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", std::string(pattern)}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}
Json byte_level(bool regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", regex}};
}
Json digits() { return {{"type", "Digits"}, {"individual_digits", true}}; }

// One row per set of rules. The first name is the one that is written. NFC is the normalizer of the model
// that the name was made for; llama.cpp itself does not normalize.
struct PreRules {
  std::vector<std::string_view> names;
  bool nfc, ignore_merges;
  std::vector<Json> steps;
};

const std::vector<PreRules>& pre_rules() {
  // clang-format off
  static const std::vector<PreRules> rules = {
      {{"gpt-2", "phi-2", "jais", "exaone4", "gigachat", "trillion", "mellum", "modern-bert", "granite-docling"},
       false, false, {byte_level(true)}},
      {{"smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b"}, false, false, {digits(), byte_level(true)}},
      {{"command-r"}, true, false, {digits(), byte_level(true)}},
      {{"olmo", "mpt"}, true, false, {byte_level(true)}},
      {{"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2"},
       false, true, {split(kLlama3Pattern), byte_level(false)}},
      {{"smaug-bpe", "dbrx", "glm4", "chatglm-bpe"}, false, false, {split(kLlama3Pattern), byte_level(false)}},
      {{"qwen2", "deepseek-r1-qwen", "megrez"}, true, false, {split(kQwen2Pattern), byte_level(false)}},
      {{"stablelm2", "hunyuan", "grok-2"}, false, false, {split(kQwen2Pattern), byte_level(false)}},
      {{"default", ""}, false, false,
       {split(R"([\p{P}\$\+<=>\^~\|]+)"), split(kGpt2Pattern), split(R"(\p{N}+)"), split("[0-9][0-9][0-9]"), byte_level(false)}},
  };
  // clang-format on
  return rules;
}

// A component as the list of its steps, each with its defaults filled in: equal lists mean equal rules.
std::vector<std::string> steps_of(const Json& component) {
  if (component.is_null()) return {};
  std::vector<std::string> steps;
  const std::string type =
      part(component, "type").is_string() ? part(component, "type").get<std::string>() : "";
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

Json prepend() { return {{"type", "Prepend"}, {"prepend", kBlankMark}}; }
Json replace_blanks() {
  return {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kBlankMark}};
}

}  // namespace

Json json_sequence(const char* key, std::vector<Json> parts) {
  if (parts.size() == 1) return parts[0];
  Json list = Json::array();
  for (Json& one : parts) list.push_back(std::move(one));
  return {{"type", "Sequence"}, {key, std::move(list)}};
}
NamedRules byte_level_rules(const std::string& name, const std::string& file) {
  for (const PreRules& rules : pre_rules())
    if (std::find(rules.names.begin(), rules.names.end(), name) != rules.names.end())
      return {std::make_shared<const Json>(rules.nfc ? Json{{"type", "NFC"}} : Json()),
              std::make_shared<const Json>(json_sequence("pretokenizers", rules.steps)), rules.ignore_merges};
  std::string known;
  for (const PreRules& rules : pre_rules())
    known += (known.empty() ? "" : ", ") + std::string(rules.names[0]);
  throw Error(ErrorKind::Unsupported, Place{file, 0, 0, 1, {}},
              "tokenizer.ggml.pre must be a known set of rules (" + known + "), but is '" + name + "'");
}

std::string pre_name(const Parts& parts) {
  const std::vector<std::string> normalizer = steps_of(part(*parts.rest, "normalizer"));
  const std::vector<std::string> words = steps_of(part(*parts.rest, "pre_tokenizer"));
  for (const PreRules& rules : pre_rules()) {
    const std::vector<std::string> expected =
        rules.nfc ? std::vector<std::string>{"NFC"} : std::vector<std::string>{};
    if (normalizer == expected && words == steps_of(json_sequence("pretokenizers", rules.steps)) &&
        rules.ignore_merges == parts.rules.ignore_merges)
      return std::string(rules.names[0]);
  }
  std::string have;
  for (const auto* steps : {&normalizer, &words})
    for (const std::string& step : *steps) have += (have.empty() ? "" : ", ") + step;
  throw Error(ErrorKind::Unsupported,
              "a byte-level tokenizer must have rules that llama.cpp knows by name, but has " + have +
                  (parts.rules.ignore_merges ? ", ignore_merges" : ""));
}

Json sentencepiece_normalizer(bool prefix) {
  return prefix ? json_sequence("normalizers", {prepend(), replace_blanks()}) : replace_blanks();
}

bool has_space_prefix(const Parts& parts) {
  const std::vector<std::string> normalizer = steps_of(part(*parts.rest, "normalizer"));
  const std::string prefix = steps_of(prepend())[0], blanks = steps_of(replace_blanks())[0];
  const Json& words = part(*parts.rest, "pre_tokenizer");
  if (words.is_null() && normalizer == std::vector{prefix, blanks}) return true;
  if (words.is_null() && normalizer == std::vector{blanks}) return false;
  if (part(words, "type") == "Metaspace" && part(words, "replacement") == kBlankMark && normalizer.empty())
    return part(words, "prepend_scheme") != "never";
  throw Error(ErrorKind::Unsupported,
              "a tokenizer without ByteLevel must replace blanks by U+2581 and do nothing else, as llama.cpp "
              "does, but does more");
}

}  // namespace slmc::text
