#include "core/error.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <tuple>
#include <utility>

namespace slmc {
namespace {

struct KindName {
  ErrorKind kind;
  std::string_view name;
  int exit;
};

constexpr std::array kKinds = {
    KindName{ErrorKind::Usage, "usage", 2},
    KindName{ErrorKind::Recipe, "recipe", 2},
    KindName{ErrorKind::Model, "model", 4},
    KindName{ErrorKind::Data, "data", 4},
    KindName{ErrorKind::Unsupported, "unsupported", 4},
    KindName{ErrorKind::Resource, "resource", 5},
    KindName{ErrorKind::Numeric, "numeric", 1},
    KindName{ErrorKind::Interrupted, "interrupted", 130},
    KindName{ErrorKind::Internal, "internal", 1},
};

const KindName& entry(ErrorKind kind) {
  return *std::find_if(kKinds.begin(), kKinds.end() - 1, [&](const KindName& k) { return k.kind == kind; });
}

bool continues_character(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

// The source line as code points one column wide, so that column n stands above caret n: tabs and control
// characters become spaces.
std::vector<std::string> cells(std::string_view line) {
  std::vector<std::string> out;
  for (char c : line) {
    if (continues_character(c) && !out.empty()) {
      out.back() += c;
    } else {
      out.emplace_back(1, static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? ' ' : c);
    }
  }
  return out;
}

// Minified JSON has lines of megabytes: only a window of kMostCells around the caret is shown.
std::string caret_picture(const Place& place, const std::string& hint) {
  constexpr int kMostCells = 100;
  const std::vector<std::string> line = cells(place.line_text);
  const int size = static_cast<int>(line.size());
  const int caret = std::clamp(place.column - 1, 0, size);
  int first = 0;
  if (size > kMostCells) first = std::clamp(caret - kMostCells / 2, 0, size - kMostCells);
  const int last = std::min(size, first + kMostCells);
  std::string shown;
  for (int i = first; i < last; ++i) shown += line[static_cast<std::size_t>(i)];
  while (!shown.empty() && shown.back() == ' ') shown.pop_back();
  std::string out = fmt::format("\n{:>5} | {}", place.line, shown);
  if (place.column == 0) return hint.empty() ? out : out + "\n      | " + hint;
  const int width = std::clamp(place.width, 1, std::max(1, last - caret));
  out += fmt::format("\n      | {:{}}^{:~<{}}", "", caret - first, "", width - 1);
  return hint.empty() ? out : out + " " + hint;
}

std::string diagnostic_text(const Diagnostic& d) {
  std::string out = d.place.file;
  if (!out.empty()) {
    if (d.place.line > 0) out += fmt::format(":{}", d.place.line);
    if (d.place.line > 0 && d.place.column > 0) out += fmt::format(":{}", d.place.column);
    out += ": ";
  }
  out += "error: ";
  out += d.message;
  if (d.place.line > 0 && !d.place.line_text.empty()) return out + caret_picture(d.place, d.hint);
  return d.hint.empty() ? out : out + "\nhint: " + d.hint;
}

}  // namespace

std::string_view to_string(ErrorKind kind) { return entry(kind).name; }

ErrorKind error_kind_from(std::string_view name) {
  for (const KindName& k : kKinds) {
    if (k.name == name) return k.kind;
  }
  return ErrorKind::Internal;
}

int exit_code(ErrorKind kind) { return entry(kind).exit; }

Error::Error(ErrorKind kind, std::string message, std::string hint)
    : Error(kind, Place{}, std::move(message), std::move(hint)) {}

Error::Error(ErrorKind kind, Place place, std::string message, std::string hint)
    : Error(kind, std::vector{Diagnostic{std::move(message), std::move(place), std::move(hint)}}) {}

Error::Error(ErrorKind kind, std::vector<Diagnostic> all) : kind_(kind), diagnostics_(std::move(all)) {
  SLMC_CHECK(!diagnostics_.empty());
  std::stable_sort(diagnostics_.begin(), diagnostics_.end(), [](const Diagnostic& a, const Diagnostic& b) {
    return std::tie(a.place.file, a.place.line, a.place.column) <
           std::tie(b.place.file, b.place.line, b.place.column);
  });
  what_ = text();
}

Error& Error::while_doing(std::string what) {
  trail_.push_back(std::move(what));
  what_ = text();
  return *this;
}

Error& Error::in_file(std::string_view file) {
  for (Diagnostic& d : diagnostics_) {
    if (d.place.file.empty()) d.place.file = file;
  }
  what_ = text();
  return *this;
}

std::string Error::text() const {
  std::string out;
  for (const Diagnostic& d : diagnostics_) {
    if (!out.empty()) out += '\n';
    out += diagnostic_text(d);
  }
  for (const std::string& step : trail_) out.append("\n  ").append(step);
  return out;
}

void internal_error(const char* file, int line, const char* condition) {
  throw Error(ErrorKind::Internal, Place{file, line, 0, 1, {}},
              fmt::format("a bug in slmc: '{}' must hold", condition),
              "please report this message together with the command that led to it");
}

std::string closest(std::string_view word, const std::vector<std::string>& candidates) {
  const std::string* best = nullptr;
  std::size_t best_distance = word.size() / 3 + 2;  // one more than what is accepted
  for (const std::string& candidate : candidates) {
    std::vector<std::size_t> row(candidate.size() + 1);  // Levenshtein, one row at a time
    for (std::size_t j = 0; j < row.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= word.size(); ++i) {
      std::size_t diagonal = std::exchange(row[0], i);
      for (std::size_t j = 1; j < row.size(); ++j) {
        const std::size_t replaced = diagonal + (word[i - 1] != candidate[j - 1]);
        diagonal = row[j];
        row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
      }
    }
    if (row.back() < best_distance) {
      best_distance = row.back();
      best = &candidate;
    }
  }
  return best ? *best : std::string();
}

}  // namespace slmc
