#pragma once
// What a subcommand is: one row of the table in commands.cpp. Parsing, help, completion and the tests of the examples read the
// row; only `run` does something. Options are settings (stage/settings.h) with a letter, so a value is parsed, checked and
// explained in one way wherever it is written.
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "stage/settings.h"

namespace slmc::cli {

struct Context;

// What a command needs before it can answer; a test proves that the first two never start the engine.
enum class Loads { Nothing, Headers, Engine };

struct Option {
  stage::Setting setting;           // name "max_ram": --max-ram; Boolean options are flags
  char letter = 0;                  // 'o': -o
  std::string value;                // "FILE" in help; "" = from the type
  bool repeat = false;              // may be given several times
  bool negatable = false;           // Boolean: --no-NAME exists too
  std::string group;                // heading in help; "" = "Options"
};

struct Positional {
  std::string name;                 // "MODEL"
  std::string help;
  bool required = true;
  std::vector<std::string> choices;  // for completion and checking; empty = anything
};

struct Example {
  std::string line;                 // "slmc inspect model.gguf --json"
  std::string why;                  // "sizes and bytes, for scripts"
};

struct JsonField {                  // one top-level key of the --json document
  std::string name, help;
};

// Which of the shared options (shared_options.cpp) a command takes, besides those that all take.
struct Shares {
  bool json = false;                // --json
  bool plain = false;               // --plain: it prints a table
  bool device = false;              // --device --gemm
  bool threads = false;             // --threads
  bool max_ram = false;             // --max-ram
  bool seed = false;                // --seed
  bool events = false;              // --events
  bool dry_run = false;             // -n
  bool force = false;               // -f
};

struct Command {
  std::string name;                 // "inspect", "recipe check"
  std::string summary;              // one line, lower case
  Loads loads = Loads::Nothing;
  int (*run)(Context&) = nullptr;   // returns the exit code; errors are thrown
  Shares shares;
  std::vector<Positional> positionals;
  std::vector<Option> options;
  std::vector<Example> examples;
  std::vector<JsonField> json;      // what the document holds; empty = no --json
  std::string details;              // more text for --help
};

const std::vector<Command>& commands();                      // in the order of help
const Command* find_command(std::string_view name);
std::vector<Option> all_options(const Command& command);     // its own, then the shared ones

std::string document_schema(const Command& command);          // "slmc.recipe-check/1"
std::string option_name(const stage::Setting& setting);      // "--max-ram"
std::string spelled(const Option& option);                    // "-o/--output", for messages
std::string option_value(const Option& option);              // "FILE", "N", "cpu|cuda", "" for flags

// What was typed, by setting name; positionals by their name.
class Arguments {
 public:
  bool has(std::string_view name) const { return values_.count(name) != 0; }
  bool flag(std::string_view name) const;                    // given and not negated
  std::string text(std::string_view name) const;             // its default, or "", when not given
  std::vector<std::string> all(std::string_view name) const;
  std::int64_t integer(std::string_view name) const;         // checked while parsing; the default when not given
  std::optional<std::int64_t> maybe_integer(std::string_view name) const;

  void put(const std::string& name, std::string value) { values_[name].push_back(std::move(value)); }
  void set_options(std::vector<Option> options) { options_ = std::move(options); }
  // Every value against its declaration; Error(Usage) naming the option.
  void check() const;

 private:
  const Option* option(std::string_view name) const;
  std::map<std::string, std::vector<std::string>, std::less<>> values_;
  std::vector<Option> options_;
};

}  // namespace slmc::cli
