#include "apps/slmc/help.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "core/text.h"

namespace slmc::cli {
namespace {

constexpr int kWidth = 100, kColumn = 32;               // of the text, and where explanations begin

// "  left      right", the right part wrapped; a long left part gets a line of its own.
std::string entry(const std::string& left, const std::string& right, int column = kColumn) {
  const std::string indent(static_cast<std::size_t>(column), ' ');
  std::string out = "  " + left;
  if (static_cast<int>(out.size()) + 2 > column) out += "\n" + indent;
  else out += std::string(static_cast<std::size_t>(column) - out.size(), ' ');
  for (char c : wrap(right, kWidth - column)) out += c == '\n' ? "\n" + indent : std::string(1, c);
  return out + "\n";
}

std::string usage(const Command& command) {
  std::string out = "usage: slmc " + command.name;
  for (const Positional& p : command.positionals) out += p.required ? " " + p.name : " [" + p.name + "]";
  for (const Option& o : command.options) {
    if (o.setting.required) out += o.letter ? fmt::format(" -{} {}", o.letter, option_value(o)) : fmt::format(" {} {}", option_name(o.setting), option_value(o));
  }
  return out + " [options]\n";
}

std::string limits(const stage::Setting& s) {
  const auto number = [](double x) { return fmt::format("{:.15g}", x); };
  const std::string unit = s.unit.empty() ? "" : " " + s.unit;
  const bool least = s.least > -1e300, most = s.most < 1e300 && s.most < 1e9;
  if (s.type == stage::Type::Text || s.type == stage::Type::Path) return "";
  if (least && most) return fmt::format("{} to {}{}", number(s.least), number(s.most), unit);
  if (least && s.least != 0) return fmt::format("at least {}{}", number(s.least), unit);
  return s.unit;
}

std::string remarks(const Option& option) {
  const stage::Setting& s = option.setting;
  std::vector<std::string> parts;
  if (const std::string range = limits(s); !range.empty()) parts.push_back(range);
  if (s.may_be_auto) parts.emplace_back("or auto");
  if (option.repeat) parts.emplace_back("may be given several times");
  if (s.fallback && !s.fallback->empty()) parts.push_back("default " + *s.fallback);
  if (s.required) parts.emplace_back("required");
  return parts.empty() ? "" : fmt::format(" ({})", fmt::join(parts, "; "));
}

std::string option_entry(const Option& option) {
  std::string left = option.letter ? fmt::format("-{}, ", option.letter) : "    ";
  const std::string name = option_name(option.setting);
  left += option.negatable ? fmt::format("{}, --no-{}", name, name.substr(2)) : name;
  if (const std::string value = option_value(option); !value.empty()) left += " " + value;
  return entry(left, option.setting.help + remarks(option));
}

std::string option_groups(const std::vector<Option>& options) {
  std::vector<std::string> groups;
  for (const Option& o : options) {
    if (std::find(groups.begin(), groups.end(), o.group) == groups.end()) groups.push_back(o.group);
  }
  std::string out;
  for (const std::string& group : groups) {
    out += fmt::format("\n{}\n", group.empty() ? "Options" : group);
    for (const Option& o : options) {
      if (o.group == group) out += option_entry(o);
    }
  }
  return out;
}

std::string examples(const Command& command) {
  std::string out = "\nExamples\n";
  for (const Example& e : command.examples) out += fmt::format("  {}\n      {}\n", e.line, e.why);
  return command.examples.empty() ? "" : out;
}

std::string json_fields(const Command& command) {
  if (command.json.empty()) return "";
  std::string out = "\nThe document of --json\n" + entry("schema", fmt::format("\"{}\"", document_schema(command)), 24);
  for (const JsonField& f : command.json) out += entry(f.name, f.help, 24);
  return out;
}

const std::vector<std::string>& first_steps() {
  static const std::vector<std::string> names = {"run", "plan", "drop", "prune", "distill", "quantize", "convert", "eval", "inspect", "generate", "doctor", "help"};
  return names;
}

}  // namespace

std::string program_help(bool whole) {
  std::string out = "slmc makes a small language model smaller and measures what that costs.\n\nusage: slmc SUBCOMMAND ... [options]\n\n";
  for (const Command& c : commands()) {
    const bool shown = whole || std::find(first_steps().begin(), first_steps().end(), c.name) != first_steps().end();
    if (shown) out += entry(c.name, c.summary, 18);
  }
  if (!whole) return out + "\n`slmc --help` lists every subcommand, `slmc SUBCOMMAND --help` explains one.\n";
  out += "\nTopics of `slmc help TOPIC`\n";
  for (const Topic& t : topics()) out += entry(t.name, t.summary, 18);
  return out + "\n`slmc SUBCOMMAND --help` explains one, with examples.\n";
}

std::string command_help(const Command& command) {
  std::string out = fmt::format("slmc {}: {}\n\n{}", command.name, command.summary, usage(command));
  if (!command.positionals.empty()) out += "\n";
  for (const Positional& p : command.positionals) out += entry(p.name, p.help);
  if (!command.details.empty()) out += "\n" + command.details;
  return out + examples(command) + option_groups(all_options(command)) + json_fields(command);
}

}  // namespace slmc::cli
