#include "stage/settings.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/units.h"

namespace slmc::stage {
namespace {

constexpr double kNoLimit = 1e300;
constexpr std::int64_t kMostListed =
    1 << 20;  // entries of one list; checked before a range like 0-99999999999 is spelled out

bool has_least(const Setting& s) { return s.least > -kNoLimit; }
bool has_most(const Setting& s) { return s.most < kNoLimit; }

std::string limit_text(const Setting& s, double limit) {
  if (s.type == Type::Bytes) return format_bytes(static_cast<std::uint64_t>(std::max(limit, 0.0)));
  if (std::floor(limit) == limit && std::abs(limit) < 1e15)
    return fmt::format("{}", static_cast<std::int64_t>(limit));
  return format_number(limit);
}

std::string range_text(const Setting& s) {
  const std::string unit = s.unit.empty() ? "" : " " + s.unit;
  if (has_least(s) && has_most(s))
    return fmt::format(" from {} to {}{}", limit_text(s, s.least), limit_text(s, s.most), unit);
  if (has_least(s)) return fmt::format(" of at least {}{}", limit_text(s, s.least), unit);
  if (has_most(s)) return fmt::format(" of at most {}{}", limit_text(s, s.most), unit);
  return "";
}

// What a value must be, as it stands in "the setting 'ffn' must be ..., but is ...".
std::string wanted(const Setting& s) {
  const std::string automatic = s.may_be_auto ? ", or auto" : "";
  switch (s.type) {
    case Type::Integer: return "a whole number" + range_text(s) + automatic;
    case Type::Count: return "a count such as 500, 60k or 1.6M" + range_text(s) + automatic;
    case Type::Number: return "a number" + range_text(s) + automatic;
    case Type::Boolean: return "true or false" + automatic;
    case Type::Text: return "text" + automatic;
    case Type::Choice:
      return (s.choices.size() == 1 ? "" : "one of ") + fmt::format("{}", fmt::join(s.choices, ", ")) +
             automatic;
    case Type::Path: return "a path" + automatic;
    case Type::Model:
      return "a model: a path, hf:org/name, $model or $ and the id of an earlier stage" + automatic;
    case Type::Bytes: return "a size such as 80MB or 1.5GiB" + range_text(s) + automatic;
    case Type::Integers:
      return "a list of whole numbers such as 3,4,5 or 3-5" +
             (range_text(s).empty() ? "" : ", each" + range_text(s)) + automatic;
    case Type::Data: return "the name of a section of data, or such a section" + automatic;
  }
  return "";
}

std::string shown(std::string_view text) {
  if (text.empty()) return "empty";
  constexpr std::size_t kMost = 60;
  return text.size() <= kMost ? fmt::format("'{}'", text) : fmt::format("'{}...'", text.substr(0, kMost));
}

[[noreturn]] void refuse(const Setting& s, const std::string& is, std::string hint = {}) {
  throw Error(ErrorKind::Recipe, fmt::format("the setting '{}' must be {}, but is {}", s.name, wanted(s), is),
              std::move(hint));
}

void require_in_range(const Setting& s, double value, std::string_view text) {
  if (value < s.least || value > s.most) refuse(s, shown(text));
}

// Plain decimal, no sign but minus, no leading zero: YAML readers disagree on 010.
std::optional<std::int64_t> whole_number(std::string_view text) {
  const std::string_view digits = text.starts_with('-') ? text.substr(1) : text;
  if (digits.empty() || (digits.size() > 1 && digits.front() == '0')) return std::nullopt;
  std::int64_t value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// What a person most likely meant by a number that is none.
std::string number_hint(std::string_view text) {
  std::string without;
  std::copy_if(text.begin(), text.end(), std::back_inserter(without),
               [](char c) { return c != '_' && c != ','; });
  if (without != text && parse_number(without)) return fmt::format("write {}", without);
  const std::size_t digit = text.find_first_not_of('0');
  if (digit != 0 && digit != std::string_view::npos && whole_number(text.substr(digit))) {
    return fmt::format("write {}; a leading zero means octal to some readers", text.substr(digit));
  }
  if (const auto count = parse_count(text); count && std::to_string(*count) != text)
    return fmt::format("write {}", *count);
  return {};
}

std::int64_t to_integer(const Setting& s, std::string_view text) {
  const std::optional<std::int64_t> value = whole_number(text);
  if (!value) refuse(s, shown(text), number_hint(text));
  require_in_range(s, static_cast<double>(*value), text);
  return *value;
}

std::int64_t to_amount(const Setting& s, std::string_view text, std::optional<std::uint64_t> amount) {
  if (!amount || *amount > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    refuse(s, shown(text), number_hint(text));
  }
  require_in_range(s, static_cast<double>(*amount), text);
  return static_cast<std::int64_t>(*amount);
}

bool to_boolean(const Setting& s, std::string_view text) {
  if (text == "true") return true;
  if (text == "false") return false;
  for (const char* word : {"yes", "Yes", "YES", "on", "On", "ON", "True", "TRUE", "y", "Y", "1"}) {
    if (text == word) refuse(s, shown(text), "write true");
  }
  for (const char* word : {"no", "No", "NO", "off", "Off", "OFF", "False", "FALSE", "n", "N", "0"}) {
    if (text == word) refuse(s, shown(text), "write false");
  }
  refuse(s, shown(text));
}

std::string to_choice(const Setting& s, std::string_view text) {
  if (std::find(s.choices.begin(), s.choices.end(), text) != s.choices.end()) return std::string(text);
  std::vector<std::string> words = s.choices;
  if (s.may_be_auto) words.emplace_back("auto");
  const std::string guess = closest(text, words);
  refuse(s, shown(text), guess.empty() ? "" : fmt::format("did you mean '{}'?", guess));
}

std::string to_text(const Setting& s, std::string_view text) {
  if (s.type != Type::Text && (text.empty() || text.find('\0') != std::string_view::npos))
    refuse(s, shown(text));
  return std::string(text);
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

// Appends 7 or 3-5.
void append_item(const Setting& s, std::string_view item, std::string_view whole,
                 std::vector<std::int64_t>& out) {
  const std::size_t dash = item.find('-', 1);
  const auto first = whole_number(trimmed(item.substr(0, dash)));
  const auto last = dash == std::string_view::npos ? first : whole_number(trimmed(item.substr(dash + 1)));
  if (!first || !last || *last < *first) refuse(s, shown(whole));
  require_in_range(s, static_cast<double>(*first), whole);
  require_in_range(s, static_cast<double>(*last), whole);
  const std::uint64_t more = static_cast<std::uint64_t>(*last) - static_cast<std::uint64_t>(*first);
  if (more >= kMostListed || out.size() + more >= kMostListed) {
    refuse(s, fmt::format("a list of more than {} numbers", kMostListed));
  }
  for (std::uint64_t i = 0; i <= more; ++i) out.push_back(*first + static_cast<std::int64_t>(i));
}

std::vector<std::int64_t> to_integers(const Setting& s, std::string_view text) {
  std::string_view left = trimmed(text);
  if (left.size() >= 2 && left.front() == '[' && left.back() == ']')
    left = trimmed(left.substr(1, left.size() - 2));
  std::vector<std::int64_t> out;
  while (!left.empty()) {
    const std::size_t comma = left.find(',');
    append_item(s, trimmed(left.substr(0, comma)), text, out);
    if (comma == std::string_view::npos) break;
    left.remove_prefix(comma + 1);
    if (trimmed(left).empty()) refuse(s, shown(text));
  }
  return out;
}

Value automatic() { return {.value = std::string("auto"), .from = Value::From::Auto, .is_auto = true}; }

std::string json_kind(const Json& json) {
  if (json.is_object()) return "a group of keys";
  if (json.is_array()) return "a list";
  if (json.is_null()) return "empty";
  return json.is_string() ? shown(json.get_ref<const std::string&>()) : "'" + dump_compact(json) + "'";
}

Value integers_from(const Setting& s, const Json& json) {
  std::vector<std::int64_t> out;
  if (json.size() > kMostListed) refuse(s, fmt::format("a list of more than {} numbers", kMostListed));
  for (const Json& item : json) {
    if (!item.is_string() && !item.is_number_integer()) refuse(s, "a list with " + json_kind(item));
    const std::string text = item.is_string() ? item.get<std::string>() : dump_compact(item);
    append_item(s, text, text, out);
  }
  return {.value = std::move(out)};
}

const Value* find_set(const std::map<std::string, Value, std::less<>>& values, std::string_view name) {
  const auto it = values.find(name);
  return it == values.end() || std::holds_alternative<std::monostate>(it->second.value) ? nullptr
                                                                                        : &it->second;
}

template <typename T>
const T& get(const Settings& settings, std::string_view name) {
  const Value* value = find_set(settings.all(), name);
  SLMC_CHECK(value != nullptr && !value->is_auto);
  const T* held = std::get_if<T>(&value->value);
  SLMC_CHECK(held != nullptr);
  return *held;
}

}  // namespace

bool Settings::has(std::string_view name) const { return find_set(values_, name) != nullptr; }

bool Settings::is_auto(std::string_view name) const {
  const Value* value = find_set(values_, name);
  return value != nullptr && value->is_auto;
}

bool Settings::boolean(std::string_view name) const { return get<bool>(*this, name); }
std::int64_t Settings::integer(std::string_view name) const { return get<std::int64_t>(*this, name); }

double Settings::number(std::string_view name) const {
  const Value* value = find_set(values_, name);
  SLMC_CHECK(value != nullptr && !value->is_auto);
  if (const auto* whole = std::get_if<std::int64_t>(&value->value)) return static_cast<double>(*whole);
  return get<double>(*this, name);
}

const std::string& Settings::text(std::string_view name) const { return get<std::string>(*this, name); }
std::vector<std::int64_t> Settings::integers(std::string_view name) const {
  return get<std::vector<std::int64_t>>(*this, name);
}

const Json& Settings::data(std::string_view name) const {
  const SharedJson& json = get<SharedJson>(*this, name);
  SLMC_CHECK(json != nullptr);
  return *json;
}

Value parse_value(const Setting& s, std::string_view text) {
  if (s.may_be_auto && text == "auto") return automatic();
  switch (s.type) {
    case Type::Integer: return {.value = to_integer(s, text)};
    case Type::Count: return {.value = to_amount(s, text, parse_count(text))};
    case Type::Bytes: return {.value = to_amount(s, text, parse_bytes(text))};
    case Type::Number: {
      const std::optional<double> number = parse_number(text);
      if (!number) refuse(s, shown(text), number_hint(text));
      require_in_range(s, *number, text);
      return {.value = *number};
    }
    case Type::Boolean: return {.value = to_boolean(s, text)};
    case Type::Choice: return {.value = to_choice(s, text)};
    case Type::Text:
    case Type::Path:
    case Type::Model: return {.value = to_text(s, text)};
    case Type::Integers: return {.value = to_integers(s, text)};
    case Type::Data: return {.value = std::make_shared<const Json>(to_text(s, text))};
  }
  refuse(s, shown(text));
}

Value value_from_json(const Setting& s, const Json& json) {
  if (json.is_string()) return parse_value(s, std::string_view(json.get_ref<const std::string&>()));
  if (s.type == Type::Data && json.is_structured()) return {.value = std::make_shared<const Json>(json)};
  if (s.type == Type::Integers && json.is_array()) return integers_from(s, json);
  const bool number = json.is_number() && s.type != Type::Boolean;
  if (number && s.type == Type::Number) {
    require_in_range(s, json.get<double>(), dump_compact(json));
    return {.value = json.get<double>()};
  }
  if ((number && s.type != Type::Data) || (json.is_boolean() && s.type == Type::Boolean))
    return parse_value(s, std::string_view(dump_compact(json)));
  refuse(s, json_kind(json));
}

namespace {

Diagnostic unknown(const std::vector<Setting>& table, const std::string& key, Place place) {
  std::vector<std::string> names;
  for (const Setting& s : table) names.push_back(s.name);
  const std::string guess = closest(key, names);
  std::string hint = guess.empty() ? "" : fmt::format("did you mean '{}'?", guess);
  if (guess.empty() && names.empty()) hint = "there are no settings here";
  return {fmt::format("unknown setting '{}'", key), std::move(place), std::move(hint)};
}

// Default, or unset; a required one is a problem.
Value absent(const Setting& s, const Place& place, std::vector<Diagnostic>& problems) {
  if (s.fallback) {
    Value value = parse_value(s, *s.fallback);
    if (!value.is_auto) value.from = Value::From::Default;
    return value;
  }
  if (s.required)
    problems.push_back(
        {fmt::format("the setting '{}' must be {}, but is missing", s.name, wanted(s)), place, {}});
  return {};
}

}  // namespace

Settings parse_settings(const std::vector<Setting>& table, const Json& object,
                        const std::function<Place(std::string_view key)>& place_of,
                        std::vector<Diagnostic>& problems) {
  Settings out;
  const auto place = [&](std::string_view key) { return place_of ? place_of(key) : Place{}; };
  if (!object.is_object() && !object.is_null()) {
    problems.push_back({"the settings must be a group of keys, but are " + json_kind(object), place(""), {}});
    return out;
  }
  for (const auto& [key, value] : object.items()) {
    if (std::none_of(table.begin(), table.end(),
                     [&, &name = key](const Setting& s) { return s.name == name; })) {
      problems.push_back(unknown(table, key, place(key)));
    }
  }
  for (const Setting& s : table) {
    const auto it = object.is_object() ? object.find(s.name) : object.end();
    if (!object.is_object() || it == object.end()) {
      out.set(s.name, absent(s, place(""), problems));
      continue;
    }
    try {
      Value value = value_from_json(s, *it);
      value.from = Value::From::Recipe;
      out.set(s.name, std::move(value));
    } catch (const Error& error) {
      problems.push_back({error.message(), place(s.name), error.diagnostics().front().hint});
    }
  }
  return out;
}

Json to_json(const Settings& settings) {
  Json out = Json::object();
  for (const auto& [name, value] : settings.all()) {  // a std::map: sorted
    std::visit(
        [&, &key = name](const auto& held) {
          using Held = std::decay_t<decltype(held)>;
          if constexpr (std::is_same_v<Held, SharedJson>) {
            if (held) out[key] = *held;
          } else if constexpr (!std::is_same_v<Held, std::monostate>) {
            out[key] = held;
          }
        },
        value.value);
  }
  return out;
}

}  // namespace slmc::stage
