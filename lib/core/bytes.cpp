#include "core/bytes.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>

namespace slmc {

static_assert(std::endian::native == std::endian::little,
              "every format of ours is little-endian and read in place");

std::uint64_t checked_mul(std::uint64_t a, std::uint64_t b, std::string_view what) {
  std::uint64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) {
    throw Error(ErrorKind::Model, fmt::format("{} must fit 64 bits, but is {} x {}", what, a, b));
  }
  return product;
}

std::uint64_t checked_add(std::uint64_t a, std::uint64_t b, std::string_view what) {
  std::uint64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) {
    throw Error(ErrorKind::Model, fmt::format("{} must fit 64 bits, but is {} + {}", what, a, b));
  }
  return sum;
}

std::uint64_t element_count(std::span<const std::int64_t> shape, std::string_view what) {
  std::uint64_t count = 1;
  for (std::int64_t size : shape) {
    if (size < 0) {
      throw Error(ErrorKind::Model,
                  fmt::format("the sizes of {} must not be negative, but are {}", what, shape_text(shape)));
    }
    count = checked_mul(count, static_cast<std::uint64_t>(size),
                        fmt::format("the number of elements of {}", what));
  }
  return count;
}

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string out = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) out += fmt::format("{}{}", i ? ", " : "", shape[i]);
  return out + "]";
}

namespace {

template <typename T>
T number(std::span<const std::byte> bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

}  // namespace

std::uint8_t ByteReader::u8(std::string_view what) { return number<std::uint8_t>(take(1, what)); }
std::uint16_t ByteReader::u16(std::string_view what) { return number<std::uint16_t>(take(2, what)); }
std::uint32_t ByteReader::u32(std::string_view what) { return number<std::uint32_t>(take(4, what)); }
std::uint64_t ByteReader::u64(std::string_view what) { return number<std::uint64_t>(take(8, what)); }
float ByteReader::f32(std::string_view what) { return number<float>(take(4, what)); }
double ByteReader::f64(std::string_view what) { return number<double>(take(8, what)); }

std::string_view ByteReader::text(std::uint64_t bytes, std::string_view what) {
  const std::span<const std::byte> part = take(bytes, what);
  return {reinterpret_cast<const char*>(part.data()), part.size()};
}

std::span<const std::byte> ByteReader::take(std::uint64_t bytes, std::string_view what) {
  if (bytes > left()) fail(fmt::format("{} must have {} bytes, but only {} are left", what, bytes, left()));
  const std::span<const std::byte> part = bytes_.subspan(at_, bytes);
  at_ += bytes;
  return part;
}

void ByteReader::require_room(std::uint64_t count, std::uint64_t smallest, std::string_view what) const {
  if (count > left() / smallest) {
    fail(fmt::format("{} must fit in the {} bytes left, but {} were announced, each {} bytes or more", what,
                     left(), count, smallest));
  }
}

void ByteReader::fail(const std::string& message) const {
  throw Error(ErrorKind::Model, Place{file_, 0, 0, 1, {}}, fmt::format("{} (at byte {})", message, at_));
}

}  // namespace slmc
