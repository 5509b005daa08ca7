// Replaces the global allocation functions of a test binary, so that one huge allocation is an error instead
// of luck.
#include <cstdlib>
#include <limits>
#include <new>

#include "tests/unit/damage.h"

namespace {
thread_local std::size_t most = std::numeric_limits<std::size_t>::max();
}

namespace slmc {
AllocationLimit::AllocationLimit(std::size_t bytes) { most = bytes; }
AllocationLimit::~AllocationLimit() { most = std::numeric_limits<std::size_t>::max(); }
}  // namespace slmc

void* operator new(std::size_t bytes) {
  void* p = bytes > most ? nullptr : std::malloc(bytes ? bytes : 1);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
void* operator new[](std::size_t bytes) { return operator new(bytes); }
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return bytes > most ? nullptr : std::malloc(bytes ? bytes : 1);
}
void* operator new[](std::size_t bytes, const std::nothrow_t& n) noexcept { return operator new(bytes, n); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
