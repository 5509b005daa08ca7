#pragma once
// The one error type of slmc. A message reads "the X must be A, but is B"; file and place say where; the hint says what
// to do. Library code throws it and never prints or exits; apps/ maps the kind to an exit code in one place.
#include <cstdint>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

namespace slmc {

enum class ErrorKind {
  Usage,        // wrong command line                                  exit 2
  Recipe,       // wrong recipe, plan or template: nothing was run     exit 2
  Model,        // model file missing, truncated, contradictory        exit 4
  Data,         // text, dataset or tokenizer missing or corrupt       exit 4
  Unsupported,  // well-formed, but slmc can't do it                   exit 4
  Resource,     // memory, disk, device                                exit 5
  Numeric,      // NaN, not positive definite                          exit 1
  Interrupted,  // asked to stop; what could be saved is saved         exit 130 / 143
  Internal,     // a bug of ours                                       exit 1
};

std::string_view to_string(ErrorKind kind);            // "recipe", "model", ...
ErrorKind error_kind_from(std::string_view name);      // inverse; unknown names are Internal
int exit_code(ErrorKind kind);                         // Interrupted gives 130

// Where something is wrong. Lines and columns count from 1; 0 means unknown. An empty file means no place.
struct Place {
  std::string file;
  int line = 0;
  int column = 0;
  int width = 1;            // characters under the caret
  std::string line_text;    // the source line, for the caret picture; may be empty
};

struct Diagnostic {
  std::string message;      // "the X must be A, but is B"
  Place place;
  std::string hint;         // "did you mean 'ffn'?", "run scripts/setup"
};

class Error : public std::exception {
 public:
  Error(ErrorKind kind, std::string message, std::string hint = {});
  Error(ErrorKind kind, Place place, std::string message, std::string hint = {});
  Error(ErrorKind kind, std::vector<Diagnostic> all);  // several at once (recipes); `all` must not be empty

  ErrorKind kind() const { return kind_; }
  const std::vector<Diagnostic>& diagnostics() const { return diagnostics_; }
  const std::string& message() const { return diagnostics_.front().message; }
  // Adds context while unwinding, outermost last: "while applying stage 'width'".
  Error& while_doing(std::string what);
  // Names the file in every diagnostic that has none: readers call it around helpers that don't know the file.
  Error& in_file(std::string_view file);
  const std::vector<std::string>& trail() const { return trail_; }
  // Whole text as a user sees it, without colour:
  //   FILE:LINE:COL: error: MESSAGE
  //      LINE | the line
  //           | ^~~~ hint
  std::string text() const;
  const char* what() const noexcept override { return what_.c_str(); }

 private:
  ErrorKind kind_;
  std::vector<Diagnostic> diagnostics_;
  std::vector<std::string> trail_;
  std::string what_;
};

// For slmc's own bugs only; no user input may reach it.
[[noreturn]] void internal_error(const char* file, int line, const char* condition);
#define SLMC_CHECK(cond) ((cond) ? (void)0 : ::slmc::internal_error(__FILE__, __LINE__, #cond))

// Nearest candidate by edit distance, or "" when nothing is close (distance > 1 + length / 3).
std::string closest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace slmc
