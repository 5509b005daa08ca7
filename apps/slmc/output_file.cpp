#include "apps/slmc/output_file.h"

#include <fmt/format.h>

#include "core/error.h"
#include "core/file.h"

namespace slmc::cli {

namespace fs = std::filesystem;

std::string container_of(const fs::path& output) { return output.extension() == ".gguf" ? "gguf" : "hf"; }

void require_free(const fs::path& output, bool replace) {
  std::error_code code;
  const bool empty_folder = fs::is_directory(output, code) && fs::is_empty(output, code);
  if (replace || !fs::exists(output, code) || empty_folder) return;
  throw Error(ErrorKind::Usage, fmt::format("the output {} must not exist, but does", output.string()), "-f replaces it");
}

void write_whole(const fs::path& output, bool replace, const std::function<void(const fs::path&)>& write) {
  require_free(output, replace);
  std::error_code code;
  if (container_of(output) == "gguf" || !fs::exists(output, code)) return write(output);
  AtomicFolder folder(output, true);                    // swaps the old one out when the new one is whole
  write(folder.path());
  folder.commit();
}

}  // namespace slmc::cli
