#include "core/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/file.h"

namespace slmc {
namespace {

// Line, column in characters and the line itself, of the byte at `offset`.
Place place_of(std::string_view text, std::size_t offset, std::string_view file) {
  offset = std::min(offset, text.size());
  const std::size_t before = offset == 0 ? std::string_view::npos : text.rfind('\n', offset - 1);
  const std::size_t begin = before == std::string_view::npos ? 0 : before + 1;
  const std::size_t end = std::min(text.find('\n', offset), text.size());
  const auto characters = std::count_if(
      text.begin() + static_cast<std::ptrdiff_t>(begin), text.begin() + static_cast<std::ptrdiff_t>(offset),
      [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
  const auto lines = std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(begin), '\n');
  return {std::string(file), static_cast<int>(lines) + 1, static_cast<int>(characters) + 1, 1,
          std::string(text.substr(begin, end - begin))};
}

// The parser reads through this; `at` is how far it has come.
struct CountingIterator {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;
  const char* p;
  const char** at;
  reference operator*() const { return *p; }
  CountingIterator& operator++() {
    *at = ++p;
    return *this;
  }
  bool operator==(const CountingIterator& other) const { return p == other.p; }
  bool operator!=(const CountingIterator& other) const { return p != other.p; }
};

// Builds the document from the parser's events. nlohmann's own builder keeps the last of two equal keys
// silently and looks each key up in a list, which takes minutes for a vocabulary.
class Builder {
 public:
  Builder(std::string_view text, std::string_view file, ErrorKind kind)
      : text_(text), file_(file), kind_(kind), at_(text.data()) {}

  Json take() { return std::move(root_); }
  const char** at() { return &at_; }

  bool null() { return put(nullptr); }
  bool boolean(bool value) { return put(value); }
  bool number_integer(Json::number_integer_t value) { return put(value); }
  bool number_unsigned(Json::number_unsigned_t value) { return put(value); }
  bool number_float(Json::number_float_t value, const std::string&) { return put(value); }
  bool string(std::string& value) { return put(std::move(value)); }
  bool binary(Json::binary_t&) { return false; }
  bool start_object(std::size_t) { return open(Json::object()); }
  bool start_array(std::size_t) { return open(Json::array()); }
  bool key(std::string& name) {
    key_ = std::move(name);
    key_ends_.back().push_back(offset());
    return true;
  }
  bool end_object() {
    refuse_duplicates();
    return close();
  }
  bool end_array() { return close(); }

  // "[...] parse error at line 1, column 2: syntax error while parsing value - REASON; last read: '...';
  // expected ..."
  bool parse_error(std::size_t position, const std::string&, const Json::exception& error) {
    std::string what = error.what();
    what.erase(0, std::min(what.find(": "), what.size() - 2) + 2);
    const std::size_t read =
        what.find("; last read: '");  // may be long and unprintable; the caret shows it anyway
    if (read != std::string::npos)
      what.erase(read, std::min(what.find("; expected ", read), what.size()) - read);
    fail(position == 0 ? 0 : position - 1, 1, fmt::format("the text must be JSON, but has a {}", what));
  }

 private:
  static constexpr std::size_t kMostDepth = 200;

  std::size_t offset() const { return static_cast<std::size_t>(at_ - text_.data()); }

  [[noreturn]] void fail(std::size_t offset, int width, const std::string& message) const {
    Place place = place_of(text_, offset, file_);
    place.width = width;
    throw Error(kind_, std::move(place), message);
  }

  template <typename Value>
  bool put(Value&& value) {
    add(Json(std::forward<Value>(value)));
    return true;
  }

  Json* add(Json value) {
    if (stack_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *stack_.back();
    if (parent.is_array()) {
      auto& items = parent.get_ref<Json::array_t&>();
      items.push_back(std::move(value));
      return &items.back();
    }
    auto& members = parent.get_ref<Json::object_t&>();
    members.Container::emplace_back(std::move(key_),
                                    std::move(value));  // no search: duplicates are found at the end
    return &members.back().second;
  }

  bool open(Json container) {
    if (stack_.size() == kMostDepth) {
      fail(offset() - 1, 1, fmt::format("the nesting must be at most {} deep, but is deeper", kMostDepth));
    }
    stack_.push_back(add(std::move(container)));  // stays valid: its parent grows only after it is closed
    key_ends_.emplace_back();
    return true;
  }

  bool close() {
    stack_.pop_back();
    key_ends_.pop_back();
    return true;
  }

  // The key that ends at `end` (behind its closing quote), quotes included.
  std::pair<std::size_t, int> key_span(std::size_t end) const {
    std::size_t begin = end - 1;
    std::size_t backslashes = 1;
    while (backslashes % 2 != 0) {  // a quote behind an odd number of backslashes is inside the string
      begin = text_.rfind('"', begin - 1);
      backslashes = 0;
      while (backslashes < begin && text_[begin - 1 - backslashes] == '\\') ++backslashes;
    }
    return {begin, static_cast<int>(end - begin)};
  }

  void refuse_duplicates() {
    const Json::object_t::Container& members = stack_.back()->get_ref<const Json::object_t&>();
    std::vector<std::size_t> order(members.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return members[a].first < members[b].first; });
    std::size_t repeated = members.size();  // the second of two equal keys, the earliest such in the file
    for (std::size_t i = 1; i < order.size(); ++i) {
      if (members[order[i - 1]].first == members[order[i]].first) repeated = std::min(repeated, order[i]);
    }
    if (repeated == members.size()) return;
    const auto [begin, width] = key_span(key_ends_.back()[repeated]);
    fail(begin, width,
         fmt::format("a key must stand once in its object, but '{}' is repeated", members[repeated].first));
  }

  std::string_view text_, file_;
  ErrorKind kind_;
  const char* at_;
  Json root_;
  std::vector<Json*> stack_;                        // open containers, outermost first
  std::vector<std::vector<std::size_t>> key_ends_;  // per open container: where each key so far ended
  std::string key_;
};

}  // namespace

Json parse_json(std::string_view text, std::string_view file, ErrorKind kind) {
  Builder builder(text, file, kind);
  const CountingIterator begin{text.data(), builder.at()}, end{text.data() + text.size(), builder.at()};
  Json::sax_parse(begin, end, &builder);  // errors leave as exceptions of ours
  return builder.take();
}

Json read_json(const std::filesystem::path& path, ErrorKind kind) {
  std::string text;
  try {
    text = read_text(path);
  } catch (const Error& error) {
    throw Error(kind, error.diagnostics());
  }
  return parse_json(text, path.string(), kind);
}

void write_json(const std::filesystem::path& path, const Json& json) {
  write_text(path, json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

std::string dump_compact(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// ---- Fields ----

namespace {

std::string type_text(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null: return "null";
    case Json::value_t::object: return "an object";
    case Json::value_t::array: return "an array";
    default: break;
  }
  std::string text = dump_compact(value);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

bool fits_integer(const Json& value) {
  if (value.is_number_unsigned()) return value.get<std::uint64_t>() <= static_cast<std::uint64_t>(INT64_MAX);
  return value.is_number_integer();
}

}  // namespace

Fields::Fields(const Json& object, std::string file, std::string path, ErrorKind kind)
    : object_(&object), file_(std::move(file)), path_(std::move(path)), kind_(kind) {
  if (!object.is_object()) {
    throw Error(kind_, Place{file_, 0, 0, 1, {}},
                fmt::format("{} must be an object, but is {}",
                            path_.empty() ? "the document" : "'" + path_ + "'", type_text(object)));
  }
}

bool Fields::has(const char* key) const { return object_->contains(key); }

const Json* Fields::find(const char* key) {
  asked_.emplace_back(key);
  const auto it = object_->find(key);
  return it == object_->end() ? nullptr : &*it;
}

const Json& Fields::at(const char* key) {
  const Json* value = find(key);
  if (value == nullptr) fail(key, "must be present, but is missing");
  return *value;
}

std::string Fields::text(const char* key) {
  const Json& value = at(key);
  if (!value.is_string()) fail(key, "must be a string, but is " + type_text(value));
  return value.get<std::string>();
}

std::string Fields::text_or(const char* key, std::string fallback) {
  return find(key) == nullptr ? std::move(fallback) : text(key);
}

std::int64_t Fields::integer(const char* key) {
  const Json& value = at(key);
  if (!fits_integer(value)) fail(key, "must be a whole number of 64 bits, but is " + type_text(value));
  return value.get<std::int64_t>();
}

std::int64_t Fields::integer_or(const char* key, std::int64_t fallback) {
  return find(key) == nullptr ? fallback : integer(key);
}

double Fields::number(const char* key) {
  const Json& value = at(key);
  if (!value.is_number()) fail(key, "must be a number, but is " + type_text(value));
  return value.get<double>();
}

double Fields::number_or(const char* key, double fallback) {
  return find(key) == nullptr ? fallback : number(key);
}

bool Fields::boolean_or(const char* key, bool fallback) {
  const Json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) fail(key, "must be true or false, but is " + type_text(*value));
  return value->get<bool>();
}

std::vector<std::string> Fields::texts_or(const char* key, std::vector<std::string> fallback) {
  const Json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_array()) fail(key, "must be an array of strings, but is " + type_text(*value));
  std::vector<std::string> out;
  for (const Json& item : *value) {
    if (!item.is_string()) fail(key, "must be an array of strings, but holds " + type_text(item));
    out.push_back(item.get<std::string>());
  }
  return out;
}

std::vector<std::int64_t> Fields::integers(const char* key) {
  const Json& value = at(key);
  if (!value.is_array()) fail(key, "must be an array of whole numbers, but is " + type_text(value));
  std::vector<std::int64_t> out;
  for (const Json& item : value) {
    if (!fits_integer(item)) fail(key, "must be an array of whole numbers, but holds " + type_text(item));
    out.push_back(item.get<std::int64_t>());
  }
  return out;
}

Fields Fields::object(const char* key) {
  const Json& value = at(key);
  return Fields(value, file_, path_.empty() ? key : path_ + "." + key, kind_);
}

void Fields::finish() const {
  std::vector<Diagnostic> unknown;
  for (const auto& [key, value] : object_->items()) {
    if (std::find(asked_.begin(), asked_.end(), key) != asked_.end()) continue;
    const std::string guess = closest(key, asked_);
    unknown.push_back(
        {fmt::format("the key '{}' must be a known one, but is not", path_.empty() ? key : path_ + "." + key),
         Place{file_, 0, 0, 1, {}}, guess.empty() ? "" : fmt::format("did you mean '{}'?", guess)});
  }
  if (!unknown.empty()) throw Error(kind_, std::move(unknown));
}

void Fields::fail(const char* key, const std::string& message, const std::string& hint) const {
  throw Error(kind_, Place{file_, 0, 0, 1, {}},
              fmt::format("'{}{}{}' {}", path_, path_.empty() ? "" : ".", key, message), hint);
}

}  // namespace slmc
