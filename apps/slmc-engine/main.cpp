// slmc-engine JOB.json: computes one job (stage/job.h) and writes its events as JSON lines to standard output.
#include <ATen/Parallel.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>
#include <new>
#include <nlohmann/json.hpp>
#include <thread>

#include "apps/slmc-engine/ops_table.h"
#include "core/cancel.h"
#include "core/file.h"
#include "core/parallel.h"
#include "core/units.h"
#include "engine/devices.h"
#include "engine/kernels.h"

namespace slmc {
namespace {

// The first signal asks, the second ends.
extern "C" void on_signal(int signal) {
  if (cancel_requested()) _exit(128 + signal);
  request_cancel(signal);
}

void install_handlers() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

class LineEvents : public stage::Events {
 public:
  void emit(const Json& event) override {
    const std::string line = dump_compact(event) + "\n";
    const std::lock_guard lock(mutex_);
    for (std::size_t at = 0; at < line.size();) {
      const ssize_t n = write(STDOUT_FILENO, line.data() + at, line.size() - at);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return;                        // nobody listens any more
      at += static_cast<std::size_t>(n);
    }
  }

 private:
  std::mutex mutex_;
};

// Largest resident anonymous memory, sampled: mapped model files don't count.
class MemoryWatch {
 public:
  MemoryWatch() : thread_([this] { watch(); }) {}
  ~MemoryWatch() {
    stop_ = true;
    thread_.join();
  }
  std::uint64_t peak() {
    sample();
    return peak_;
  }

 private:
  void sample() {
    const std::uint64_t now = engine::anonymous_bytes();
    std::uint64_t seen = peak_;
    while (now > seen && !peak_.compare_exchange_weak(seen, now)) {
    }
  }
  void watch() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);  // signals belong to the main thread
    while (!stop_) {
      sample();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
  std::atomic<std::uint64_t> peak_{0};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// Limits private memory to `most` bytes more than is reserved, but not used, now (code, stacks of threads).
void limit_memory(std::uint64_t most) {
  if (most == 0) return;
  const std::uint64_t reserved = engine::reserved_bytes(), used = engine::anonymous_bytes();
  const rlim_t limit = most + (reserved > used ? reserved - used : 0);
  const rlimit both{limit, limit};
  if (setrlimit(RLIMIT_DATA, &both) != 0) {
    throw Error(ErrorKind::Resource, "memory must be limited to " + format_bytes(most) + ", but the system refuses: " + std::strerror(errno));
  }
}

stage::Job read_job(const char* path, const engine::Ops& ops) {
  const Json json = read_json(path, ErrorKind::Internal);
  const std::string op = json.is_object() && json.contains("op") && json["op"].is_string() ? json["op"].get<std::string>() : "";
  const auto it = ops.find(op);
  if (it == ops.end()) {
    throw Error(ErrorKind::Internal, "the job's op must be one that slmc-engine knows, but is '" + op + "'", "slmc and slmc-engine are of different versions");
  }
  return stage::job_from_json(json, it->second.info->settings);
}

Json run(const char* path, stage::Events& events, std::uint64_t& max_ram) {
  const engine::Ops ops = ops_table();
  const stage::Job job = read_job(path, ops);
  max_ram = job.max_ram;
  const int threads = job.threads > 0 ? job.threads : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  at::set_num_threads(threads);
  set_threads(threads);
  const c10::Device device = engine::open_device(job.device);
  const engine::Kernels kernels = engine::choose_kernels(job.gemm);
  limit_memory(job.max_ram);
  events.emit({{"event", "started"}, {"torch", engine::running_torch()}, {"gemm", engine::to_json(kernels)}, {"device", device.str()}, {"threads", threads}});
  engine::OpContext context(job, events, device);
  return ops.at(job.op).run(context);
}

Error out_of_memory(std::uint64_t max_ram, const std::string& detail) {
  const std::string limit = max_ram > 0 ? "the limit of " + format_bytes(max_ram) : "memory";
  return Error(ErrorKind::Resource, "the computation must fit " + limit + ", but does not: " + detail,
               "shorter or fewer windows, a smaller batch, a larger --max-ram");
}

// Any failure as the one error type.
Error as_error(std::exception_ptr failure, std::uint64_t max_ram) {
  try {
    std::rethrow_exception(failure);
  } catch (const Error& e) {
    return e;
  } catch (const std::bad_alloc&) {
    return out_of_memory(max_ram, "an allocation failed");
  } catch (const c10::Error& e) {
    const std::string what = e.what_without_backtrace();
    const bool memory = what.find("not enough memory") != std::string::npos || what.find("out of memory") != std::string::npos;
    return memory ? out_of_memory(max_ram, what) : Error(ErrorKind::Internal, "LibTorch refused an operation: " + what);
  } catch (const std::exception& e) {
    return Error(ErrorKind::Internal, e.what());
  } catch (...) {
    return Error(ErrorKind::Internal, "something was thrown that is no exception");
  }
}

int main_of(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: slmc-engine JOB.json      run by slmc; see lib/stage/job.h\n", stderr);
    return exit_code(ErrorKind::Usage);
  }
  if (const char* n = std::getenv("SLMC_TEST_FAIL_WRITE")) testing::fail_nth_write(std::strtoull(n, nullptr, 10));
  install_handlers();
  LineEvents events;
  MemoryWatch memory;
  std::uint64_t max_ram = 0;
  try {
    Json result = run(argv[1], events, max_ram);
    result["event"] = "result";
    result["peak_bytes"] = memory.peak();
    events.emit(result);
    return 0;
  } catch (...) {
    const Error error = as_error(std::current_exception(), max_ram);
    events.emit(stage::error_event(error));
    return error.kind() == ErrorKind::Interrupted && cancel_requested() ? 128 + cancel_requested() : exit_code(error.kind());
  }
}

}  // namespace
}  // namespace slmc

int main(int argc, char** argv) {
  slmc::engine::keep_pages();                  // before anything large is allocated
  return slmc::main_of(argc, argv);
}
