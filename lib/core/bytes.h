#pragma once
// A cursor over bytes that nobody trusts, and arithmetic that can't overflow. Every parser of ours reads through it.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace slmc {

// a * b, or Error(Model) naming `what` on overflow.
std::uint64_t checked_mul(std::uint64_t a, std::uint64_t b, std::string_view what);
std::uint64_t checked_add(std::uint64_t a, std::uint64_t b, std::string_view what);

// Product of a shape's entries; a negative entry or an overflow is Error(Model) naming `what`.
std::uint64_t element_count(std::span<const std::int64_t> shape, std::string_view what);
std::string shape_text(std::span<const std::int64_t> shape);            // "[576, 1536]"

// Little-endian reader. A failed read throws Error(Model): file, byte offset, what was wanted, how much is left.
class ByteReader {
 public:
  ByteReader(std::span<const std::byte> bytes, std::string_view file) : bytes_(bytes), file_(file) {}
  std::uint8_t u8(std::string_view what);
  std::uint16_t u16(std::string_view what);
  std::uint32_t u32(std::string_view what);
  std::uint64_t u64(std::string_view what);
  std::int32_t i32(std::string_view what) { return static_cast<std::int32_t>(u32(what)); }
  float f32(std::string_view what);
  double f64(std::string_view what);
  std::string_view text(std::uint64_t bytes, std::string_view what);    // a view into the file
  std::span<const std::byte> take(std::uint64_t bytes, std::string_view what);
  std::uint64_t position() const { return at_; }
  std::uint64_t left() const { return bytes_.size() - at_; }
  // Refuses a count whose records, at `smallest` bytes each, can't fit in what is left, before anything is allocated.
  void require_room(std::uint64_t count, std::uint64_t smallest, std::string_view what) const;
  [[noreturn]] void fail(const std::string& message) const;             // adds file and byte offset

 private:
  std::span<const std::byte> bytes_;
  std::string file_;
  std::uint64_t at_ = 0;
};

}  // namespace slmc
