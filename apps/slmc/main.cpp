// slmc: parse, find the row, run it. The one place where errors become text and exit codes.
#include <cstdlib>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "apps/slmc/command_line.h"
#include "apps/slmc/context.h"
#include "apps/slmc/help.h"
#include "apps/slmc/signals.h"
#include "core/cancel.h"
#include "core/file.h"
#include "core/parallel.h"
#include "core/units.h"

namespace slmc::cli {
namespace {

TerminalSettings terminal_settings(const Arguments& args) {
  return {.quiet = args.flag("quiet"), .verbose = args.flag("verbose"), .json = args.flag("json"), .plain = args.flag("plain"),
          .no_color = args.flag("no_color")};
}

int exit_code_of(const Error& error) {
  if (error.kind() == ErrorKind::Interrupted && cancel_requested()) return exit_code_of_signal(cancel_requested());
  return exit_code(error.kind());
}

// Runs body(); prints whatever it throws.
template <typename Body>
int guarded(Terminal& term, Body body) {
  try {
    return body();
  } catch (const Error& error) {
    term.error(error);
    return exit_code_of(error);
  } catch (const std::bad_alloc&) {
    term.error(Error(ErrorKind::Resource, "the memory must suffice, but ran out"));
    return exit_code(ErrorKind::Resource);
  } catch (const std::exception& error) {
    term.error(Error(ErrorKind::Internal, std::string("a bug in slmc: ") + error.what(),
                     "please report this message together with the command that led to it"));
    return exit_code(ErrorKind::Internal);
  }
}

// For tests: SLMC_TEST_FAIL_WRITE=n makes the n-th write fail as on a full disk.
void arm_test_faults() {
  const char* n = std::getenv("SLMC_TEST_FAIL_WRITE");
  if (n) testing::fail_nth_write(parse_count(n).value_or(0));
}

int run_parsed(const Parsed& parsed, const std::vector<std::string>& words, Terminal& term) {
  if (parsed.help) {
    term.text(parsed.command ? command_help(*parsed.command) : program_help(true));
    return kDone;
  }
  if (!parsed.command) {
    term.note(program_help(false));
    return kUsage;
  }
  const Surroundings around = look_around();
  Context context{*parsed.command, parsed.arguments, term, around, words};
  set_threads(threads(context));
  return parsed.command->run(context);
}

int run(std::vector<std::string> words) {
  if (words == std::vector<std::string>{"--version"}) words = {"version"};
  Parsed parsed;
  Terminal early{TerminalSettings{}};                    // before --no-color and --quiet are known
  const int wrong = guarded(early, [&] {
    parsed = parse(words);
    return 0;
  });
  if (wrong) return wrong;
  Terminal term(terminal_settings(parsed.arguments));
  return guarded(term, [&] {
    const int code = run_parsed(parsed, words, term);
    term.finish();
    return code;
  });
}

}  // namespace
}  // namespace slmc::cli

int main(int argc, char** argv) {
  slmc::cli::install_signal_handlers();
  slmc::cli::arm_test_faults();
  return slmc::cli::run(std::vector<std::string>(argv + 1, argv + argc));
}
