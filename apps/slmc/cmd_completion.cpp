// completion: scripts for shells, made from the table of commands. Every option and every fixed word is in them.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "apps/slmc/commands.h"
#include "apps/slmc/context.h"
#include "apps/slmc/help.h"

namespace slmc::cli {
namespace {

std::vector<std::string> words_of(const Option& option) {
  const std::string name = option_name(option.setting);
  std::vector<std::string> out = {name};
  if (option.negatable) out.push_back("--no-" + name.substr(2));
  if (option.letter) out.push_back(fmt::format("-{}", option.letter));
  return out;
}

std::vector<std::string> option_words(const Command& command) {
  std::vector<std::string> out;
  for (const Option& o : all_options(command)) {
    for (std::string& word : words_of(o)) out.push_back(std::move(word));
  }
  return out;
}

// First words, each once: "recipe check" and "recipe schema" give "recipe".
std::vector<std::string> first_words() {
  std::vector<std::string> out;
  for (const Command& c : commands()) {
    const std::string word = c.name.substr(0, c.name.find(' '));
    if (std::find(out.begin(), out.end(), word) == out.end()) out.push_back(word);
  }
  return out;
}

std::vector<std::string> second_words(const std::string& first) {
  std::vector<std::string> out;
  for (const Command& c : commands()) {
    if (c.name.rfind(first + " ", 0) == 0) out.push_back(c.name.substr(first.size() + 1));
  }
  return out;
}

std::vector<std::string> positional_words(const Command& command) {
  if (command.name == "help") {
    std::vector<std::string> out = first_words();
    for (const Topic& t : topics()) out.push_back(t.name);
    return out;
  }
  return command.positionals.empty() ? std::vector<std::string>{} : command.positionals.front().choices;
}

// ---- bash ---------------------------------------------------------------------------------------------------------

std::string bash_values(const Command& command) {
  std::string out;
  for (const Option& o : all_options(command)) {
    if (o.setting.type == stage::Type::Boolean) continue;
    const std::string words = fmt::format("{}", fmt::join(words_of(o), "|"));
    const std::string reply = o.setting.choices.empty() ? "COMPREPLY=( $(compgen -f -- \"$cur\") )"
                                                       : fmt::format("COMPREPLY=( $(compgen -W '{}' -- \"$cur\") )", fmt::join(o.setting.choices, " "));
    out += fmt::format("        {}) {}; return ;;\n", words, reply);
  }
  return out;
}

std::string bash_case(const Command& command) {
  const std::string values = bash_values(command);
  std::string out = fmt::format("    '{}')\n", command.name);
  if (!values.empty()) out += "      case $prev in\n" + values + "      esac\n";
  return out + fmt::format("      options='{}'; words='{}' ;;\n", fmt::join(option_words(command), " "), fmt::join(positional_words(command), " "));
}

std::string bash_script() {
  std::string out = "# slmc completion for bash: eval \"$(slmc completion bash)\"\n_slmc() {\n"
                    "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} name=${COMP_WORDS[1]} options= words=\n  COMPREPLY=()\n";
  out += fmt::format("  if [ \"$COMP_CWORD\" -eq 1 ]; then COMPREPLY=( $(compgen -W '{} --help --version' -- \"$cur\") ); return; fi\n", fmt::join(first_words(), " "));
  for (const std::string& first : first_words()) {
    const std::vector<std::string> second = second_words(first);
    if (second.empty()) continue;
    out += fmt::format("  if [ \"$name\" = {} ]; then\n    if [ \"$COMP_CWORD\" -eq 2 ]; then COMPREPLY=( $(compgen -W '{}' -- \"$cur\") ); return; fi\n"
                       "    name=\"$name ${{COMP_WORDS[2]}}\"\n  fi\n", first, fmt::join(second, " "));
  }
  out += "  case $name in\n";
  for (const Command& c : commands()) out += bash_case(c);
  return out + "  esac\n  case $cur in\n    -*) COMPREPLY=( $(compgen -W \"$options\" -- \"$cur\") ) ;;\n"
               "    *) if [ -n \"$words\" ]; then COMPREPLY=( $(compgen -W \"$words\" -- \"$cur\") ); else COMPREPLY=( $(compgen -f -- \"$cur\") ); fi ;;\n"
               "  esac\n}\ncomplete -o filenames -F _slmc slmc\n";
}

// ---- zsh ----------------------------------------------------------------------------------------------------------

std::string zsh_quoted(std::string text) {
  std::string out;
  for (char c : text) {
    if (c == '\'') out += "'\\''";
    else if (c == '[' || c == ']' || c == ':' || c == '\\') out += std::string("\\") + c;
    else out += c;
  }
  return out;
}

std::string zsh_option(const Option& option) {
  std::string out;
  const bool flag = option.setting.type == stage::Type::Boolean;
  const std::string value = flag ? ""
                            : option.setting.choices.empty() ? ":" + zsh_quoted(option_value(option)) + ":_files"
                                                             : fmt::format(":{}:({})", option.setting.name, fmt::join(option.setting.choices, " "));
  for (const std::string& word : words_of(option)) {
    out += fmt::format(" \\\n        '{}{}[{}]{}'", option.repeat ? "*" : "", word, zsh_quoted(option.setting.help), value);
  }
  return out;
}

std::string zsh_case(const Command& command, const std::string& label) {
  std::string out = fmt::format("    {})\n      _arguments", label);
  for (const Option& o : all_options(command)) out += zsh_option(o);
  const std::vector<std::string> words = positional_words(command);
  out += words.empty() ? " \\\n        '*:file:_files'" : fmt::format(" \\\n        '*:word:({})'", fmt::join(words, " "));
  return out + " ;;\n";
}

std::string zsh_script() {
  std::string out = fmt::format("#compdef slmc\n# slmc completion for zsh: put it as _slmc into a folder of $fpath, or: source <(slmc completion zsh)\n_slmc() {{\n"
                                "  if (( CURRENT == 2 )); then compadd -- {} --help --version; return; fi\n  local name=$words[2]\n", fmt::join(first_words(), " "));
  for (const std::string& first : first_words()) {
    const std::vector<std::string> second = second_words(first);
    if (second.empty()) continue;
    out += fmt::format("  if [[ $name == {} ]]; then\n    if (( CURRENT == 3 )); then compadd -- {}; return; fi\n    name=\"$name $words[3]\"\n"
                       "    shift words; (( CURRENT-- ))\n  fi\n", first, fmt::join(second, " "));
  }
  out += "  shift words; (( CURRENT-- ))\n  case $name in\n";
  for (const Command& c : commands()) out += zsh_case(c, "'" + c.name + "'");
  return out + "  esac\n}\nif [[ $zsh_eval_context[-1] == loadautofunc ]]; then _slmc \"$@\"; else compdef _slmc slmc; fi\n";
}

// ---- fish ---------------------------------------------------------------------------------------------------------

std::string fish_quoted(std::string text) {
  std::string out;
  for (char c : text) out += c == '\'' || c == '\\' ? std::string("\\") + c : std::string(1, c);
  return "'" + out + "'";
}

std::string fish_condition(const Command& command) {
  std::string out = "__fish_seen_subcommand_from " + command.name.substr(0, command.name.find(' '));
  if (const auto space = command.name.find(' '); space != std::string::npos) out += "; and __fish_seen_subcommand_from " + command.name.substr(space + 1);
  return fish_quoted(out);
}

std::string fish_option(const Command& command, const Option& option) {
  const std::string name = option_name(option.setting).substr(2);
  std::string out = fmt::format("complete -c slmc -n {} -l {}", fish_condition(command), name);
  if (option.letter) out += fmt::format(" -s {}", option.letter);
  if (option.setting.type != stage::Type::Boolean) out += option.setting.choices.empty() ? " -r -F" : fmt::format(" -x -a '{}'", fmt::join(option.setting.choices, " "));
  out += " -d " + fish_quoted(option.setting.help) + "\n";
  if (option.negatable) out += fmt::format("complete -c slmc -n {} -l no-{} -d 'The opposite.'\n", fish_condition(command), name);
  return out;
}

std::string fish_script() {
  std::string out = "# slmc completion for fish: slmc completion fish | source\n";
  out += fmt::format("complete -c slmc -f -n __fish_use_subcommand -a '{}'\n", fmt::join(first_words(), " "));
  for (const std::string& first : first_words()) {
    const std::vector<std::string> second = second_words(first);
    if (second.empty()) continue;
    out += fmt::format("complete -c slmc -f -n '__fish_seen_subcommand_from {}; and not __fish_seen_subcommand_from {}' -a '{}'\n", first,
                       fmt::join(second, " "), fmt::join(second, " "));
  }
  for (const Command& c : commands()) {
    for (const Option& o : all_options(c)) out += fish_option(c, o);
    const std::vector<std::string> words = positional_words(c);
    if (!words.empty()) out += fmt::format("complete -c slmc -f -n {} -a '{}'\n", fish_condition(c), fmt::join(words, " "));
  }
  return out;
}

int run_completion(Context& context) {
  const std::string shell = context.args.text("SHELL");
  context.term.text(shell == "bash" ? bash_script() : shell == "zsh" ? zsh_script() : fish_script());
  return kDone;
}

}  // namespace

Command completion_command() {
  return {.name = "completion",
          .summary = "print a completion script for a shell",
          .run = run_completion,
          .positionals = {{.name = "SHELL", .help = "bash, zsh or fish.", .choices = {"bash", "zsh", "fish"}}},
          .examples = {{"slmc completion bash", "in ~/.bashrc: eval \"$(slmc completion bash)\""}}};
}

}  // namespace slmc::cli
