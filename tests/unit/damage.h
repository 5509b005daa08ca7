#pragma once
// Damage by loops: every truncation and every changed byte of one small good file must give success or one
// honest Error, never another exception, a crash or an allocation that the file's size doesn't justify.
#include <gtest/gtest.h>

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/error.h"

namespace slmc {

// While it lives, any single allocation above `bytes` fails the test with std::bad_alloc.
// (allocation_limit.cpp)
class AllocationLimit {
 public:
  explicit AllocationLimit(std::size_t bytes);
  ~AllocationLimit();
};

using Bytes = std::vector<std::byte>;

// Runs `read` on damaged bytes; any Error must be of kind Model or Unsupported (`kind` replaces Model) and
// say something.
inline bool survives(const Bytes& bytes, const std::function<void(std::span<const std::byte>)>& read,
                     ErrorKind kind = ErrorKind::Model) {
  const AllocationLimit limit(16u << 20);
  try {
    read(bytes);
  } catch (const Error& error) {
    EXPECT_TRUE(error.kind() == kind || error.kind() == ErrorKind::Unsupported) << error.text();
    EXPECT_FALSE(error.message().empty());
    return false;
  }
  return true;
}

inline void damage_everywhere(const Bytes& good, const std::function<void(std::span<const std::byte>)>& read,
                              ErrorKind kind = ErrorKind::Model) {
  ASSERT_TRUE(survives(good, read, kind));
  for (std::size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(survives(Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size)), read, kind))
        << "cut to " << size;
  }
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (unsigned flip : {0x01u, 0x80u, 0xffu}) {
      Bytes bad = good;
      bad[at] ^= static_cast<std::byte>(flip);
      survives(bad, read, kind);
    }
  }
}

}  // namespace slmc
