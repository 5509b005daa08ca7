#include "apps/slmc/command.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "apps/slmc/shared_options.h"
#include "core/error.h"

namespace slmc::cli {
namespace {

// "the setting 'max_ram' must be ..." as the command line spells it.
std::string in_option_words(const Option& option, std::string message) {
  const std::string from = fmt::format("the setting '{}'", option.setting.name);
  const auto at = message.find(from);
  if (at != std::string::npos) message.replace(at, from.size(), "the option " + spelled(option));
  return message;
}

}  // namespace

const Command* find_command(std::string_view name) {
  const auto it = std::find_if(commands().begin(), commands().end(), [&](const Command& c) { return c.name == name; });
  return it == commands().end() ? nullptr : &*it;
}

std::vector<Option> all_options(const Command& command) {
  std::vector<Option> out = command.options;
  for (Option& option : shared_options(command.shares)) out.push_back(std::move(option));
  return out;
}

std::string document_schema(const Command& command) {
  std::string name = command.name;
  std::replace(name.begin(), name.end(), ' ', '-');
  return fmt::format("slmc.{}/1", name);
}

std::string option_name(const stage::Setting& setting) {
  std::string name = setting.name;
  std::replace(name.begin(), name.end(), '_', '-');
  return "--" + name;
}

std::string spelled(const Option& option) {
  const std::string name = option_name(option.setting);
  return option.letter ? fmt::format("-{}/{}", option.letter, name) : name;
}

constexpr std::size_t kWidestChoices = 100;      // a line of help

std::string option_value(const Option& option) {
  if (!option.value.empty()) return option.value;
  switch (option.setting.type) {
    case stage::Type::Integer: return "N";
    case stage::Type::Count: return "COUNT";
    case stage::Type::Number: return "X";
    case stage::Type::Boolean: return "";
    case stage::Type::Text: return "TEXT";
    case stage::Type::Choice: {
      const std::string all = fmt::format("{}", fmt::join(option.setting.choices, "|"));
      return all.size() <= kWidestChoices ? all : "NAME";          // then the methods below the options name them
    }
    case stage::Type::Path: return "FILE";
    case stage::Type::Model: return "MODEL";
    case stage::Type::Bytes: return "SIZE";
    case stage::Type::Integers: return "LIST";
    case stage::Type::Data: return "FILE";
  }
  return "";
}

const Option* Arguments::option(std::string_view name) const {
  const auto it = std::find_if(options_.begin(), options_.end(), [&](const Option& o) { return o.setting.name == name; });
  return it == options_.end() ? nullptr : &*it;
}

bool Arguments::flag(std::string_view name) const {
  const auto it = values_.find(name);
  return it != values_.end() && it->second.back() == "true";
}

std::string Arguments::text(std::string_view name) const {
  const auto it = values_.find(name);
  if (it != values_.end()) return it->second.back();
  const Option* declared = option(name);
  return declared && declared->setting.fallback ? *declared->setting.fallback : "";
}

std::vector<std::string> Arguments::all(std::string_view name) const {
  const auto it = values_.find(name);
  return it == values_.end() ? std::vector<std::string>{} : it->second;
}

std::optional<std::int64_t> Arguments::maybe_integer(std::string_view name) const {
  const std::string value = text(name);
  if (value.empty()) return std::nullopt;
  const Option* declared = option(name);
  SLMC_CHECK(declared != nullptr);
  return std::get<std::int64_t>(stage::parse_value(declared->setting, std::string_view(value)).value);
}

std::int64_t Arguments::integer(std::string_view name) const {
  const std::optional<std::int64_t> value = maybe_integer(name);
  SLMC_CHECK(value.has_value());
  return *value;
}

void Arguments::check() const {
  for (const Option& declared : options_) {
    const stage::Setting& setting = declared.setting;
    if (setting.required && !has(setting.name)) {
      throw Error(ErrorKind::Usage, fmt::format("the option {} must be given ({}), but is not", spelled(declared), option_value(declared)));
    }
    for (const std::string& value : all(setting.name)) {
      try {
        stage::parse_value(setting, std::string_view(value));
      } catch (const Error& error) {
        throw Error(ErrorKind::Usage, in_option_words(declared, error.message()), error.diagnostics().front().hint);
      }
    }
  }
}

}  // namespace slmc::cli
