#include "apps/slmc/output_file.h"

#include <fmt/format.h>

#include "core/error.h"
#include "core/file.h"

namespace slmc::cli {

namespace fs = std::filesystem;

std::string container_of(const fs::path& output) { return output.extension() == ".gguf" ? "gguf" : "hf"; }

namespace {

bool is_model_folder(const fs::path& folder) {
  std::error_code code;
  if (!fs::is_regular_file(folder / "config.json", code)) return false;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, code)) {
    if (!entry.is_regular_file(code)) return false;
  }
  return true;
}

}  // namespace

void require_free(const fs::path& output, bool replace) {
  std::error_code code;
  const bool folder = fs::is_directory(output, code);
  if (!fs::exists(output, code) || (folder && fs::is_empty(output, code))) return;
  if (replace && folder && !is_model_folder(output)) {
    throw Error(ErrorKind::Usage, fmt::format("the output {} must be a model to be replaced, but holds other things", output.string()),
                "choose another name");
  }
  if (replace) return;
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
