#pragma once
// One slmc-engine process: a job goes in through an anonymous file, events come back as JSON lines on its standard output.
// A process that dies without saying why becomes a sentence.
#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "core/json.h"
#include "stage/job.h"

namespace slmc::cli {

// What a finished process used; memory is the peak of anonymous pages, sampled every 20 ms: mapped model files don't count.
struct Usage {
  double seconds = 0, cpu_seconds = 0;
  std::uint64_t peak_bytes = 0;
};

class EngineProcess {
 public:
  // `input`: keep a pipe to its standard input for send(). Error(Resource) when it can't be started.
  EngineProcess(const std::filesystem::path& program, const stage::Job& job, bool input = false);
  ~EngineProcess();                                     // kills what still runs
  EngineProcess(const EngineProcess&) = delete;
  EngineProcess& operator=(const EngineProcess&) = delete;

  // The next event, waiting for it; nothing when the engine has closed its output. Error(Internal) on a line that is no event.
  std::optional<Json> next();
  void send(const Json& line);                          // one JSON line to its standard input
  void close_input();
  // Waits for the end. Error when it was killed, crashed, or ended with a code but no error event.
  Usage finish(bool had_last_event);

 private:
  void read_some();
  void sample_memory();
  [[noreturn]] void explain_death(int status) const;

  pid_t pid_ = -1;
  int events_ = -1, messages_ = -1, input_ = -1;        // our ends: its stdout, stderr, stdin
  std::string pending_, said_;                          // unread events; the end of what it wrote to stderr
  bool open_ = true;
  double began_ = 0;
  std::uint64_t peak_bytes_ = 0;
};

}  // namespace slmc::cli
