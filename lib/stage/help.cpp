// What people and editors read about settings: help text, JSON Schema, the reference page. All from the
// tables.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/text.h"
#include "core/units.h"
#include "stage/info.h"

namespace slmc::stage {
namespace {

bool limited(const Setting& s, double limit) { return std::abs(limit) < 1e300 && s.type != Type::Text; }

std::string word(Type type) {
  switch (type) {
    case Type::Integer: return "N";
    case Type::Count: return "COUNT";
    case Type::Number: return "X";
    case Type::Boolean: return "true|false";
    case Type::Text: return "TEXT";
    case Type::Choice: return "WORD";
    case Type::Path: return "PATH";
    case Type::Model: return "MODEL";
    case Type::Bytes: return "SIZE";
    case Type::Integers: return "LIST";
    case Type::Data: return "DATA";
  }
  return "";
}

std::string bound(const Setting& s, double limit) {
  return s.type == Type::Bytes ? format_bytes(static_cast<std::uint64_t>(limit)) : format_number(limit);
}

// "1 to 65536 channels", "" when there is nothing to say.
std::string range(const Setting& s) {
  std::string out;
  if (limited(s, s.least) && limited(s, s.most)) {
    out = fmt::format("{} to {}", bound(s, s.least), bound(s, s.most));
  } else if (limited(s, s.least)) {
    out = fmt::format("at least {}", bound(s, s.least));
  } else if (limited(s, s.most)) {
    out = fmt::format("at most {}", bound(s, s.most));
  }
  if (s.unit.empty()) return out;
  return out.empty() ? s.unit : out + " " + s.unit;
}

std::string values(const Setting& s) {
  if (s.type == Type::Choice) return fmt::format("{}", fmt::join(s.choices, ", "));
  return range(s);
}

std::string fallback(const Setting& s) {
  if (s.fallback) return "default " + (s.fallback->empty() ? "empty" : *s.fallback);
  return s.required ? "required" : "";
}

std::string remarks(const Setting& s) {
  std::vector<std::string> parts;
  for (std::string part : {values(s), std::string(s.may_be_auto ? "or auto" : ""), fallback(s)}) {
    if (!part.empty()) parts.push_back(std::move(part));
  }
  return parts.empty() ? "" : fmt::format(" ({})", fmt::join(parts, "; "));
}

std::string option(const Setting& s) {
  std::string name = s.name;
  std::replace(name.begin(), name.end(), '_', '-');
  return fmt::format("--{} {}", name, word(s.type));
}

Json schema_of(const Setting& s) {
  Json out = Json::object();
  const auto numeric = [&](const char* type) {
    out["type"] = type;
    if (limited(s, s.least)) out["minimum"] = s.least;
    if (limited(s, s.most)) out["maximum"] = s.most;
  };
  const auto with_unit = [&](const char* pattern) {  // a number, or text with a unit
    Json number = {{"type", "integer"}, {"minimum", 0}};
    out["anyOf"] = Json::array({number, {{"type", "string"}, {"pattern", pattern}}});
  };
  switch (s.type) {
    case Type::Integer: numeric("integer"); break;
    case Type::Number: numeric("number"); break;
    case Type::Boolean: out["type"] = "boolean"; break;
    case Type::Choice: out["enum"] = s.choices; break;
    case Type::Count: with_unit("^[0-9]+(\\.[0-9]+)? ?[kMB]?$"); break;
    case Type::Bytes: with_unit("^[0-9]+(\\.[0-9]+)? ?(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?$"); break;
    case Type::Integers:
      out["anyOf"] = Json::array({{{"type", "array"}, {"items", {{"type", "integer"}}}},
                                  {{"type", "string"}, {"pattern", "^[0-9, -]*$"}},
                                  {{"type", "integer"}}});
      break;
    case Type::Data: out["type"] = Json::array({"string", "object", "array"}); break;
    case Type::Text: out["type"] = Json::array({"string", "number", "boolean"}); break;
    case Type::Path:
    case Type::Model: out["type"] = "string"; break;
  }
  if (s.may_be_auto) out = Json{{"anyOf", Json::array({{{"const", "auto"}}, out})}};
  out["description"] = s.help + (s.unit.empty() ? "" : fmt::format(" In {}.", s.unit));
  if (s.fallback)
    out["default"] = to_json([&] {
      Settings one;
      one.set(s.name, parse_value(s, *s.fallback));
      return one;
    }())[s.name];
  return out;
}

std::string needs_text(const Needs& needs) {
  std::vector<std::string> parts;
  if (needs.calib) parts.emplace_back("`data.calib`");
  if (needs.train) parts.emplace_back("`data.train`");
  if (needs.teacher) parts.emplace_back("a teacher");
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::string cell(std::string text) {  // a pipe would end the cell
  for (std::size_t at = 0; (at = text.find('|', at)) != std::string::npos; at += 2) text.insert(at, "\\");
  return text;
}

std::string stage_reference(const StageInfo& info) {
  std::string out = fmt::format("## {}\n\n{}.\n", info.name, info.summary);
  if (const std::string needs = needs_text(info.needs); !needs.empty())
    out += fmt::format("\nNeeds {}.\n", needs);
  if (!info.settings.empty()) out += "\n| setting | value | default | meaning |\n|---|---|---|---|\n";
  for (const Setting& s : info.settings) {
    std::string value =
        s.type == Type::Choice ? fmt::format("`{}`", fmt::join(s.choices, "`, `")) : word(s.type);
    if (s.type != Type::Choice && !range(s).empty()) value += ", " + range(s);
    if (s.may_be_auto) value += ", or `auto`";
    const std::string standard = s.fallback ? "`" + *s.fallback + "`" : s.required ? "required" : "";
    out += fmt::format("| `{}` | {} | {} | {} |\n", s.name, cell(value), cell(standard), cell(s.help));
  }
  if (!info.methods.empty()) out += "\n| method | what it does | needs | paper |\n|---|---|---|---|\n";
  for (const MethodInfo& m : info.methods) {
    out += fmt::format("| `{}: {}` | {} | {} | {} |\n", m.setting, m.name, cell(m.summary),
                       needs_text(m.needs), cell(m.paper));
  }
  return out;
}

}  // namespace

std::string help_text(const std::vector<Setting>& table, int width) {
  constexpr int kMostLeft = 26;
  int left = 0;
  for (const Setting& s : table) left = std::max(left, display_width(option(s)));
  left = std::min(left, kMostLeft);
  std::string out;
  for (const Setting& s : table) {
    std::string head = "  " + option(s);
    const int used = display_width(head), start = left + 4;
    if (used + 2 > start) {
      head += "\n" + std::string(static_cast<std::size_t>(start), ' ');
    } else {
      head += std::string(static_cast<std::size_t>(start - used), ' ');
    }
    // Wrapped as if it began at column 0; the lines that follow are indented to the column where the first
    // one starts.
    const std::string body = wrap(s.help + remarks(s), std::max(width - start, 20));
    out += head;
    for (const char c : body)
      out += c == '\n' ? "\n" + std::string(static_cast<std::size_t>(start), ' ') : std::string(1, c);
    out += "\n";
  }
  return out;
}

Json json_schema(const std::vector<Setting>& table) {
  Json properties = Json::object(), required = Json::array();
  for (const Setting& s : table) {
    properties[s.name] = schema_of(s);
    if (s.required) required.push_back(s.name);
  }
  Json out = {{"$schema", "http://json-schema.org/draft-07/schema#"},
              {"type", "object"},
              {"additionalProperties", false},
              {"properties", properties}};
  if (!required.empty()) out["required"] = required;
  return out;
}

std::string settings_reference(const Registry& registry) {
  std::string out =
      "# Stages and their settings\n\nMade by `slmc help settings` from the tables that the program itself "
      "reads.\n";
  for (const StageInfo& info : registry.all()) out += "\n" + stage_reference(info);
  return out;
}

}  // namespace slmc::stage
