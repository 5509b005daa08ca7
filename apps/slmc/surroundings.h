#pragma once
// What the environment and the place of the program say, read once by main: nothing else in slmc looks at either.
//   SLMC_CACHE    folder for statistics               default $XDG_CACHE_HOME/slmc or ~/.cache/slmc
//   SLMC_DEVICE   default of --device                 SLMC_THREADS   default of --threads
//   HF_HOME       local cache for hf:org/name         default ~/.cache/huggingface
//   SLMC_ENGINE_PROGRAM   the engine to start, for tests; else slmc-engine beside slmc, then ../libexec/slmc-engine
#include <filesystem>
#include <string>
#include <vector>

namespace slmc::cli {

struct Surroundings {
  std::filesystem::path folder;       // current folder
  std::filesystem::path cache;
  std::filesystem::path hf_cache;     // HF_HOME/hub, or empty when there is no home
  std::filesystem::path templates;    // share/slmc/arch of the installation; empty = those compiled in
  std::filesystem::path engine;       // empty = not found
  std::vector<std::string> engine_tried;   // where it was looked for
  std::string device = "cpu";
  int threads = 0;                    // 0 = all cores
};

Surroundings look_around();

}  // namespace slmc::cli
