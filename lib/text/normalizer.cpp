#include "text/normalizer.h"

#include <nlohmann/json.hpp>

#include "text/unicode.h"

namespace slmc::text {

Pattern Pattern::from_json(const Json& json, const std::string& file, const std::string& path) {
  Fields fields(json, file, path, ErrorKind::Data);
  Pattern pattern;
  const bool is_regex = fields.has("Regex");
  const std::string text = fields.text(is_regex ? "Regex" : "String");
  if (text.empty()) fields.fail(is_regex ? "Regex" : "String", "must not be empty, but is");
  if (is_regex)
    pattern.regex.emplace(text);
  else
    pattern.literal = text;
  return pattern;
}

void Pattern::find_all(std::string_view text, std::vector<Span>& out) const {
  if (regex) return regex->find_all(text, out);
  for (std::size_t at = text.find(literal); at != text.npos; at = text.find(literal, at + literal.size()))
    out.push_back({at, at + literal.size()});
}

void require_length(std::size_t bytes, std::size_t most) {
  if (bytes > most)
    throw Error(ErrorKind::Data, "the steps of a tokenizer must not make a text longer than " +
                                     std::to_string(most) + " bytes, but do");
}

void require_few_steps(std::size_t steps, const std::string& file, const std::string& path) {
  if (steps > 64)
    throw Error(ErrorKind::Data, Place{file, 0, 0, 1, {}},
                "'" + path + "' must be at most the 64th step, but is a later one");
}

void replace_all(std::string& text, const Pattern& pattern, std::string_view content, std::size_t most) {
  std::vector<Span> found;
  pattern.find_all(text, found);
  if (found.empty()) return;
  require_length(found.size() * content.size(), most);
  std::string out;
  out.reserve(text.size() + found.size() * content.size());
  std::size_t from = 0;
  for (const Span& match : found) {
    out.append(text, from, match.begin - from).append(content);
    from = match.end;
  }
  out.append(text, from);
  text = std::move(out);
}

Normalizer Normalizer::from_json(const Json& json, const std::string& file) {
  Normalizer normalizer;
  normalizer.add(json, file, "normalizer");
  return normalizer;
}

void Normalizer::add(const Json& json, const std::string& file, const std::string& path) {
  if (json.is_null()) return;
  Fields fields(json, file, path, ErrorKind::Data);
  const std::string type = fields.text("type");
  require_few_steps(steps_.size() + 1, file, path);
  if (type == "Sequence") {
    const Json& parts = fields.at("normalizers");
    if (!parts.is_array()) fields.fail("normalizers", "must be a list, but is not");
    for (std::size_t i = 0; i < parts.size(); ++i)
      add(parts[i], file, path + ".normalizers[" + std::to_string(i) + "]");
  } else if (type == "NFC") {
    steps_.push_back({Step::Nfc, {}, {}});
  } else if (type == "Prepend") {
    steps_.push_back({Step::Prepend, {}, fields.text("prepend")});
  } else if (type == "Replace") {
    steps_.push_back({Step::Replace, Pattern::from_json(fields.at("pattern"), file, path + ".pattern"),
                      fields.text("content")});
  } else {
    throw Error(
        ErrorKind::Unsupported, Place{file, 0, 0, 1, {}},
        "the normalizer '" + path + "' must be NFC, Prepend, Replace or a Sequence of them, but is " + type);
  }
}

void Normalizer::apply(std::string& text) const {
  const std::size_t most = most_bytes(text.size());
  for (const Step& step : steps_) {
    if (step.kind == Step::Nfc) {
      if (needs_nfc(text)) text = nfc(text);
    } else if (step.kind == Step::Prepend) {
      if (!text.empty()) text.insert(0, step.content);
    } else {
      replace_all(text, step.pattern, step.content, most);
    }
    require_length(text.size(), most);
  }
}

}  // namespace slmc::text
