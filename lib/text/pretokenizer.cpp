#include "text/pretokenizer.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace slmc::text {

PreTokenizer PreTokenizer::from_json(const Json& json, const std::string& file) {
  PreTokenizer result;
  result.add(json, file, "pre_tokenizer");
  result.choose_plan();
  return result;
}

void PreTokenizer::add(const Json& json, const std::string& file, const std::string& path) {
  if (json.is_null()) return;
  Fields fields(json, file, path, ErrorKind::Data);
  const std::string type = fields.text("type");
  require_few_steps(steps_.size() + 1, file, path);
  if (byte_level_)
    throw Error(ErrorKind::Unsupported, Place{file, 0, 0, 1, {}},
                "the ByteLevel of a pre_tokenizer must be its last step, but " + type + " follows it");
  if (type == "Sequence") {
    const Json& parts = fields.at("pretokenizers");
    if (!parts.is_array()) fields.fail("pretokenizers", "must be a list, but is not");
    for (std::size_t i = 0; i < parts.size(); ++i)
      add(parts[i], file, path + ".pretokenizers[" + std::to_string(i) + "]");
  } else if (type == "ByteLevel") {
    byte_level_ = true;
    Step prefix, split;
    prefix.kind = Step::Prefix;
    if (fields.boolean_or("add_prefix_space", true)) steps_.push_back(prefix);
    split.pattern.regex.emplace(kGpt2Pattern);
    split.source = kGpt2Pattern;
    if (fields.boolean_or("use_regex", true)) steps_.push_back(split);
  } else if (type == "Digits") {
    Step step;
    step.kind = Step::Digits;
    step.behavior = fields.boolean_or("individual_digits", false) ? Behavior::Isolated : Behavior::Contiguous;
    steps_.push_back(step);
  } else if (type == "Split") {
    add_split(std::move(fields), file, path);
  } else if (type == "Metaspace") {
    add_metaspace(std::move(fields));
  } else {
    throw Error(ErrorKind::Unsupported, Place{file, 0, 0, 1, {}},
                "the pre_tokenizer '" + path +
                    "' must be ByteLevel, Split, Digits, Metaspace or a Sequence, but is " + type);
  }
}

void PreTokenizer::add_split(Fields fields, const std::string& file, const std::string& path) {
  Step step;
  step.pattern = Pattern::from_json(fields.at("pattern"), file, path + ".pattern");
  if (step.pattern.regex) step.source = fields.object("pattern").text("Regex");
  const std::string behavior = fields.text("behavior");
  constexpr const char* kNames[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext",
                                    "Contiguous"};
  const auto at = std::find(std::begin(kNames), std::end(kNames), behavior);
  if (at == std::end(kNames)) fields.fail("behavior", "must be a known behavior, but is " + behavior);
  step.behavior = static_cast<Behavior>(at - std::begin(kNames));
  step.invert = fields.boolean_or("invert", false);
  steps_.push_back(std::move(step));
}

void PreTokenizer::add_metaspace(Fields fields) {
  Step step;
  step.kind = Step::Metaspace;
  step.marker = fields.text("replacement");
  int bytes = 0;
  if (!step.marker.empty()) code_point(step.marker.data(), bytes);
  if (step.marker.empty() || step.marker.size() != static_cast<std::size_t>(bytes))
    fields.fail("replacement", "must be one character, but is '" + step.marker + "'");
  const Json* prefix = fields.find("add_prefix_space");
  const bool no_prefix = prefix && prefix->is_boolean() && !prefix->get<bool>();
  const std::string scheme = fields.text_or("prepend_scheme", no_prefix ? "never" : "always");
  if (scheme != "always" && scheme != "first" && scheme != "never")
    fields.fail("prepend_scheme", "must be always, first or never, but is " + scheme);
  if (no_prefix && scheme != "never")
    fields.fail("prepend_scheme", "must be never without add_prefix_space, but is " + scheme);
  step.prepend = scheme == "always" ? Step::Always : scheme == "first" ? Step::First : Step::Never;
  const Json* split = fields.find("split");
  step.split = !split || split->is_null() || fields.boolean_or("split", true);
  marker_ = step.marker;
  steps_.push_back(std::move(step));
}

// The scanners are taken only for exactly what they were written for.
void PreTokenizer::choose_plan() {
  if (!byte_level_ || steps_.empty()) return;
  const auto is_split = [](const Step& step, std::string_view pattern) {
    return step.kind == Step::Split && step.source == pattern && step.behavior == Behavior::Isolated &&
           !step.invert;
  };
  const Step& last = steps_.back();
  const Step& first = steps_.front();
  const bool one = steps_.size() == 1, two = steps_.size() == 2;
  const bool digits = first.kind == Step::Digits && first.behavior == Behavior::Isolated;
  if (is_split(last, kGpt2Pattern) && (one || (two && first.kind == Step::Prefix))) {
    plan_ = Plan::Gpt2;
    prefix_space_ = two;
  } else if (is_split(last, kGpt2Pattern) && two && digits) {
    plan_ = Plan::DigitsGpt2;
  } else if (one && is_split(last, kLlama3Pattern)) {
    plan_ = Plan::Llama3;
  } else if (one && is_split(last, kQwen2Pattern)) {
    plan_ = Plan::Qwen2;
  }
}

std::string_view PreTokenizer::with_prefix(std::string_view text, std::string& buffer) const {
  if (!prefix_space_ || text.empty() || text.front() == ' ') return text;
  return buffer.assign(1, ' ').append(text);
}

std::vector<std::string> PreTokenizer::words_by_steps(std::string_view text, bool at_start) const {
  std::string buffer;
  std::vector<Span> spans;
  run_steps(text, at_start, buffer, spans);
  std::vector<std::string> words;
  for (const Span& span : spans) words.push_back(buffer.substr(span.begin, span.end - span.begin));
  return words;
}

void PreTokenizer::run_steps(std::string_view text, bool at_start, std::string& buffer,
                             std::vector<Span>& spans) const {
  buffer = text;
  spans.assign(text.empty() ? 0 : 1, {0, text.size()});
  std::string rewritten;
  std::vector<Span> next;
  for (const Step& step : steps_) {
    next.clear();
    if (step.kind == Step::Split || step.kind == Step::Digits) {
      for (const Span& span : spans) split(step, buffer, span, next);
    } else {
      rewritten.clear();
      const std::size_t most = most_bytes(text.size());
      at_start &= !spans.empty() && spans[0].begin == 0;
      for (const Span& span : spans) {
        const Span now{rewritten.size(), 0};
        rewrite(step, std::string_view(buffer).substr(span.begin, span.end - span.begin),
                at_start && &span == &spans[0], rewritten);
        require_length(rewritten.size(), most);
        split(step, rewritten, {now.begin, rewritten.size()}, next);
      }
      buffer.swap(rewritten);
    }
    spans.swap(next);
  }
}

void PreTokenizer::rewrite(const Step& step, std::string_view text, bool first, std::string& out) {
  if (step.kind == Step::Prefix) {
    if (!text.starts_with(' ')) out += ' ';
    out += text;
    return;
  }
  const bool has_marker = text.starts_with(step.marker) || text.starts_with(' ');
  if (!has_marker && (step.prepend == Step::Always || (step.prepend == Step::First && first)))
    out += step.marker;
  for (const char c : text) {
    if (c == ' ')
      out += step.marker;
    else
      out += c;
  }
}

void PreTokenizer::find(const Step& step, std::string_view text, std::vector<Span>& found) {
  if (step.kind == Step::Split) return step.pattern.find_all(text, found);
  if (step.kind == Step::Metaspace) {
    for (std::size_t at = text.find(step.marker); at != text.npos;
         at = text.find(step.marker, at + step.marker.size()))
      found.push_back({at, at + step.marker.size()});
    return;
  }
  Cursor cursor(text, 0);
  while (!cursor.done()) {
    const std::size_t at = cursor.at();
    const bool digit = cursor.number();
    cursor.next();
    if (digit) found.push_back({at, cursor.at()});
  }
}

void PreTokenizer::split(const Step& step, std::string_view text, Span span, std::vector<Span>& out) {
  if (step.kind == Step::Prefix || (step.kind == Step::Metaspace && !step.split)) {
    if (span.begin < span.end) out.push_back(span);
    return;
  }
  std::vector<Span> found;
  find(step, text.substr(span.begin, span.end - span.begin), found);
  struct Part {
    Span span;
    bool match;
  };
  std::vector<Part> parts;  // matches and what lies between them cover the text
  std::size_t done = span.begin;
  for (const Span& match : found) {
    const Span at{span.begin + match.begin, span.begin + match.end};
    if (done < at.begin) parts.push_back({{done, at.begin}, step.invert});
    parts.push_back({at, !step.invert});
    done = at.end;
  }
  if (done < span.end) parts.push_back({{done, span.end}, step.invert});

  const Behavior behavior = step.kind == Step::Metaspace ? Behavior::MergedWithNext : step.behavior;
  const bool backwards = behavior == Behavior::MergedWithNext;
  if (backwards) std::reverse(parts.begin(), parts.end());
  std::vector<Span> words;
  bool previous = false;  // whether the part before was a match
  for (const Part& part : parts) {
    const bool merged = behavior == Behavior::MergedWithPrevious || backwards;
    const bool join = !words.empty() && ((merged && part.match && !previous) ||
                                         (behavior == Behavior::Contiguous && part.match == previous));
    if (join)
      words.back() = {std::min(words.back().begin, part.span.begin),
                      std::max(words.back().end, part.span.end)};
    else if (behavior != Behavior::Removed || !part.match)
      words.push_back(part.span);
    previous = part.match;
  }
  if (backwards) std::reverse(words.begin(), words.end());
  for (const Span& word : words)
    if (word.begin < word.end) out.push_back(word);
}

}  // namespace slmc::text
