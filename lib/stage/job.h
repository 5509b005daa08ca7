#pragma once
// What the front program hands to slmc-engine, and what comes back. One job is one process.
//
//   slmc-engine JOB.json        reads the job, writes events as JSON lines to standard output
//
// Job:    {"slmc_job": 1, "op": "prune", "model": "...", "out": "FOLDER", "settings": {...},
//          "models": {"teacher": "..."}, "data": {"calib": {...}, "train": {...}}, "seed": 0,
//          "device": "cpu", "threads": 2, "max_ram": 0, "gemm": "auto", "cache": "FOLDER", "resume": "FOLDER",
//          "templates": "FOLDER"}
// Events: {"event": "started", "torch": "2.13.0", "gemm": {...}}   first
//         {"event": "progress", "what": "...", "done": 3, "of": 30, ...}
//                                                         any number; extra numbers are metrics
//         {"event": "note" | "warning", "text": "..."}
//         {"event": "result", ...}                        last on success; its fields are the op's document
//         {"event": "error", "kind": "...", "diagnostics": [...], "trail": [...]}   last on failure
// Exit code: exit_code(kind), 0 on success, 130/143 after an interrupt.
//
// A stage op writes its complete model folder (or file) to `out`, which does not exist before; the runner
// owns temporaries, renames, manifests, lineage. `resume` is a folder that survives kills: training
// checkpoints go there.
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/json.h"
#include "stage/settings.h"

namespace slmc::stage {

struct Job {
  std::string op;  // a stage's name, or eval, bench, generate, chat, compare, doctor
  std::string model;
  std::string out;
  Settings settings;
  // By setting name: teacher, reference; resolved to paths
  std::map<std::string, std::string> models;
  SharedJson data;  // {"calib": DataSpec, "train": DataSpec} with absolute paths
  std::uint64_t seed = 0;
  std::string device = "cpu";  // cpu, cuda, cuda:N
  int threads = 0;             // 0 = all cores
  std::uint64_t max_ram = 0;   // bytes; 0 = no limit
  std::string gemm = "auto";   // auto, mkl, onednn
  std::string cache;           // folder for statistics
  std::string resume;          // folder for checkpoints
  std::string templates;                             // folder of more model templates; empty for none
};

Json to_json(const Job& job);
// `table` is the op's settings table. Error(Internal) on a malformed job: only the front program writes them.
Job job_from_json(const Json& json, const std::vector<Setting>& table);

// Where an op reports to. Implemented by the engine's main (JSON lines) and by tests (a vector).
class Events {
 public:
  virtual ~Events() = default;
  virtual void emit(const Json& event) = 0;
  void note(const std::string& text);
  void warning(const std::string& text);
  void progress(const std::string& what, std::int64_t done, std::int64_t of);
};

Json error_event(const Error& error);
Error error_from_event(const Json& event);

}  // namespace slmc::stage
