#include "apps/slmc/event_log.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/units.h"
#include "report/html.h"
#include "stage/job.h"

namespace slmc::cli {
namespace {

std::string text_of(const Json& event, const char* key) { return event.value(key, std::string()); }

std::string with_stage(const Json& event, const std::string& text) {
  const std::string stage = text_of(event, "stage");
  return stage.empty() ? text : stage + ": " + text;
}

Progress progress_of(const Json& event) {
  Progress out;
  out.what = with_stage(event, text_of(event, "what"));
  out.done = event.value("done", std::int64_t{0});
  out.of = event.value("of", std::int64_t{0});
  out.bytes = text_of(event, "unit") == "bytes";
  for (const auto& [key, value] : event.items()) {
    if (value.is_number() && key != "done" && key != "of") out.metrics.emplace_back(key, value.get<double>());
  }
  return out;
}

// What the table at the end will show of it; the other metrics are in the events and in --json.
std::string metrics_text(const Json& metrics) {
  report::ReportRow row;
  for (const auto& [name, value] : metrics.items()) {
    if (value.is_number()) row.metrics[name] = value.get<double>();
  }
  std::string out;
  for (const std::string& name : report::shown_metrics({row})) {
    out += fmt::format("{}{} {}", out.empty() ? "" : ", ", report::metric_title(name), report::metric_text(name, row.metrics.at(name)));
  }
  return out;
}

}  // namespace

EventLog::EventLog(Terminal& term, const std::string& file) : term_(term), path_(file) {
  if (file.empty()) return;
  fd_ = open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd_ < 0) throw Error(ErrorKind::Resource, fmt::format("the events file {} must be writable, but is not: {}", file, std::strerror(errno)));
}

EventLog::~EventLog() {
  if (fd_ >= 0) close(fd_);
}

void EventLog::keep(const Json& event) {
  if (fd_ < 0) return;
  const std::string line = dump_compact(event) + "\n";
  if (write(fd_, line.data(), line.size()) == static_cast<ssize_t>(line.size())) return;
  const int code = errno;
  close(fd_);                                           // so that reporting this error does not fail again
  fd_ = -1;
  throw Error(ErrorKind::Resource, fmt::format("the events file {} must take every event, but could not: {}", path_, std::strerror(code)));
}

void EventLog::see(const Json& event) {
  keep(event);
  show(event);
}

Json EventLog::watch(const std::function<Json(const std::function<void(const Json&)>&)>& work) {
  try {
    Json result = work([this](const Json& event) { see(event); });
    term_.end_progress();
    Json last = result;
    last["event"] = "result";
    keep(last);
    return result;
  } catch (const Error& error) {
    keep(stage::error_event(error));
    throw;
  }
}

void EventLog::show_metrics(const Json& event) {
  const std::string text = metrics_text(event.value("metrics", Json::object()));
  if (!text.empty()) term_.note(with_stage(event, text));      // a model may have none of the recipe's
}

void EventLog::show(const Json& event) {
  const std::string kind = text_of(event, "event");
  if (kind == "progress") term_.progress(progress_of(event));
  else if (kind == "note") term_.note(with_stage(event, text_of(event, "text")));
  else if (kind == "warning") term_.warning(with_stage(event, text_of(event, "text")));
  else if (kind == "text") term_.piece(text_of(event, "text"));
  else if (kind == "stage") term_.note(with_stage(event, text_of(event, "state")));
  else if (kind == "eval") show_metrics(event);
  else if (kind == "started") term_.detail("engine: " + dump_compact(event));
}

}  // namespace slmc::cli
