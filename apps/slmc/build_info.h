#pragma once
// What this program was built from and with.
#include <string>

namespace slmc::cli {

struct BuildInfo {
  std::string version;        // "0.1.0"
  std::string revision;       // git's short hash, "-dirty" behind it when files were changed; "unknown" outside a clone
  std::string compiler;       // "GCC 12.2.0"
  std::string build_type;     // "Release"
  std::string torch;          // "2.13.0"; empty when built without the engine
};
BuildInfo build_info();

}  // namespace slmc::cli
