#include "data/eval_sets.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/documents.h"
#include "text/unicode.h"

namespace slmc::data {
namespace {

void replace(std::string& text, std::string_view from, std::string_view to) {  // left to right, once
  std::string out;
  std::size_t done = 0;
  for (std::size_t at = text.find(from); at != text.npos; at = text.find(from, done)) {
    out.append(text, done, at - done).append(to);
    done = at + from.size();
  }
  text = out.append(text, done);
}

void drop_brackets(std::string& text) {  // the shortest "[...]" without a newline in it
  std::string out;
  std::size_t done = 0;
  for (std::size_t open = text.find('['); open != text.npos; open = text.find('[', open)) {
    const std::size_t end = text.find_first_of("]\n", open);
    if (end == text.npos) break;
    if (text[end] == '\n') {
      open = end;
      continue;
    }
    out.append(text, done, open - done);
    done = open = end + 1;
  }
  text = out.append(text, done);
}

std::string_view strip(std::string_view text) {
  const auto blank = [](std::string_view at) {  // White_Space, and the four separators that Python strips too
    int bytes = 0;
    const char32_t code = text::code_point(at.data(), bytes);
    return (text::class_table()[code] & text::kSpace) || (code >= 0x1C && code <= 0x1F)
               ? static_cast<std::size_t>(bytes)
               : 0;
  };
  while (!text.empty() && blank(text) > 0) text.remove_prefix(blank(text));
  while (!text.empty() && blank(text.substr(text::last_character(text))) > 0)
    text.remove_suffix(text.size() - text::last_character(text));
  return text;
}

std::int64_t characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

template <typename Item, typename Read>
std::vector<Item> read_lines(const std::filesystem::path& path, std::int64_t first, Read read) {
  const MappedFile file = open_data(path);
  std::vector<Item> items;
  for_each_line(text_of(file), [&](std::string_view line, int number, std::size_t) {
    if (first > 0 && static_cast<std::int64_t>(items.size()) == first) return;
    const Json object = parse_line(line, path.string(), number);
    try {
      Fields fields(object, path.string(), "", ErrorKind::Data);
      items.push_back(read(fields));
    } catch (const Error& error) {
      Place place = error.diagnostics().front().place;
      place.line = number;
      place.column = 1;
      throw Error(ErrorKind::Data, place, error.message());
    }
  });
  if (items.empty())
    throw Error(ErrorKind::Data, Place{path.string(), 0, 0, 1, {}},
                "an evaluation file must have at least one item, but is empty");
  return items;
}

}  // namespace

std::string clean_up(std::string_view text) {
  std::string out(strip(text));
  replace(out, " [title]", ". ");
  drop_brackets(out);
  replace(out, "  ", " ");
  return out;
}

std::vector<ChoiceItem> read_choices(const std::filesystem::path& file, std::int64_t first) {
  return read_lines<ChoiceItem>(file, first, [](Fields& fields) {
    ChoiceItem item;
    item.context = clean_up(fields.text("query"));
    fields.at("choices");
    for (const std::string& choice : fields.texts_or("choices", {})) item.choices.push_back(clean_up(choice));
    item.gold = fields.integer("gold");
    if (item.choices.size() < 2)
      fields.fail("choices", "must have at least two texts, but has " + std::to_string(item.choices.size()));
    if (item.gold < 0 || item.gold >= static_cast<std::int64_t>(item.choices.size()))
      fields.fail("gold", "must be an index of the choices, but is " + std::to_string(item.gold));
    return item;
  });
}

std::vector<ScoredSequence> sequences(const ChoiceItem& item, const text::Tokenizer& tokenizer) {
  const auto context = static_cast<std::int64_t>(tokenizer.encode(item.context).size());
  std::vector<ScoredSequence> all;
  for (const std::string& choice : item.choices) {
    ScoredSequence one;
    one.ids = tokenizer.encode(item.context + " " + choice);
    one.start = std::max<std::int64_t>(context, 1);
    one.characters = characters(choice);
    all.push_back(std::move(one));
  }
  return all;
}

std::vector<MinimalPair> read_pairs(const std::filesystem::path& file, std::int64_t first) {
  return read_lines<MinimalPair>(file, first, [](Fields& fields) {
    return MinimalPair{fields.text("sentence_good"), fields.text("sentence_bad"), fields.text_or("UID", "")};
  });
}

ScoredSequence sequence(const std::string& sentence, const text::Tokenizer& tokenizer) {
  return {tokenizer.encode(sentence), 1, characters(sentence)};
}

}  // namespace slmc::data
