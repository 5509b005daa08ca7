#pragma once
// The `pre_tokenizer` of tokenizer.json: cuts normalized text into the words that BPE sees. Null, ByteLevel,
// Split, Digits, Metaspace and a Sequence of them; ByteLevel ends a Sequence.
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "text/normalizer.h"
#include "text/scanners.h"

namespace slmc::text {

class PreTokenizer {
 public:
  PreTokenizer() = default;  // the whole text is one word
  static PreTokenizer from_json(const Json& json, const std::string& file);
  bool byte_level() const { return byte_level_; }
  // The character that stands for a blank: U+2581 unless a Metaspace says otherwise.
  const std::string& marker() const { return marker_; }
  // Words may also be cut before a marker that follows something else: the caller has checked that no merge
  // crosses there, so that only speed changes.
  void allow_cuts() { cuts_ = true; }

  // Calls emit(word) for each word. `at_start`: the text begins where the user's text begins. `buffer` holds
  // rewritten text; the words lie in it or in `text`. Valid UTF-8.
  template <typename Emit>
  void words(std::string_view text, bool at_start, std::string& buffer, Emit emit) const {
    const auto put = [&](std::size_t begin, std::size_t end) { emit(text.substr(begin, end - begin)); };
    switch (plan_) {
      case Plan::Gpt2: return scan_gpt2(text = with_prefix(text, buffer), false, put);
      case Plan::DigitsGpt2: return scan_gpt2(text, true, put);
      case Plan::Llama3: return scan_llama3(text, 3, put);
      case Plan::Qwen2: return scan_llama3(text, 1, put);
      case Plan::Steps: break;
    }
    std::vector<Span> spans{{0, text.size()}};
    if (!steps_.empty()) run_steps(text, at_start, buffer, spans), text = buffer;
    for (const Span& span : spans) {
      if (cuts_)
        scan_marked(text.substr(span.begin, span.end - span.begin), emit);
      else
        put(span.begin, span.end);
    }
  }
  // The same by the steps as the file states them, without the hand-written scanners: the slow, obvious twin.
  std::vector<std::string> words_by_steps(std::string_view text, bool at_start) const;

 private:
  enum class Plan { Steps, Gpt2, DigitsGpt2, Llama3, Qwen2 };
  enum class Behavior { Isolated, Removed, MergedWithPrevious, MergedWithNext, Contiguous };
  struct Step {
    enum Kind { Split, Digits, Metaspace, Prefix } kind = Split;
    Pattern pattern;                                        // Split
    Behavior behavior = Behavior::Isolated;                 // Split, Digits
    bool invert = false;                                    // Split
    enum Prepend { Never, First, Always } prepend = Never;  // Metaspace
    bool split = true;                                      // Metaspace
    std::string marker;                                     // Metaspace
    std::string source;                                     // Split: the regular expression
  };
  void add(const Json& json, const std::string& file, const std::string& path);
  void add_split(Fields fields, const std::string& file, const std::string& path);
  void add_metaspace(Fields fields);
  void choose_plan();
  std::string_view with_prefix(std::string_view text, std::string& buffer) const;
  void run_steps(std::string_view text, bool at_start, std::string& buffer, std::vector<Span>& spans) const;
  static void find(const Step& step, std::string_view text, std::vector<Span>& found);
  static void split(const Step& step, std::string_view text, Span span, std::vector<Span>& out);
  static void rewrite(const Step& step, std::string_view text, bool first, std::string& out);

  template <typename Emit>
  void scan_marked(std::string_view text, Emit emit) const {
    std::size_t from = 0;
    for (std::size_t at = text.find(marker_); at != text.npos; at = text.find(marker_, at + marker_.size())) {
      if (at == from || text.substr(0, at).ends_with(marker_)) continue;
      emit(text.substr(from, at - from));
      from = at;
    }
    if (from < text.size()) emit(text.substr(from));
  }

  std::vector<Step> steps_;
  bool byte_level_ = false;
  bool prefix_space_ = false;
  bool cuts_ = false;
  std::string marker_ = "\u2581";
  Plan plan_ = Plan::Steps;
};

}  // namespace slmc::text
