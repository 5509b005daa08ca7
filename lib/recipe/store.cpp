#include "recipe/store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/error.h"
#include "core/file.h"
#include "core/hash.h"
#include "recipe/lineage.h"
#include "recipe/run.h"

namespace slmc::recipe {
namespace fs = std::filesystem;

namespace {

bool exchange_denied = false;
constexpr const char* kManifest = "manifest.json";

// Also one that another run is writing now, or left when it was killed: the model is whole without it.
bool is_lineage(const fs::path& path) {
  const std::string name = path.filename().string();
  return name == "lineage.json" || name.ends_with(".lineage.json") || name.starts_with(temporary_prefix("lineage.json"));
}

// Files of a model, sorted: itself, or what its folder holds.
std::vector<fs::path> files_of(const fs::path& model) {
  std::vector<fs::path> out;
  if (!fs::is_directory(model)) return {model};
  for (const auto& entry : fs::recursive_directory_iterator(model)) {
    if (entry.is_regular_file() && !is_lineage(entry.path())) out.push_back(entry.path());
  }
  std::sort(out.begin(), out.end());
  return out;
}

[[noreturn]] void fail(const fs::path& path, const std::string& must, int code) {
  throw Error(ErrorKind::Resource, Place{path.string(), 0, 0, 1, {}},
              fmt::format("{}, but is not: {}", must, std::strerror(code)));
}

void flush_folder(const fs::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

bool same_file(const fs::path& path, const Json& wanted, bool thorough) {
  std::error_code code;
  const std::uintmax_t size = fs::file_size(path, code);
  if (code || !wanted.is_object() || size != wanted.value("bytes", std::uintmax_t{0})) return false;
  return !thorough || sha256_file(path) == wanted.value("sha256", "");
}

constexpr const char* kRenamed = "the finished stage must be renamed into place";

// 0, or why the two names could not be exchanged.
int exchange(const fs::path& a, const fs::path& b) {
  if (testing::write_must_fail()) return ENOSPC;
  if (exchange_denied) return EINVAL;
  return ::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0 ? 0 : errno;
}

// What network and old file systems say that only know plain renames.
bool cannot_exchange(int code) { return code == EINVAL || code == ENOSYS || code == EOPNOTSUPP; }

void rename_one(const fs::path& from, const fs::path& to, const fs::path& finished) {
  const int code = testing::write_must_fail() ? ENOSPC : ::rename(from.c_str(), to.c_str()) != 0 ? errno : 0;
  if (code != 0) fail(finished, kRenamed, code);
}

fs::path aside_of(const fs::path& finished) { return partial_folder(finished).string() + ".old"; }

// The old one goes aside, and back when the new one can't take its name. A kill between leaves both whole: take_back.
void replace_in_steps(const fs::path& partial, const fs::path& finished) {
  const fs::path aside = aside_of(finished);
  std::error_code ignored;
  fs::remove_all(aside, ignored);
  rename_one(finished, aside, finished);
  try {
    rename_one(partial, finished, finished);
  } catch (const Error&) {
    fs::rename(aside, finished, ignored);
    throw;
  }
  fs::remove_all(aside, ignored);
}

void copy_one(const fs::path& from, const fs::path& to) {
  const MappedFile file = MappedFile::open(from);
  AtomicFile out(to);
  constexpr std::size_t kPiece = 8 << 20;
  for (std::span<const std::byte> left = file.bytes(); !left.empty();) {
    const auto piece = left.first(std::min(kPiece, left.size()));
    out.write(piece);
    file.forget(piece);
    left = left.subspan(piece.size());
  }
  out.commit();
}

}  // namespace

fs::path stage_folder(const fs::path& work, std::size_t number, const std::string& id,
                      const std::string& key) {
  return work / fmt::format("{:02}-{}-{}", number, id, key.substr(0, 8));
}

fs::path partial_folder(const fs::path& finished) {
  return finished.parent_path() / ("." + finished.filename().string());
}

fs::path lock_folder(const fs::path& finished) {
  const fs::path folder = finished.parent_path() / ".locks" / finished.filename();
  fs::create_directories(folder);
  return folder;
}

std::string artefact_name(const std::string& container) {
  return container == "gguf" ? "model.gguf" : "model";
}

std::optional<Json> read_manifest(const fs::path& folder, const std::string& key) {
  if (!fs::is_regular_file(folder / kManifest)) return std::nullopt;
  try {
    Json manifest = read_json(folder / kManifest, ErrorKind::Model);
    if (!manifest.is_object() || manifest.value("slmc_manifest", 0) != kManifestVersion ||
        manifest.value("key", "") != key)
      return std::nullopt;
    if (manifest.value("check", "") != manifest_check(manifest)) return std::nullopt;
    if (!manifest.value("files", Json()).is_object() || !manifest.value("artefact", Json()).is_string())
      return std::nullopt;
    return manifest;
  } catch (const Error&) {  // damaged: as good as none, the stage is made again
  } catch (const Json::exception&) {
  }
  return std::nullopt;
}

std::string manifest_check(const Json& manifest) {
  Json rest = manifest;
  rest.erase("check");
  return sha256(dump_compact(rest));
}

Json describe_files(const fs::path& folder, const std::string& artefact) {
  Json out = Json::object();
  for (const fs::path& file : files_of(folder / artefact)) {
    out[file.lexically_relative(folder).string()] = {{"bytes", fs::file_size(file)},
                                                     {"sha256", sha256_file(file)}};
  }
  return out;
}

bool artefact_is_whole(const fs::path& folder, const Json& manifest, bool thorough) {
  try {
    const Json& files = manifest["files"];
    const fs::path artefact = folder / manifest["artefact"].get<std::string>();
    if (files.empty() || !fs::exists(artefact) || files_of(artefact).size() != files.size()) return false;
    return std::all_of(files.items().begin(), files.items().end(), [&](const auto& file) {
      return same_file(folder / file.key(), file.value(), thorough);
    });
  } catch (const Error&) {
  } catch (const Json::exception&) {
  } catch (const fs::filesystem_error&) {
  }
  return false;
}

void sweep(const fs::path& work, std::size_t number, const std::string& id, const std::string& key) {
  const std::string prefix = fmt::format(".{:02}-{}-", number, id);
  const std::string own = prefix + key.substr(0, 8);
  std::error_code ignored;
  std::vector<fs::path> found;
  for (fs::directory_iterator it(work, ignored), end; !ignored && it != end; it.increment(ignored)) {
    const std::string name = it->path().filename().string();
    const bool of_this_stage = name.starts_with(prefix) && name.size() >= prefix.size() + 8 &&
                               name.find('-', prefix.size()) == std::string::npos;
    if (of_this_stage && !name.starts_with(own) && it->is_directory(ignored)) found.push_back(it->path());
  }
  for (const fs::path& path : found) {
    const std::string finished = path.filename().string().substr(1, prefix.size() + 7);
    try {
      const FolderLock lock(lock_folder(work / finished));  // someone may be making it
      fs::remove_all(path, ignored);
    } catch (const Error&) {
    }
  }
}

void sweep_partial(const fs::path& partial) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(partial)) {
    const std::string name = entry.path().filename().string();
    if (name != "resume") found.push_back(entry.path());
  }
  for (const fs::path& path : found) fs::remove_all(path);
}

std::optional<Json> find_whole(const fs::path& folder, const std::string& key) {
  std::optional<Json> manifest = read_manifest(folder, key);
  if (manifest && !artefact_is_whole(folder, *manifest, true)) manifest.reset();
  return manifest;
}

bool holds_progress(const fs::path& work) {
  std::error_code ignored;
  for (fs::directory_iterator it(work, ignored), end; !ignored && it != end; it.increment(ignored)) {
    std::error_code absent;
    const fs::path resume = it->path() / "resume";
    if (fs::exists(it->path() / kManifest, absent) || (fs::is_directory(resume, absent) && !fs::is_empty(resume, absent))) return true;
  }
  return false;
}

void take_back(const fs::path& finished) {
  const fs::path aside = aside_of(finished);
  if (!fs::exists(finished) && fs::exists(aside)) fs::rename(aside, finished);
}

void publish(const fs::path& partial, const fs::path& finished) {
  flush_folder(partial);
  std::error_code ignored;
  if (!fs::exists(finished)) {
    rename_one(partial, finished, finished);
  } else if (const int code = exchange(partial, finished); code == 0) {
    fs::remove_all(partial, ignored);  // now the old one
  } else if (cannot_exchange(code)) {
    replace_in_steps(partial, finished);
  } else {
    fail(finished, kRenamed, code);
  }
  flush_folder(finished.parent_path());
}

void deliver(const fs::path& model, const fs::path& target, bool replace) {
  if (fs::is_directory(model)) {
    AtomicFolder out(target, replace);
    for (const auto& entry : fs::recursive_directory_iterator(model)) {
      if (entry.is_regular_file())
        copy_one(entry.path(), out.path() / entry.path().lexically_relative(model));
    }
    out.commit();
    return;
  }
  if (fs::exists(target) && !replace) {
    throw Error(ErrorKind::Usage, Place{target.string(), 0, 0, 1, {}},
                "the output must be new, but is there already", "choose another name, or replace it with -f");
  }
  copy_one(model, target);
  if (fs::exists(lineage_path(model))) copy_one(lineage_path(model), target.string() + ".lineage.json");
}

void deny_exchange(bool denied) { exchange_denied = denied; }

}  // namespace slmc::recipe
