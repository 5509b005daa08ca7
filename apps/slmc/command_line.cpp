#include "apps/slmc/command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "apps/slmc/shared_options.h"
#include "core/error.h"

namespace slmc::cli {
namespace {

using Words = std::vector<std::string>;

bool is_option_word(const std::string& word) { return word.size() > 1 && word[0] == '-'; }

bool is_flag(const Option& option) { return option.setting.type == stage::Type::Boolean; }

// Every word that starts an option of the list: "-o", "--output", "--no-refit".
Words option_words(const std::vector<Option>& options) {
  Words out;
  for (const Option& o : options) {
    const std::string name = option_name(o.setting);
    out.push_back(name);
    if (o.negatable) out.push_back("--no-" + name.substr(2));
    if (o.letter) out.push_back(std::string("-") + o.letter);
  }
  return out;
}

const Option* find_option(const std::vector<Option>& options, const std::string& word) {
  const std::string name = word.substr(0, word.find('='));
  for (const Option& o : options) {
    if (name == option_name(o.setting) || (o.letter && name == std::string("-") + o.letter)) return &o;
  }
  return nullptr;
}

// ---- which subcommand ---------------------------------------------------------------------------------------------

// Position of the first word that is neither an option nor the value of a shared one; words.size() when there is none.
std::size_t first_plain_word(const Words& words, std::size_t from, const std::vector<Option>& options) {
  for (std::size_t i = from; i < words.size(); ++i) {
    if (!is_option_word(words[i])) return i;
    const Option* option = find_option(options, words[i]);
    if (option && !is_flag(*option) && words[i].find('=') == std::string::npos) ++i;
  }
  return words.size();
}

Words second_words(const std::string& first) {          // "recipe" -> check, schema, init
  Words out;
  for (const Command& c : commands()) {
    if (c.name.rfind(first + " ", 0) == 0) out.push_back(c.name.substr(first.size() + 1));
  }
  return out;
}

[[noreturn]] void unknown_subcommand(const std::string& word) {
  Words names;
  for (const Command& c : commands()) {
    const std::string first = c.name.substr(0, c.name.find(' '));
    if (names.empty() || names.back() != first) names.push_back(first);
  }
  const std::string near = closest(word, names);
  throw Error(ErrorKind::Usage, fmt::format("unknown subcommand '{}'", word),
              near.empty() ? "`slmc --help` lists them" : fmt::format("did you mean '{}'?", near));
}

[[noreturn]] void unknown_second_word(const std::string& first, const std::string& second) {
  const Words all = second_words(first);
  const std::string list = fmt::format("{}", fmt::join(all, ", "));
  if (second.empty()) {
    throw Error(ErrorKind::Usage, fmt::format("a word must follow 'slmc {}', but nothing does", first),
                "one of: " + list);
  }
  const std::string near = closest(second, all);
  throw Error(ErrorKind::Usage, fmt::format("unknown subcommand '{} {}'", first, second),
              near.empty() ? "one of: " + list : fmt::format("did you mean '{} {}'?", first, near));
}

// Finds the command and removes its words from `words`.
const Command* take_command(Words& words) {
  const std::vector<Option> shared = every_shared_option();
  const std::size_t at = first_plain_word(words, 0, shared);
  if (at == words.size()) return nullptr;
  const std::string first = words[at];
  if (const Command* command = find_command(first)) {
    words.erase(words.begin() + static_cast<std::ptrdiff_t>(at));
    return command;
  }
  if (second_words(first).empty()) unknown_subcommand(first);
  const std::size_t next = first_plain_word(words, at + 1, shared);
  const std::string second = next < words.size() ? words[next] : "";
  const Command* command = find_command(first + " " + second);
  if (!command) unknown_second_word(first, second);
  words.erase(words.begin() + static_cast<std::ptrdiff_t>(next));
  words.erase(words.begin() + static_cast<std::ptrdiff_t>(at));
  return command;
}

// ---- what is wrong with it ----------------------------------------------------------------------------------------

[[noreturn]] void unknown_option(const std::string& word, const Command* command, const std::vector<Option>& options) {
  const std::string name = word.substr(0, word.find('='));
  const std::string near = closest(name, option_words(options));
  const std::string of = command ? fmt::format(" of 'slmc {}'", command->name) : "";
  const std::string help = command ? fmt::format("`slmc {} --help` lists them", command->name) : "`slmc --help` lists them";
  throw Error(ErrorKind::Usage, fmt::format("unknown option '{}'{}", name, of),
              near.empty() ? help : fmt::format("did you mean '{}'?", near));
}

[[noreturn]] void missing_value(const Option& option) {
  throw Error(ErrorKind::Usage, fmt::format("the option {} must have a value ({}), but has none", spelled(option),
                                            option_value(option)));
}

// CLI11 gave up: say why in our words.
[[noreturn]] void explain(const Words& words, const std::vector<Option>& options, const CLI::ParseError& error) {
  if (!words.empty()) {
    const Option* last = find_option(options, words.back());
    if (last && !is_flag(*last)) missing_value(*last);
  }
  throw Error(ErrorKind::Usage, fmt::format("the command line can't be read: {}", error.what()));
}

void refuse_extras(Words extras, const Command& command, const std::vector<Option>& options) {
  std::erase(extras, "--");                                     // CLI11 counts the mark itself
  for (const std::string& word : extras) {
    if (is_option_word(word)) unknown_option(word, &command, options);
  }
  if (extras.empty()) return;
  throw Error(ErrorKind::Usage, fmt::format("'slmc {}' takes no further word, but '{}' follows", command.name, extras.front()),
              fmt::format("`slmc {} --help` shows what it takes", command.name));
}

void check_positional(const Command& command, const Positional& positional, const std::string& value) {
  const Words& choices = positional.choices;
  if (choices.empty() || std::find(choices.begin(), choices.end(), value) != choices.end()) return;
  throw Error(ErrorKind::Usage, fmt::format("the {} of 'slmc {}' must be one of {}, but is '{}'", positional.name, command.name,
                                            fmt::join(choices, ", "), value));
}

// ---- splitting by CLI11 -------------------------------------------------------------------------------------------

std::string cli11_names(const Option& option) {
  std::string names = option.letter ? fmt::format("-{},", option.letter) : "";
  names += option_name(option.setting);
  if (option.negatable) names += fmt::format(",!--no-{}", option_name(option.setting).substr(2));
  return names;
}

CLI::Option* add(CLI::App& app, const Option& option, std::vector<std::string>& into) {
  if (is_flag(option)) return app.add_flag(cli11_names(option));
  return app.add_option(cli11_names(option), into)
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(option.repeat ? CLI::MultiOptionPolicy::TakeAll : CLI::MultiOptionPolicy::Throw);
}

void take_values(const Option& option, const CLI::Option& parsed, const Words& values, const Words& known, Arguments& out) {
  if (parsed.count() == 0) return;
  const std::string& name = option.setting.name;
  if (is_flag(option)) {                                        // the last one wins: --refit --no-refit
    const std::string last = parsed.results().back();
    out.put(name, last == "false" || last == "-1" ? "false" : "true");
    return;
  }
  for (const std::string& value : values) {
    if (std::find(known.begin(), known.end(), value) != known.end()) missing_value(option);
    out.put(name, value);
  }
}

// CLI11 would take --json=false as "not given", and --json=yes as a flag.
void refuse_values_of_flags(const Words& words, const std::vector<Option>& options) {
  for (const std::string& word : words) {
    const auto equals = word.find('=');
    const Option* option = is_option_word(word) && equals != std::string::npos ? find_option(options, word) : nullptr;
    if (!option || !is_flag(*option)) continue;
    throw Error(ErrorKind::Usage, fmt::format("the option {} takes no value, but has '{}'", spelled(*option), word.substr(equals + 1)));
  }
}

void refuse_repeated(const Words& words, const std::vector<Option>& options) {
  for (const Option& option : options) {
    if (option.repeat || is_flag(option)) continue;
    const auto same = [&](const std::string& word) { return is_option_word(word) && find_option(options, word) == &option; };
    if (std::count_if(words.begin(), words.end(), same) > 1) {
      throw Error(ErrorKind::Usage, fmt::format("the option {} must be given once, but is given twice", spelled(option)));
    }
  }
}

}  // namespace

Parsed parse(const std::vector<std::string>& given) {
  Words words = given;
  Parsed out;
  const auto asks_for_help = [](const std::string& w) { return w == "-h" || w == "--help"; };
  const auto end = std::find(words.begin(), words.end(), "--");
  out.help = std::any_of(words.begin(), end, asks_for_help);
  out.command = take_command(words);
  if (out.help) return out;
  if (!out.command) {
    for (const std::string& word : words) {
      if (!find_option(every_shared_option(), word)) unknown_option(word, nullptr, every_shared_option());
    }
    return out;
  }

  const Command& command = *out.command;
  const std::vector<Option> options = all_options(command);
  const Words known = option_words(options);
  CLI::App app;
  app.set_help_flag();
  app.allow_extras();
  std::vector<std::vector<std::string>> values(options.size());
  std::vector<CLI::Option*> parsed;
  for (std::size_t i = 0; i < options.size(); ++i) parsed.push_back(add(app, options[i], values[i]));
  std::vector<std::string> plain(command.positionals.size());
  for (std::size_t i = 0; i < plain.size(); ++i) app.add_option("word" + std::to_string(i), plain[i]);
  refuse_values_of_flags(words, options);
  refuse_repeated(words, options);
  try {
    app.parse(std::vector<std::string>(words.rbegin(), words.rend()));        // CLI11 wants them reversed
  } catch (const CLI::ParseError& error) {
    refuse_extras(app.remaining(), command, options);
    explain(words, options, error);
  }
  refuse_extras(app.remaining(), command, options);
  for (std::size_t i = 0; i < options.size(); ++i) take_values(options[i], *parsed[i], values[i], known, out.arguments);
  for (std::size_t i = 0; i < plain.size(); ++i) {
    const Positional& positional = command.positionals[i];
    if (plain[i].empty() && positional.required) {
      throw Error(ErrorKind::Usage, fmt::format("'slmc {}' must be given a {}, but is not", command.name, positional.name),
                  command.examples.empty() ? "" : "for example: " + command.examples.front().line);
    }
    if (plain[i].empty()) continue;
    check_positional(command, positional, plain[i]);
    out.arguments.put(positional.name, plain[i]);
  }
  out.arguments.set_options(options);
  out.arguments.check();
  return out;
}

std::vector<std::string> split_words(const std::string& line) {
  Words out;
  std::string word;
  bool inside = false;
  char quote = 0;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (quote) {
      if (c == quote) quote = 0;
      else word += c;
    } else if (c == '\'' || c == '"') {
      quote = c;
      inside = true;
    } else if (c == '\\' && i + 1 < line.size()) {
      word += line[++i];
      inside = true;
    } else if (c == ' ' || c == '\t') {
      if (inside) out.push_back(std::exchange(word, {}));
      inside = false;
    } else {
      word += c;
      inside = true;
    }
  }
  if (inside) out.push_back(word);
  return out;
}

std::string quote_word(const std::string& word) {
  const auto plain = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || std::strchr("_-./:=,+@%^", c); };
  if (!word.empty() && std::all_of(word.begin(), word.end(), plain)) return word;
  std::string out = "'";
  for (char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string join_words(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : " ") + quote_word(word);
  return out;
}

}  // namespace slmc::cli
