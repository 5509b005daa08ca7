#pragma once
// Files: read-only maps, and outputs that appear whole or not at all.
//
// Every output goes to a hidden temporary sibling, is flushed to disk, then renamed; a crash at any point leaves the old
// state, and what a killed process left behind is removed by the next one that writes the same target. All writes,
// flushes and renames of slmc pass through one seam where tests make the n-th of them fail.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace slmc {

// A read-only map of a whole file; cheap to copy, the last copy unmaps. An empty file maps to an empty span.
class MappedFile {
 public:
  MappedFile() = default;
  // Error(Model) when the file is missing or unreadable, with the nearest existing sibling name as a hint.
  static MappedFile open(const std::filesystem::path& path);
  std::span<const std::byte> bytes() const;
  const std::string& path() const;
  // Tells the kernel that these bytes are not needed again soon, so that streaming a model does not fill the memory.
  void forget(std::span<const std::byte> part) const;

 private:
  struct Map;
  std::shared_ptr<const Map> map_;
};

// Whole text of a file; Error(Data) when missing, or larger than `most` bytes.
std::string read_text(const std::filesystem::path& path, std::uint64_t most = 1ull << 32);

// One output file. Not committed (no call to commit, or an exception): the temporary is removed, nothing else changed.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path target);      // creates ".NAME.tmp-PID-N" beside it; Error(Resource)
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  void write(std::span<const std::byte> bytes);           // append; Error(Resource) names the file and the bytes wanted
  void write(std::string_view text);
  void write_at(std::uint64_t offset, std::span<const std::byte> bytes);
  std::uint64_t written() const { return written_; }
  const std::filesystem::path& path() const { return temporary_; }   // for libraries that open the file by name (HDF5)
  void commit();                                          // flush, rename over the target, flush the folder

 private:
  std::filesystem::path target_, temporary_;
  int fd_ = -1;                                           // holds a lock: who finds the temporary unlocked may remove it
  std::uint64_t written_ = 0;
};

// One output folder: work in path(), then commit() renames it to the target.
// Refuses (Error(Usage)) a target that exists and is not empty, unless `replace`; then the old one is swapped out last.
class AtomicFolder {
 public:
  AtomicFolder(std::filesystem::path target, bool replace);
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;
  const std::filesystem::path& path() const { return temporary_; }
  void commit();

 private:
  std::filesystem::path target_, temporary_;
  bool replace_;
  int fd_ = -1;                                           // as in AtomicFile
};

void write_text(const std::filesystem::path& path, std::string_view text);   // an AtomicFile with one write

// How the names of temporaries of an AtomicFile or AtomicFolder begin whose target has this file name: ".NAME.tmp-".
std::string temporary_prefix(std::string_view name);

// Advisory lock on a folder (flock on FOLDER/.lock). Error(Resource) naming the holder's pid when another process has it.
class FolderLock {
 public:
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int fd_ = -1;
};

std::uint64_t free_bytes(const std::filesystem::path& path);                 // on the volume of the nearest existing parent

namespace testing {
// Makes the n-th write, flush or rename from now on fail with ENOSPC (n >= 1); 0 disarms. Returns how many were seen since
// arming. The environment variable SLMC_TEST_FAIL_WRITE=n, read once by both programs' main, does the same from outside.
std::uint64_t fail_nth_write(std::uint64_t n);
// Kills the process (SIGKILL) instead of the n-th write from now on; 0 disarms. For forked children of tests.
void die_at_write(std::uint64_t n);
// Counts one write and says whether it is the one to fail: for writers that can't pass through AtomicFile (HDF5).
bool write_must_fail();
}  // namespace testing

}  // namespace slmc
