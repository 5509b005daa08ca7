#pragma once
// What every fuzz target shares: bytes as the parsers take them, and a property that must hold or the run
// ends.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>

#include "core/error.h"

namespace slmc::fuzz {

inline std::span<const std::byte> as_bytes(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const std::byte*>(data), size};
}

inline std::string_view as_text(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// Ends the process, which libFuzzer and ctest both report with the input.
inline void require(bool holds, const char* property) {
  if (holds) return;
  std::fprintf(stderr, "property broken: %s\n", property);
  std::abort();
}

// A refusal is an Error of the expected kind (or Unsupported) with a message; anything else is a bug.
inline void require_refusal(const Error& error, ErrorKind kind) {
  require(error.kind() == kind || error.kind() == ErrorKind::Unsupported, error.what());
  require(!error.message().empty(), "an error says something");
}

}  // namespace slmc::fuzz
