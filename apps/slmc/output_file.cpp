#include "apps/slmc/output_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "core/error.h"
#include "core/file.h"

namespace slmc::cli {

namespace fs = std::filesystem;

std::string container_of(const fs::path& output) { return output.extension() == ".gguf" ? "gguf" : "hf"; }

namespace {

// What stages put beside a model's files in folders of their own: plans of prune, masks of shear, adapters and classifiers of train.
constexpr std::array<std::string_view, 4> kBeside = {"plan", "masks", "adapter", "classify"};

bool holds_files_only(const fs::path& folder) {
  std::error_code code;
  return std::all_of(fs::directory_iterator(folder, code), fs::directory_iterator(), [&](const fs::directory_entry& entry) { return entry.is_regular_file(code); });
}

bool is_model_folder(const fs::path& folder) {
  std::error_code code;
  if (!fs::is_regular_file(folder / "config.json", code)) return false;
  return std::all_of(fs::directory_iterator(folder, code), fs::directory_iterator(), [&](const fs::directory_entry& entry) {
    const bool ours = std::find(kBeside.begin(), kBeside.end(), entry.path().filename().string()) != kBeside.end();
    return entry.is_regular_file(code) || (ours && entry.is_directory(code) && !entry.is_symlink(code) && holds_files_only(entry.path()));
  });
}

void refuse_device(const fs::path& output) {
  std::error_code code;
  if (!fs::exists(output, code) || fs::is_directory(output, code) || fs::is_regular_file(output, code)) return;
  throw Error(ErrorKind::Usage, fmt::format("the output {} must be a file or folder, but is a device, pipe or socket", output.string()));
}

}  // namespace

void require_file(const fs::path& input, ErrorKind kind) {
  std::error_code code;
  if (fs::is_regular_file(input, code)) return;
  const char* what = !fs::exists(input, code) ? "must exist, but does not"
                     : fs::is_directory(input, code) ? "must be a regular file, but is a folder" : "must be a regular file, but is a device, pipe or socket";
  throw Error(kind, fmt::format("the file {} {}", input.string(), what));
}

void require_free_file(const fs::path& output, bool replace) {
  refuse_device(output);
  std::error_code code;
  if (fs::is_directory(output, code)) throw Error(ErrorKind::Usage, fmt::format("the output {} must be a file, but is a folder", output.string()));
  if (!fs::exists(output, code) || replace) return;
  throw Error(ErrorKind::Usage, fmt::format("the output {} must not exist, but does", output.string()), "-f replaces it");
}

void require_free(const fs::path& output, bool replace) {
  refuse_device(output);
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
