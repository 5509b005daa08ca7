#include "apps/slmc/terminal.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

namespace slmc::cli {
namespace {

std::string_view variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

bool dumb() { return variable("TERM") == "dumb"; }

// NO_COLOR, when set and not empty, wins over FORCE_COLOR (no-color.org).
bool wants_colour(int fd, bool off) {
  if (off || !variable("NO_COLOR").empty()) return false;
  if (!variable("FORCE_COLOR").empty() && variable("FORCE_COLOR") != "0") return true;
  return isatty(fd) && !dumb();
}

int width_of(int fd) {
  winsize size{};
  if (isatty(fd) && ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  const int columns = std::atoi(std::string(variable("COLUMNS")).c_str());
  return columns > 0 ? columns : 0;
}

// Colours the first "WORD:" of each line that has one, without touching the text.
std::string coloured(std::string text, std::string_view word, std::string_view code) {
  std::string out;
  for (std::size_t line = 0; line < text.size();) {
    const std::size_t end = std::min(text.find('\n', line), text.size());
    const std::string_view here(text.data() + line, end - line);
    const std::size_t at = here.find(word);
    if (at == std::string_view::npos) {
      out += here;
    } else {
      out += fmt::format("{}\x1b[{}m{}\x1b[0m{}", here.substr(0, at), code, word, here.substr(at + word.size()));
    }
    if (end < text.size()) out += '\n';
    line = end + 1;
  }
  return out;
}

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

Terminal::Terminal(const TerminalSettings& settings)
    : settings_(settings),
      colour_out_(wants_colour(STDOUT_FILENO, settings.no_color)),
      colour_err_(wants_colour(STDERR_FILENO, settings.no_color)),
      bar_(isatty(STDERR_FILENO) && !dumb() && !settings.no_color),
      width_out_(width_of(STDOUT_FILENO)),
      width_err_(width_of(STDERR_FILENO) > 0 ? width_of(STDERR_FILENO) : 80),
      line_(bar_, width_err_) {}

Terminal::~Terminal() { end_progress(); }

void Terminal::piece(std::string_view text) {
  end_progress();
  if (!text.empty()) open_line_ = text.back() != '\n';
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0) return;
  if (errno == EPIPE) {                                 // the reader has seen enough: end as every filter does
    std::signal(SIGPIPE, SIG_DFL);
    std::raise(SIGPIPE);
  }
  failed_ = true;
}

void Terminal::text(std::string_view text) {
  piece(text);
  if (!text.empty() && text.back() != '\n') piece("\n");
}

void Terminal::table(const report::Table& table) {
  text(report::render(table, {.plain = settings_.plain, .bold_titles = colour_out_ && !settings_.plain, .width = width_out_}));
}

void Terminal::document(const Command& command, const Json& fields) {
  Json out = Json::object();
  out["schema"] = document_schema(command);
  for (const auto& [key, value] : fields.items()) {
    const auto documented = [&, &name = key](const JsonField& f) { return f.name == name; };
    SLMC_CHECK(std::any_of(command.json.begin(), command.json.end(), documented));
    out[key] = value;
  }
  text(out.dump(2, ' ', false, Json::error_handler_t::replace));
}

void Terminal::finish() {
  end_progress();
  if (failed_ || std::fflush(stdout) != 0) {
    failed_ = false;
    throw Error(ErrorKind::Resource, "standard output must take the whole result, but could not", "is the disk full?");
  }
}

void Terminal::message(std::string_view text) {
  end_progress();
  std::fwrite(text.data(), 1, text.size(), stderr);
  if (text.empty() || text.back() != '\n') std::fputc('\n', stderr);
  std::fflush(stderr);
}

void Terminal::note(std::string_view text) {
  if (!settings_.quiet) message(text);
}

void Terminal::detail(std::string_view text) {
  if (settings_.verbose) message(text);
}

void Terminal::warning(std::string_view text) {
  const std::string whole = fmt::format("warning: {}", text);
  message(colour_err_ ? coloured(whole, "warning:", "1;33") : whole);
}

void Terminal::error(const Error& error) {
  if (open_line_) piece("\n");
  message(colour_err_ ? coloured(error.text(), "error:", "1;31") : error.text());
}

void Terminal::progress(const Progress& progress) {
  if (settings_.quiet) return;
  const std::optional<std::string> line = line_.update(progress, now_s());
  if (!line) return;
  if (!bar_) return message(*line);
  fmt::print(stderr, "\r{}\x1b[K", *line);
  std::fflush(stderr);
  bar_shown_ = true;
}

void Terminal::end_progress() {
  if (!bar_shown_) return;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
  bar_shown_ = false;
}

}  // namespace slmc::cli
