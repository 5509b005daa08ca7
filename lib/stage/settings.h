#pragma once
// One declaration per setting: its name, type, default, range, unit and one sentence. Parsing, checks, --set,
// command-line options, JSON Schema, help and the reference page all come from the table; nothing else knows
// a setting's name.
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/error.h"
#include "core/json.h"

namespace slmc::stage {

enum class Type {
  Integer,   // 3
  Count,     // 60k, 1.6M
  Number,    // 1e-4
  Boolean,   // true, false
  Text,      // free text
  Choice,    // one of `choices`
  Path,      // a file or folder, relative to the recipe
  Model,     // a path, hf:org/name, $model or $<stage id>
  Bytes,     // 80MB
  Integers,  // [3, 4, 5]; on the command line 3,4,5 or 3-5
  Data,      // an inline data section, or the name of one under `data:`
};

struct Setting {
  std::string name;  // "ffn"; --ffn on the command line, underscores become dashes
  Type type = Type::Integer;
  // Default, as a person writes it; nothing = unset unless `required`
  std::optional<std::string> fallback;
  std::string help;  // one sentence
  bool required = false;
  double least = -1e300, most = 1e300;  // for numbers, both included
  std::string unit;                     // "tokens", "channels"
  std::vector<std::string> choices;     // for Choice
  // The word `auto` is allowed: resolved from shapes, or measured when the stage starts
  bool may_be_auto = false;
  // What this one means something beside: one of the settings "ffn, kv" given, or a Choice setting with one of these values; else an error.
  std::string only_beside;
  std::vector<std::string> only_values;
};

// A typed value with where it came from, so that `slmc plan` can say "flag", "recipe" or "default".
struct Value {
  enum class From { Default, Recipe, Flag, Auto };
  std::variant<std::monostate, bool, std::int64_t, double, std::string, std::vector<std::int64_t>, SharedJson>
      value;
  From from = From::Default;
  bool is_auto = false;
};

// The settings of one stage: complete (defaults filled), checked, typed. Getters of absent or wrongly typed
// names are bugs of ours (SLMC_CHECK), because the table was checked before.
class Settings {
 public:
  bool has(std::string_view name) const;  // present and not unset
  bool is_auto(std::string_view name) const;
  bool boolean(std::string_view name) const;
  std::int64_t integer(std::string_view name) const;
  double number(std::string_view name) const;  // integers count as numbers
  const std::string& text(std::string_view name) const;
  std::vector<std::int64_t> integers(std::string_view name) const;
  const Json& data(std::string_view name) const;
  void set(std::string name, Value value) { values_[std::move(name)] = std::move(value); }
  const std::map<std::string, Value, std::less<>>& all() const { return values_; }

 private:
  std::map<std::string, Value, std::less<>> values_;
};

// One setting from its text (command line, YAML scalar). The error's message names the setting, what it must
// be, and what it is.
Value parse_value(const Setting& setting, std::string_view text);
Value value_from_json(const Setting& setting, const Json& json);

// A whole object against a table: unknown names (with suggestion), wrong types, ranges and missing required
// ones, all collected. `place_of` gives the place of a key in the source for the message; it may return an
// empty place.
Settings parse_settings(const std::vector<Setting>& table, const Json& object,
                        const std::function<Place(std::string_view key)>& place_of,
                        std::vector<Diagnostic>& problems);

Json to_json(const Settings& settings);               // canonical: sorted, defaults included; what keys hash
Json json_schema(const std::vector<Setting>& table);  // draft 7 object schema
std::string help_text(const std::vector<Setting>& table, int width);

}  // namespace slmc::stage
