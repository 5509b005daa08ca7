#include "apps/slmc/engine_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "apps/slmc/signals.h"
#include "core/cancel.h"
#include "core/units.h"

namespace slmc::cli {
namespace {

constexpr int kSampleMs = 20;
constexpr std::size_t kMostLine = 256u << 20;           // bytes of one event
constexpr int kLoaderFailed = 127;                      // exit code of the dynamic loader
constexpr std::size_t kKeptMessages = 4096;             // bytes of the end of its stderr

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

[[noreturn]] void cannot_start(const std::filesystem::path& program, int code) {
  throw Error(ErrorKind::Resource, fmt::format("the engine {} must start, but did not: {}", program.string(), std::strerror(code)));
}

// An anonymous file that holds the job; the child opens it as /proc/self/fd/N, so that nothing is left behind on any disk.
int job_file(const std::filesystem::path& program, const std::string& text) {
  const int fd = memfd_create("slmc-job", 0);
  if (fd < 0) cannot_start(program, errno);
  for (std::size_t at = 0; at < text.size();) {
    const ssize_t n = write(fd, text.data() + at, text.size() - at);
    if (n < 0) cannot_start(program, errno);
    at += static_cast<std::size_t>(n);
  }
  return fd;
}

struct Pipe {
  int read = -1, write = -1;
};

Pipe new_pipe(const std::filesystem::path& program) {
  std::array<int, 2> fds{};
  if (pipe2(fds.data(), O_CLOEXEC) != 0) cannot_start(program, errno);
  return {fds[0], fds[1]};
}

// Between fork and exec: async-signal-safe calls only.
[[noreturn]] void become_engine(const char* program, int job, int in, int out, int err, int failed, pid_t parent) {
  setpgid(0, 0);                                        // signals of the terminal come through us, once
  prctl(PR_SET_PDEATHSIG, SIGKILL);                     // should we vanish, nobody must write to our folders any more
  if (getppid() != parent) _exit(137);
  signal(SIGPIPE, SIG_DFL);
  signal(SIGINT, SIG_DFL);
  signal(SIGTERM, SIG_DFL);
  dup2(in, STDIN_FILENO);
  dup2(out, STDOUT_FILENO);
  dup2(err, STDERR_FILENO);
  std::array<char, 32> path{};
  fmt::format_to_n(path.data(), path.size() - 1, "/proc/self/fd/{}", job);
  execl(program, "slmc-engine", path.data(), static_cast<char*>(nullptr));
  const int code = errno;
  [[maybe_unused]] const auto n = write(failed, &code, sizeof code);
  _exit(127);
}

std::string last_lines(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == '\n') out += "\n  ";
    else if (static_cast<unsigned char>(c) >= 0x20 || c == '\t') out += c;
  }
  while (!out.empty() && (out.back() == ' ' || out.back() == '\n')) out.pop_back();
  return out;
}

}  // namespace

EngineProcess::EngineProcess(const std::filesystem::path& program, const stage::Job& job, bool input) : began_(now_s()) {
  const int job_fd = job_file(program, dump_compact(stage::to_json(job)));
  const Pipe out = new_pipe(program), err = new_pipe(program), failed = new_pipe(program);
  const Pipe in = input ? new_pipe(program) : Pipe{open("/dev/null", O_RDONLY | O_CLOEXEC), -1};
  // Threads that wait by spinning take the cores from those that work as soon as another program wants one: beside three others, a forward
  // pass took 12 s with two threads, 6 s with one, and 5 s with two that wait asleep. On a quiet machine both ways of waiting are equal.
  setenv("OMP_WAIT_POLICY", "passive", 0);
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ < 0) cannot_start(program, errno);
  if (pid_ == 0) become_engine(program.c_str(), job_fd, in.read, out.write, err.write, failed.write, parent);
  set_engine(pid_);
  for (int fd : {job_fd, in.read, out.write, err.write, failed.write}) close(fd);
  events_ = out.read;
  messages_ = err.read;
  input_ = in.write;
  int code = 0;
  const bool refused = read(failed.read, &code, sizeof code) == sizeof code;    // closed by a successful exec
  close(failed.read);
  if (refused) {
    waitpid(pid_, nullptr, 0);
    set_engine(0);
    pid_ = -1;
    cannot_start(program, code);
  }
}

EngineProcess::~EngineProcess() {
  for (int fd : {events_, messages_, input_}) {
    if (fd >= 0) close(fd);
  }
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  set_engine(0);
}

void EngineProcess::sample_memory() {
  const std::string path = fmt::format("/proc/{}/statm", pid_);
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  std::array<char, 128> text{};
  const ssize_t n = read(fd, text.data(), text.size() - 1);
  close(fd);
  unsigned long long size = 0, resident = 0, shared = 0;
  if (n > 0 && std::sscanf(text.data(), "%llu %llu %llu", &size, &resident, &shared) == 3 && resident > shared) {
    peak_bytes_ = std::max<std::uint64_t>(peak_bytes_, (resident - shared) * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)));
  }
}

// Waits for output of either kind, at most one sampling period.
void EngineProcess::read_some() {
  std::array<pollfd, 2> fds{pollfd{open_ ? events_ : -1, POLLIN, 0}, pollfd{messages_, POLLIN, 0}};    // negative: ignored
  poll(fds.data(), fds.size(), kSampleMs);              // EINTR: a signal came; the handler has passed it on
  sample_memory();
  std::array<char, 65536> buffer;
  if (fds[1].revents) {
    const ssize_t n = read(messages_, buffer.data(), buffer.size());
    if (n > 0) said_.append(buffer.data(), static_cast<std::size_t>(n));
    if (n == 0) messages_ = (close(messages_), -1);
    if (said_.size() > kKeptMessages) said_.erase(0, said_.size() - kKeptMessages);
  }
  if (fds[0].revents) {
    const ssize_t n = read(events_, buffer.data(), buffer.size());
    if (n > 0) pending_.append(buffer.data(), static_cast<std::size_t>(n));
    if (n == 0) open_ = false;
  }
}

std::optional<Json> EngineProcess::next() {
  std::size_t searched = 0;
  for (;;) {
    const std::size_t end = pending_.find('\n', searched);
    if (end != std::string::npos) {
      const std::string line = pending_.substr(0, end);
      pending_.erase(0, end + 1);
      Json event = Json::parse(line, nullptr, false);
      if (!event.is_object() || !event.contains("event") || !event["event"].is_string()) {
        throw Error(ErrorKind::Internal, fmt::format("the engine's output must be events, but holds '{}'", line.substr(0, 200)));
      }
      return event;
    }
    if (!open_) return std::nullopt;
    searched = pending_.size();
    if (searched > kMostLine) throw Error(ErrorKind::Internal, "the engine's events must be shorter than 256 MiB, but one is longer");
    read_some();
  }
}

void EngineProcess::send(const Json& line) {
  const std::string text = dump_compact(line) + "\n";
  for (std::size_t at = 0; at < text.size();) {
    const ssize_t n = write(input_, text.data() + at, text.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return;                                  // it has died; next() and finish() say so
    at += static_cast<std::size_t>(n);
  }
}

void EngineProcess::close_input() {
  if (input_ >= 0) close(input_);
  input_ = -1;
}

Usage EngineProcess::finish(bool had_last_event) {
  close_input();
  int status = 0;
  rusage used{};
  while (wait4(pid_, &status, 0, &used) < 0 && errno == EINTR) {
  }
  set_engine(0);
  while (messages_ >= 0) read_some();                   // what it said last
  pid_ = -1;
  if (WIFSIGNALED(status) || !had_last_event) explain_death(status);
  const auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec); };
  return {.seconds = now_s() - began_, .cpu_seconds = seconds(used.ru_utime) + seconds(used.ru_stime), .peak_bytes = peak_bytes_};
}

void EngineProcess::explain_death(int status) const {
  const std::string memory = format_bytes(peak_bytes_);
  const std::string said = said_.empty() ? "" : "\n  " + last_lines(said_);
  if (WIFSIGNALED(status)) {
    const int signal = WTERMSIG(status);
    if (cancel_requested() && (signal == SIGINT || signal == SIGTERM)) throw Error(ErrorKind::Interrupted, "stopped as asked, before anything could be saved");
    if (signal == SIGKILL) {
      throw Error(ErrorKind::Resource, fmt::format("the engine was killed (signal 9) while it held {} of memory{}", memory, said),
                  "most often the system ran out of memory: `dmesg` says so; --max-ram, shorter windows or fewer of them help");
    }
    throw Error(ErrorKind::Internal, fmt::format("the engine crashed: signal {} ({}){}", signal, sigdescr_np(signal), said),
                "please report this message together with the command that led to it");
  }
  if (WEXITSTATUS(status) == kLoaderFailed) {
    throw Error(ErrorKind::Resource, fmt::format("the engine must start, but its libraries can't be loaded{}", said),
                "`slmc version` names the LibTorch that it was built for");
  }
  throw Error(ErrorKind::Internal, fmt::format("the engine must end with a result, but ended with exit code {} and without one{}",
                                               WEXITSTATUS(status), said),
              "please report this message together with the command that led to it");
}

}  // namespace slmc::cli
