#pragma once
// Everything that slmc prints. Results go to standard output; messages and progress to standard error. Colour and the progress
// bar are decided for each stream apart. Nothing else in apps/slmc writes to either.
#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "apps/slmc/command.h"
#include "apps/slmc/progress.h"
#include "core/error.h"
#include "core/json.h"
#include "report/table.h"

namespace slmc::cli {

struct TerminalSettings {
  bool quiet = false, verbose = false, json = false, plain = false, no_color = false;
};

class Terminal {
 public:
  // Looks at both streams and at NO_COLOR, FORCE_COLOR, TERM and COLUMNS.
  explicit Terminal(const TerminalSettings& settings);
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;
  ~Terminal();

  bool json() const { return settings_.json; }
  bool verbose() const { return settings_.verbose; }

  // Results.
  void table(const report::Table& table);
  void text(std::string_view text);                  // a final newline is added when it lacks one
  void piece(std::string_view text);                 // as it is, at once: generated text
  // {"schema": "slmc.COMMAND/1", ...}, indented. Every field stands in the command's `json`, so --help documents all of them.
  void document(const Command& command, const Json& fields);
  void finish();                                     // Error(Resource) when something could not be written

  // Messages.
  void note(std::string_view text);                  // silent with -q
  void detail(std::string_view text);                // only with -v
  void warning(std::string_view text);
  void error(const Error& error);
  void progress(const Progress& progress);           // silent with -q
  void end_progress();                               // takes the bar off the screen

 private:
  void message(std::string_view text);

  TerminalSettings settings_;
  bool colour_out_ = false, colour_err_ = false, bar_ = false;
  int width_out_ = 0, width_err_ = 80;
  bool bar_shown_ = false;
  bool open_line_ = false;                           // standard output stands inside a line
  bool failed_ = false;                              // standard output could not take everything
  ProgressLine line_;
};

}  // namespace slmc::cli
