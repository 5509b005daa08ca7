#include "text/decoder.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "text/bpe.h"
#include "text/unicode.h"

namespace slmc::text {
namespace {

// A token in the alphabet of GPT-2 as its bytes; any other token as it is.
std::string alphabet_bytes(std::string_view token) {
  std::string bytes;
  int length = 0;
  for (std::size_t at = 0; at < token.size(); at += static_cast<std::size_t>(length)) {
    const int byte = byte_of_alphabet(code_point(token.data() + at, length));
    if (byte < 0) return std::string(token);
    bytes += static_cast<char>(byte);
  }
  return bytes;
}

std::optional<char> fallback_byte(std::string_view token) {  // "<0x0A>"
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return {};
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return {};
    value = value * 16 + digit;
  }
  return static_cast<char>(value);
}

// Neighbouring byte tokens become one text if they are valid UTF-8 together, else one U+FFFD each.
void join_bytes(std::vector<std::string>& tokens) {
  std::vector<std::string> out;
  std::string bytes;
  const auto flush = [&] {
    if (is_utf8(bytes)) {
      if (!bytes.empty()) out.push_back(bytes);
    } else {
      out.insert(out.end(), bytes.size(), "\xEF\xBF\xBD");
    }
    bytes.clear();
  };
  for (std::string& token : tokens) {
    if (const auto byte = fallback_byte(token)) {
      bytes += *byte;
    } else {
      flush();
      out.push_back(std::move(token));
    }
  }
  flush();
  tokens = std::move(out);
}

void fuse(std::vector<std::string>& tokens) {
  std::string all;
  for (const std::string& token : tokens) all += token;
  tokens.assign(1, std::move(all));
}

std::string strip(std::string_view token, const std::string& content, std::size_t start, std::size_t stop) {
  for (std::size_t i = 0; i < start && token.starts_with(content); ++i) token.remove_prefix(content.size());
  for (std::size_t i = 0; i < stop && token.ends_with(content); ++i) token.remove_suffix(content.size());
  return std::string(token);
}

void unmark(std::string& token, const std::string& marker, std::string_view blank) {
  Pattern pattern;
  pattern.literal = marker;
  replace_all(token, pattern, blank, most_bytes(token.size()));
}

}  // namespace

Decoder Decoder::from_json(const Json& json, const std::string& file) {
  Decoder decoder;
  decoder.add(json, file, "decoder");
  return decoder;
}

void Decoder::add(const Json& json, const std::string& file, const std::string& path) {
  if (json.is_null()) return;
  Fields fields(json, file, path, ErrorKind::Data);
  const std::string type = fields.text("type");
  require_few_steps(steps_.size() + 1, file, path);
  Step step;
  const auto one_character = [&](const char* key) {
    std::string text = fields.text(key);
    int bytes = 0;
    if (!text.empty()) code_point(text.data(), bytes);
    if (text.empty() || text.size() != static_cast<std::size_t>(bytes))
      fields.fail(key, "must be one character, but is '" + text + "'");
    return text;
  };
  const auto count = [&](const char* key) {
    const std::int64_t n = fields.integer(key);
    if (n < 0) fields.fail(key, "must be at least 0, but is " + std::to_string(n));
    return static_cast<std::size_t>(n);
  };
  if (type == "Sequence") {
    const Json& parts = fields.at("decoders");
    if (!parts.is_array()) fields.fail("decoders", "must be a list, but is not");
    for (std::size_t i = 0; i < parts.size(); ++i)
      add(parts[i], file, path + ".decoders[" + std::to_string(i) + "]");
    return;
  }
  if (type == "ByteLevel") {
    step.kind = Step::ByteLevel;
  } else if (type == "Metaspace") {
    step.kind = Step::Metaspace;
    step.content = one_character("replacement");
    step.prefix =
        fields.boolean_or("add_prefix_space", true) && fields.text_or("prepend_scheme", "always") != "never";
  } else if (type == "Replace") {
    step.kind = Step::Replace;
    step.pattern = Pattern::from_json(fields.at("pattern"), file, path + ".pattern");
    step.content = fields.text("content");
  } else if (type == "ByteFallback") {
    step.kind = Step::ByteFallback;
  } else if (type == "Strip") {
    step.kind = Step::Strip;
    step.content = one_character("content");
    step.start = count("start");
    step.stop = count("stop");
  } else if (type != "Fuse") {
    throw Error(
        ErrorKind::Unsupported, Place{file, 0, 0, 1, {}},
        "the decoder '" + path +
            "' must be ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip or a Sequence, but is " +
            type);
  }
  steps_.push_back(std::move(step));
}

void Decoder::apply(const Step& step, std::vector<std::string>& tokens, std::size_t most) {
  switch (step.kind) {
    case Step::ByteLevel:
      for (std::string& token : tokens) token = alphabet_bytes(token);
      fuse(tokens);
      tokens[0] = repair_utf8(tokens[0]);
      return;
    case Step::Metaspace:
      for (std::size_t i = 0; i < tokens.size(); ++i)
        unmark(tokens[i], step.content, i == 0 && step.prefix ? "" : " ");
      return;
    case Step::Replace:
      for (std::string& token : tokens) replace_all(token, step.pattern, step.content, most);
      return;
    case Step::ByteFallback: return join_bytes(tokens);
    case Step::Fuse: return fuse(tokens);
    case Step::Strip:
      for (std::string& token : tokens) token = strip(token, step.content, step.start, step.stop);
      return;
  }
}

std::string Decoder::decode(std::vector<std::string> tokens) const {
  if (steps_.empty())
    for (std::size_t i = 1; i < tokens.size(); ++i) tokens[i].insert(0, " ");
  const auto bytes = [&] {
    return std::accumulate(tokens.begin(), tokens.end(), std::size_t{0},
                           [](std::size_t n, const std::string& t) { return n + t.size(); });
  };
  const std::size_t most = most_bytes(bytes());
  for (const Step& step : steps_) {
    apply(step, tokens, most);
    require_length(bytes(), most);
  }
  fuse(tokens);
  return std::move(tokens[0]);
}

std::string Decoder::piece(std::string_view token) const {
  std::string text(token);
  for (const Step& step : steps_) {
    if (step.kind == Step::ByteLevel) text = alphabet_bytes(text);
    if (step.kind == Step::Metaspace) unmark(text, step.content, " ");
    if (step.kind == Step::Replace) replace_all(text, step.pattern, step.content, most_bytes(token.size()));
    require_length(text.size(), most_bytes(token.size()));
    if (step.kind == Step::ByteFallback)
      if (const auto byte = fallback_byte(text)) return std::string(1, *byte);
  }
  return text;
}

}  // namespace slmc::text
