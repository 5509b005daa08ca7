// lib/core/file.h: outputs appear whole or not at all, whichever write, flush or rename fails, and killed
// runs leave nothing that the next one doesn't clean.
#include "core/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "core/hash.h"
#include "core/json.h"
#include "tests/unit/error_text.h"
#include "tests/unit/test_folder.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;

using FileTest = FolderTest;

TEST_F(FileTest, MapsWholeFiles) {
  write_text(folder_ / "a", "hello");
  write_text(folder_ / "empty", "");
  const MappedFile file = MappedFile::open(folder_ / "a");
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()), "hello");
  file.forget(file.bytes());
  EXPECT_EQ(static_cast<char>(file.bytes()[4]), 'o');
  EXPECT_EQ(file.path(), (folder_ / "a").string());
  EXPECT_TRUE(MappedFile::open(folder_ / "empty").bytes().empty());
  EXPECT_TRUE(MappedFile().bytes().empty());
}

TEST_F(FileTest, MissingFilesSuggestTheirNeighbour) {
  write_text(folder_ / "model.gguf", "x");
  const std::string name = (folder_ / "modle.gguf").string();
  EXPECT_EQ(
      error_text([&] { MappedFile::open(name); }),
      name +
          ": error: the file must be readable, but is not: No such file or directory\nhint: did you mean '" +
          (folder_ / "model.gguf").string() + "'?");
  EXPECT_EQ(error_text([&] { MappedFile::open(folder_); }),
            folder_.string() + ": error: the path must be a regular file, but is a folder");
  ::mkfifo((folder_ / "pipe").c_str(), 0600);
  EXPECT_EQ(error_text([&] { read_text(folder_ / "pipe"); }),
            (folder_ / "pipe").string() + ": error: the path must be a regular file, but is something else");
}

TEST_F(FileTest, ReadsTextUpToALimit) {
  write_text(folder_ / "a", "hello");
  EXPECT_EQ(read_text(folder_ / "a", 5), "hello");
  EXPECT_EQ(error_text([&] { read_text(folder_ / "a", 4); }),
            (folder_ / "a").string() + ": error: the file must have at most 4 bytes, but has 5");
  EXPECT_EQ(sha256_file(folder_ / "a"), sha256("hello"));
  EXPECT_EQ(error_text([&] { sha256_file(folder_ / "none"); }),
            (folder_ / "none").string() +
                ": error: the file must be readable, but is not: No such file or directory");
}

TEST_F(FileTest, AbandonedOutputLeavesNothing) {
  write_text(folder_ / "a", "old");
  {
    AtomicFile file(folder_ / "a");
    file.write("new");
    EXPECT_EQ(names().size(), 2u);
  }
  EXPECT_EQ(names(), Names{"a"});
  EXPECT_EQ(read_text(folder_ / "a"), "old");
}

TEST_F(FileTest, WritesAtPlaces) {
  AtomicFile file(folder_ / "new" / "folder" / "a");
  file.write("hello world");
  file.write_at(0, std::as_bytes(std::span("J", 1)));
  EXPECT_EQ(file.written(), 11u);
  file.commit();
  EXPECT_EQ(read_text(folder_ / "new" / "folder" / "a"), "Jello world");
}

TEST_F(FileTest, EveryFailingWriteLeavesTheOldFile) {
  write_text(folder_ / "a", "old");
  std::uint64_t n = 1;
  for (bool failed = true; failed; ++n) {
    testing::fail_nth_write(n);
    failed = false;
    try {
      AtomicFile file(folder_ / "a");
      file.write("new ");
      file.write("text");
      file.commit();
    } catch (const Error& error) {
      failed = true;
      EXPECT_EQ(error.kind(), ErrorKind::Resource);
      EXPECT_EQ(read_text(folder_ / "a"), "old");
    }
    EXPECT_EQ(names(), Names{"a"});
  }
  EXPECT_EQ(n, 7u);  // create, two writes, flush, rename: five failed, the sixth run went through
  EXPECT_EQ(read_text(folder_ / "a"), "new text");
}

TEST_F(FileTest, FullDiskIsASentence) {
  testing::fail_nth_write(2);
  EXPECT_EQ(
      error_text([&] { write_text(folder_ / "a", "hello"); }),
      (folder_ / "a").string() +
          ": error: the file must be writable, but 5 bytes could not be written: No space left on device\n"
          "hint: free some disk space, or choose another place for the output");
}

TEST_F(FileTest, FoldersAppearWhole) {
  for (bool replace : {false, true}) {
    AtomicFolder folder(folder_ / "out/", replace);
    write_text(folder.path() / "sub" / "f", replace ? "second" : "first");
    folder.commit();
    EXPECT_EQ(names(), Names{"out"});
    EXPECT_EQ(read_text(folder_ / "out" / "sub" / "f"), replace ? "second" : "first");
  }
  EXPECT_EQ(error_text([&] { AtomicFolder(folder_ / "out", false); }),
            (folder_ / "out").string() +
                ": error: the output folder must be new or empty, but holds files\n"
                "hint: choose another name, or allow it to be replaced");
  write_text(folder_ / "file", "x");
  EXPECT_EQ(error_text([&] { AtomicFolder(folder_ / "file", true); }),
            (folder_ / "file").string() + ": error: the output must be a folder, but is a file");
  EXPECT_EQ(error_text([&] { AtomicFile(folder_ / "out"); }),
            (folder_ / "out").string() + ": error: the output must be a file name, but is a folder");
}

TEST_F(FileTest, EveryFailingWriteLeavesTheOldFolder) {
  write_text(folder_ / "out" / "f", "old");
  std::uint64_t n = 1;
  for (bool failed = true; failed; ++n) {
    testing::fail_nth_write(n);
    failed = false;
    try {
      AtomicFolder folder(folder_ / "out", true);
      write_text(folder.path() / "f", "new");
      folder.commit();
    } catch (const Error& error) {
      failed = true;
      EXPECT_EQ(error.kind(), ErrorKind::Resource);
      EXPECT_EQ(read_text(folder_ / "out" / "f"), "old");
    }
    EXPECT_EQ(names(), Names{"out"});
  }
  EXPECT_GT(n, 6u);
  EXPECT_EQ(read_text(folder_ / "out" / "f"), "new");
}

// A process that dies without unwinding leaves its temporary; the next writer of the same target removes it,
// but never one that is in use.
TEST_F(FileTest, LeftoversOfKilledRunsAreRemoved) {
  AtomicFile in_use(folder_ / "a");
  const pid_t child = ::fork();
  if (child == 0) {
    AtomicFile file(folder_ / "a");
    AtomicFolder folder(folder_ / "d", false);
    write_text(folder.path() / "f", "x");
    ::_exit(0);
  }
  ::waitpid(child, nullptr, 0);
  EXPECT_EQ(names().size(), 3u);
  write_text(folder_ / "a", "done");
  EXPECT_EQ(names().size(), 3u);  // in_use, the dead folder, a
  AtomicFolder(folder_ / "d", false).commit();
  EXPECT_EQ(names().size(), 3u);  // in_use, d, a
  in_use.write("later");
  in_use.commit();
  EXPECT_EQ(names(), (Names{"a", "d"}));
  EXPECT_EQ(read_text(folder_ / "a"), "later");
}

TEST_F(FileTest, WritersOfOneTargetAtOnceAllSucceed) {
  std::vector<pid_t> children;
  for (int c = 0; c < 3; ++c) {
    children.push_back(::fork());
    if (children.back() != 0) continue;
    try {
      for (int turn = 0; turn < 300; ++turn) {
        AtomicFile file(folder_ / "a");
        file.write("whole");
        if (turn % 30 == 0) file.commit();
        AtomicFolder folder(folder_ / "d", true);
      }
    } catch (const Error& error) {
      ::fprintf(stderr, "%s\n", error.text().c_str());
      ::_exit(1);
    }
    ::_exit(0);
  }
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(names(), Names{"a"});
  EXPECT_EQ(read_text(folder_ / "a"), "whole");
}

TEST_F(FileTest, LockNamesItsHolder) {
  const FolderLock lock(folder_);
  EXPECT_EQ(error_text([&] { FolderLock second(folder_); }),
            folder_.string() + ": error: the folder must be free, but process " + std::to_string(::getpid()) +
                " is using it\nhint: wait for it to end, or stop it");
}

TEST_F(FileTest, LockEndsWithItsScope) {
  { const FolderLock lock(folder_); }
  const FolderLock again(folder_);
}

TEST_F(FileTest, FreeBytesOfPathsToCome) { EXPECT_GT(free_bytes(folder_ / "not" / "there" / "yet"), 0u); }

TEST_F(FileTest, JsonFiles) {
  write_json(folder_ / "a.json", parse_json(R"({"b": [1], "a": 2})", "x", ErrorKind::Data));
  EXPECT_EQ(read_text(folder_ / "a.json"), "{\n  \"b\": [\n    1\n  ],\n  \"a\": 2\n}\n");
  EXPECT_EQ(read_json(folder_ / "a.json", ErrorKind::Model).size(), 2u);
  try {
    read_json(folder_ / "none.json", ErrorKind::Recipe);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::Recipe);
  }
}

}  // namespace
}  // namespace slmc
