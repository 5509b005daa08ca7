#include "core/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <system_error>
#include <utility>

#include "core/error.h"

namespace slmc {
namespace fs = std::filesystem;
namespace {

Place at(const fs::path& path) { return {path.string(), 0, 0, 1, {}}; }

[[noreturn]] void fail(ErrorKind kind, const fs::path& path, std::string_view must, int code,
                       std::string hint = {}) {
  throw Error(kind, at(path), fmt::format("{}, but is not: {}", must, std::strerror(code)), std::move(hint));
}

// The nearest name beside a missing file, as a hint: "did you mean 'model.gguf'?"
std::string sibling_hint(const fs::path& path) {
  std::error_code ignored;
  std::vector<std::string> names;
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  for (fs::directory_iterator it(folder, ignored), end; it != end; it.increment(ignored)) {
    names.push_back(it->path().filename().string());
    if (ignored) break;
  }
  const std::string name = closest(path.filename().string(), names);
  return name.empty() ? "" : fmt::format("did you mean '{}'?", (path.parent_path() / name).string());
}

// An open descriptor of a regular file and its size; the kind says whose fault a missing file is.
struct OpenFile {
  int fd = -1;
  std::uint64_t size = 0;
  OpenFile(const fs::path& path, ErrorKind kind) {
    fd = ::open(path.c_str(),
                O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // non-blocking: a named pipe must not hang us
    if (fd < 0) {
      const int code = errno;
      fail(kind, path, "the file must be readable", code, code == ENOENT ? sibling_hint(path) : "");
    }
    struct stat status {};
    if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
      ::close(fd);
      throw Error(kind, at(path),
                  fmt::format("the path must be a regular file, but is {}",
                              S_ISDIR(status.st_mode) ? "a folder" : "something else"));
    }
    size = static_cast<std::uint64_t>(status.st_size);
  }
  ~OpenFile() { ::close(fd); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
};

std::atomic<std::uint64_t> writes_seen{0}, write_to_fail{0}, write_to_die_at{0};

// The seam: every write, flush and rename of slmc asks here first.
int next_write_error() {
  const std::uint64_t n = ++writes_seen;
  if (n == write_to_die_at.load(std::memory_order_relaxed)) ::raise(SIGKILL);
  return n == write_to_fail.load(std::memory_order_relaxed) ? ENOSPC : 0;
}

constexpr std::uint64_t kAppend = ~0ull;

void write_all(int fd, std::uint64_t offset, std::span<const std::byte> bytes, const fs::path& target) {
  int code = next_write_error();
  while (code == 0 && !bytes.empty()) {
    const ssize_t n = offset == kAppend
                          ? ::write(fd, bytes.data(), bytes.size())
                          : ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      code = errno;
    } else {
      if (offset != kAppend) offset += static_cast<std::uint64_t>(n);
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
  }
  if (code != 0) {
    throw Error(ErrorKind::Resource, at(target),
                fmt::format("the file must be writable, but {} bytes could not be written: {}", bytes.size(),
                            std::strerror(code)),
                code == ENOSPC ? "free some disk space, or choose another place for the output" : "");
  }
}

void flush(int fd, const fs::path& target) {
  int code = next_write_error();
  if (code == 0 && ::fsync(fd) != 0 && errno != EINVAL) code = errno;  // EINVAL: a file system without fsync
  if (code != 0) fail(ErrorKind::Resource, target, "the output must be flushed to disk", code);
}

void flush_folder_of(const fs::path& target) {
  const fs::path folder = target.has_parent_path() ? target.parent_path() : fs::path(".");
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;  // a folder that can be written but not read: nothing more can be done
  ::fsync(fd);         // the rename has happened: a failure here must not report a missing output
  ::close(fd);
}

void rename_over(const fs::path& from, const fs::path& to) {
  int code = next_write_error();
  if (code == 0 && ::rename(from.c_str(), to.c_str()) != 0) code = errno;
  if (code != 0) fail(ErrorKind::Resource, to, "the finished output must be renamed into place", code);
}

fs::path without_trailing_slash(fs::path path) {
  return path.has_filename() || !path.has_parent_path() ? path : path.parent_path();
}

fs::path temporary_sibling(const fs::path& target) {
  static std::atomic<unsigned> counter{0};
  return target.parent_path() / fmt::format("{}{}-{}", temporary_prefix(target.filename().string()), ::getpid(), counter++);
}

// Opens and locks, without waiting; -1 when it is gone or someone else holds it.
int open_and_lock(const fs::path& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (fd < 0) return -1;
  struct stat status {};
  if (::flock(fd, LOCK_EX | LOCK_NB) == 0 && ::fstat(fd, &status) == 0 && status.st_nlink > 0) return fd;
  ::close(fd);
  errno = EAGAIN;
  return -1;
}

// A temporary may be taken for a dead one and removed by another writer of its target before it is locked: then another.
constexpr int kMostTries = 1000;

// Temporaries of the same target that no living process holds: a killed run left them.
void remove_stale(const fs::path& target) {
  std::error_code ignored;
  const fs::path folder = target.has_parent_path() ? target.parent_path() : fs::path(".");
  std::vector<fs::path> found;
  for (fs::directory_iterator it(folder, ignored), end; !ignored && it != end; it.increment(ignored)) {
    if (it->path().filename().string().starts_with(temporary_prefix(target.filename().string()))) found.push_back(it->path());
  }
  for (const fs::path& path : found) {
    const int fd = open_and_lock(path, O_RDONLY);
    if (fd < 0) continue;
    fs::remove_all(path, ignored);
    ::close(fd);
  }
}

void make_parent(const fs::path& target) {
  std::error_code code;
  if (target.has_parent_path()) fs::create_directories(target.parent_path(), code);
  if (code) fail(ErrorKind::Resource, target.parent_path(), "the folder must be creatable", code.value());
}

}  // namespace

// ---- reading ----

struct MappedFile::Map {
  std::string path;
  void* address = nullptr;
  std::size_t size = 0;
  Map(const fs::path& file) : path(file.string()) {
    const OpenFile opened(file, ErrorKind::Model);
    size = opened.size;
    if (size == 0) return;
    address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, opened.fd, 0);
    if (address == MAP_FAILED) fail(ErrorKind::Resource, file, "the file must be mapped into memory", errno);
  }
  ~Map() {
    if (size > 0) ::munmap(address, size);
  }
  Map(const Map&) = delete;
  Map& operator=(const Map&) = delete;
};

MappedFile MappedFile::open(const fs::path& path) {
  MappedFile file;
  file.map_ = std::make_shared<const Map>(path);
  return file;
}

std::span<const std::byte> MappedFile::bytes() const {
  if (!map_) return {};
  return {static_cast<const std::byte*>(map_->address), map_->size};
}

const std::string& MappedFile::path() const {
  static const std::string none;
  return map_ ? map_->path : none;
}

void MappedFile::forget(std::span<const std::byte> part) const {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin =
      (reinterpret_cast<std::uintptr_t>(part.data()) + page - 1) / page * page;  // whole pages inside
  const auto end = reinterpret_cast<std::uintptr_t>(part.data() + part.size()) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

std::string read_text(const fs::path& path, std::uint64_t most) {
  const OpenFile file(path, ErrorKind::Data);
  if (file.size > most) {
    throw Error(ErrorKind::Data, at(path),
                fmt::format("the file must have at most {} bytes, but has {}", most, file.size));
  }
  std::string text(file.size, '\0');
  std::size_t got = 0;
  while (got < text.size()) {
    const ssize_t n = ::read(file.fd, text.data() + got, text.size() - got);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(ErrorKind::Data, path, "the file must be readable", errno);
    if (n == 0) break;  // it shrank meanwhile
    got += static_cast<std::size_t>(n);
  }
  text.resize(got);
  return text;
}

// ---- one file ----

AtomicFile::AtomicFile(fs::path target) : target_(std::move(target)) {
  if (!target_.has_filename() || fs::is_directory(target_)) {
    throw Error(ErrorKind::Usage, at(target_), "the output must be a file name, but is a folder");
  }
  std::error_code ignored;
  if (fs::exists(target_, ignored) && !fs::is_regular_file(target_, ignored)) {      // renaming over a device would take it away
    throw Error(ErrorKind::Usage, at(target_), "the output must be a file, but is a device, pipe or socket");
  }
  make_parent(target_);
  remove_stale(target_);
  const int code = next_write_error();
  if (code != 0) fail(ErrorKind::Resource, target_, "the output must be creatable", code);
  for (int tries = 0; fd_ < 0 && tries < kMostTries; ++tries) {
    temporary_ = temporary_sibling(target_);
    fd_ = open_and_lock(temporary_, O_RDWR | O_CREAT | O_EXCL);
    if (fd_ < 0 && errno != EAGAIN) break;
  }
  if (fd_ < 0) fail(ErrorKind::Resource, target_, "the output must be creatable", errno);
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::unlink(temporary_.c_str());
  ::close(fd_);
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  write_all(fd_, kAppend, bytes, target_);
  written_ += bytes.size();
}

void AtomicFile::write(std::string_view text) { write(std::as_bytes(std::span(text))); }

void AtomicFile::write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
  write_all(fd_, offset, bytes, target_);
}

void AtomicFile::commit() {
  SLMC_CHECK(fd_ >= 0);
  flush(fd_, target_);
  rename_over(temporary_, target_);
  ::close(std::exchange(fd_, -1));
  flush_folder_of(target_);
}

void write_text(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

// ---- one folder ----

AtomicFolder::AtomicFolder(fs::path target, bool replace)
    : target_(without_trailing_slash(std::move(target))), replace_(replace) {
  std::error_code ignored;
  if (fs::exists(target_, ignored) && !fs::is_directory(target_, ignored)) {
    throw Error(ErrorKind::Usage, at(target_), "the output must be a folder, but is a file");
  }
  if (!replace && fs::is_directory(target_, ignored) && !fs::is_empty(target_, ignored)) {
    throw Error(ErrorKind::Usage, at(target_), "the output folder must be new or empty, but holds files",
                "choose another name, or allow it to be replaced");
  }
  make_parent(target_);
  remove_stale(target_);
  int code = next_write_error();
  for (int tries = 0; code == 0 && fd_ < 0 && tries < kMostTries; ++tries) {
    temporary_ = temporary_sibling(target_);
    if (::mkdir(temporary_.c_str(), 0777) != 0) code = errno;
    if (code == 0) fd_ = open_and_lock(temporary_, O_RDONLY | O_DIRECTORY);
  }
  if (code != 0) fail(ErrorKind::Resource, target_, "the output folder must be creatable", code);
  if (fd_ < 0) fail(ErrorKind::Resource, target_, "the output folder must be lockable", errno);
}

AtomicFolder::~AtomicFolder() {
  if (fd_ < 0) return;
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);
  ::close(fd_);
}

// An old folder is swapped with the new one in a single step, then removed under the temporary name.
void AtomicFolder::commit() {
  SLMC_CHECK(fd_ >= 0);
  flush(fd_, target_);
  std::error_code ignored;
  const bool swap = replace_ && fs::is_directory(target_, ignored) && !fs::is_empty(target_, ignored);
  int code = swap ? next_write_error() : 0;
  if (!swap) {
    rename_over(temporary_, target_);
  } else if (code == 0 &&
             ::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, target_.c_str(), RENAME_EXCHANGE) == 0) {
    fs::remove_all(temporary_, ignored);
  } else {
    fail(ErrorKind::Resource, target_, "the finished folder must be swapped with the old one",
         code ? code : errno);
  }
  ::close(std::exchange(fd_, -1));
  flush_folder_of(target_);
}

// ---- locks, space, tests ----

FolderLock::FolderLock(const fs::path& folder) {
  const fs::path path = folder / ".lock";
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd_ < 0) fail(ErrorKind::Resource, path, "the lock file must be creatable", errno);
  char text[32] = {};
  if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    const ssize_t n = ::pread(fd_, text, sizeof text - 1, 0);
    ::close(std::exchange(fd_, -1));
    throw Error(ErrorKind::Resource, at(folder),
                fmt::format("the folder must be free, but process {} is using it",
                            n > 0 ? std::string_view(text) : "unknown"),
                "wait for it to end, or stop it");
  }
  const std::string pid = std::to_string(::getpid());
  if (::ftruncate(fd_, 0) != 0 ||
      ::pwrite(fd_, pid.data(), pid.size(), 0) < 0) {  // the lock holds without the number
    return;
  }
}

FolderLock::~FolderLock() {
  if (fd_ >= 0) ::close(fd_);
}

std::string temporary_prefix(std::string_view name) { return fmt::format(".{}.tmp-", name); }

std::uint64_t free_bytes(const fs::path& path) {
  fs::path existing = fs::absolute(path);
  std::error_code ignored;
  while (!fs::exists(existing, ignored) && existing.has_relative_path()) existing = existing.parent_path();
  struct statvfs status {};
  if (::statvfs(existing.c_str(), &status) != 0)
    fail(ErrorKind::Resource, existing, "the free space must be known", errno);
  return static_cast<std::uint64_t>(status.f_bavail) * status.f_frsize;
}

namespace testing {

std::uint64_t fail_nth_write(std::uint64_t n) {
  write_to_fail = n;
  return writes_seen.exchange(0);
}

void die_at_write(std::uint64_t n) {
  write_to_die_at = n;
  writes_seen = 0;
}

bool write_must_fail() { return next_write_error() != 0; }

}  // namespace testing
}  // namespace slmc
