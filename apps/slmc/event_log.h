#pragma once
// Shows the events of a run or of one job on the terminal, and keeps them in the --events file.
#include <functional>
#include <string>

#include "apps/slmc/terminal.h"
#include "core/json.h"

namespace slmc::cli {

class EventLog {
 public:
  // `file`: JSON lines are appended to it; "" = none. Error(Resource) when it can't be opened.
  EventLog(Terminal& term, const std::string& file);
  ~EventLog();
  EventLog(const EventLog&) = delete;
  EventLog& operator=(const EventLog&) = delete;
  void see(const Json& event);
  // Runs work that reports here; its result, or its error, is the last line of the file. Gives the result back.
  Json watch(const std::function<Json(const std::function<void(const Json&)>&)>& work);

 private:
  void show(const Json& event);
  void show_metrics(const Json& event);
  void keep(const Json& event);
  Terminal& term_;
  std::string path_;
  int fd_ = -1;
};

}  // namespace slmc::cli
