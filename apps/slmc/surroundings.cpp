#include "apps/slmc/surroundings.h"

#include <unistd.h>

#include <cstdlib>
#include <system_error>

#include "core/error.h"
#include "core/units.h"

namespace slmc::cli {
namespace {

namespace fs = std::filesystem;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

fs::path program_folder() {
  std::error_code code;
  const fs::path self = fs::read_symlink("/proc/self/exe", code);
  return code ? fs::path() : self.parent_path();
}

// The folder that `name` gives, else `fallback` below $XDG_CACHE_HOME or ~/.cache; empty without a home.
fs::path cache_folder(const char* name, const char* fallback) {
  if (const std::string given = variable(name); !given.empty()) return given;
  if (const std::string xdg = variable("XDG_CACHE_HOME"); !xdg.empty()) return fs::path(xdg) / fallback;
  const std::string home = variable("HOME");
  return home.empty() ? fs::path() : fs::path(home) / ".cache" / fallback;
}

int threads_wanted() {
  const std::string text = variable("SLMC_THREADS");
  if (text.empty()) return 0;
  const auto n = parse_count(text);
  if (!n || *n > 4096) {
    throw Error(ErrorKind::Usage, "the environment variable SLMC_THREADS must be a whole number from 0 to 4096, but is '" + text + "'");
  }
  return static_cast<int>(*n);
}

void find_engine(Surroundings& out) {
  if (const std::string given = variable("SLMC_ENGINE_PROGRAM"); !given.empty()) {
    out.engine_tried = {given};
  } else {
    const fs::path here = program_folder();
    out.engine_tried = {(here / "slmc-engine").string(), (here.parent_path() / "libexec" / "slmc-engine").string()};
  }
  for (const std::string& path : out.engine_tried) {
    if (access(path.c_str(), X_OK) == 0) {
      out.engine = path;
      return;
    }
  }
}

}  // namespace

Surroundings look_around() {
  Surroundings out;
  std::error_code code;
  out.folder = fs::current_path(code);
  out.cache = cache_folder("SLMC_CACHE", "slmc");
  const fs::path hf = cache_folder("HF_HOME", "huggingface");
  if (!hf.empty()) out.hf_cache = hf / "hub";
  const fs::path arch = program_folder().parent_path() / "share" / "slmc" / "arch";
  if (fs::is_directory(arch, code)) out.templates = arch;
  if (const std::string device = variable("SLMC_DEVICE"); !device.empty()) out.device = device;
  out.threads = threads_wanted();
  find_engine(out);
  return out;
}

}  // namespace slmc::cli
