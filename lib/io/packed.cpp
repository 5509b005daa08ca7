#include "io/packed.h"

#include "core/error.h"

namespace slmc::io {
namespace {

// Codes to or from words; `word(row, i)` and `code(row, i)` say where they lie.
template <typename Code, typename Word>
void visit(std::int64_t rows, std::int64_t columns, int bits, const Code& code, const Word& word) {
  const std::int64_t per_word = 32 / bits;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < columns; ++c) {
      const int shift = static_cast<int>(c % per_word) * bits;      // inside the little-endian word: byte shift / 8
      code(r, c, word(r, c / per_word) + shift / 8, shift % 8);
    }
  }
}

void require_bits(int bits) { SLMC_CHECK(bits == 4 || bits == 8); }

std::uint8_t mask(int bits) { return static_cast<std::uint8_t>((1u << bits) - 1); }

}  // namespace

std::int64_t packed_words(std::int64_t count, int bits) {
  require_bits(bits);
  const std::int64_t per_word = 32 / bits;
  return (count + per_word - 1) / per_word;
}

std::vector<std::byte> pack_rows(std::span<const std::uint8_t> codes, std::int64_t rows, std::int64_t columns, int bits) {
  const std::int64_t words = packed_words(columns, bits);
  SLMC_CHECK(static_cast<std::int64_t>(codes.size()) == rows * columns);
  std::vector<std::byte> out(static_cast<std::size_t>(rows * words * 4));
  visit(rows, columns, bits,
        [&](std::int64_t r, std::int64_t c, std::byte* at, int shift) { *at |= static_cast<std::byte>(codes[r * columns + c] << shift); },
        [&](std::int64_t r, std::int64_t w) { return out.data() + (r * words + w) * 4; });
  return out;
}

std::vector<std::uint8_t> unpack_rows(std::span<const std::byte> words, std::int64_t rows, std::int64_t columns, int bits) {
  const std::int64_t width = packed_words(columns, bits);
  SLMC_CHECK(static_cast<std::int64_t>(words.size()) == rows * width * 4);
  std::vector<std::uint8_t> out(static_cast<std::size_t>(rows * columns));
  visit(rows, columns, bits,
        [&](std::int64_t r, std::int64_t c, const std::byte* at, int shift) {
          out[r * columns + c] = (static_cast<std::uint8_t>(*at) >> shift) & mask(bits);
        },
        [&](std::int64_t r, std::int64_t w) { return words.data() + (r * width + w) * 4; });
  return out;
}

std::vector<std::byte> pack_columns(std::span<const std::uint8_t> codes, std::int64_t rows, std::int64_t columns, int bits) {
  SLMC_CHECK(static_cast<std::int64_t>(codes.size()) == rows * columns);
  std::vector<std::byte> out(static_cast<std::size_t>(packed_words(rows, bits) * columns * 4));
  visit(columns, rows, bits,
        [&](std::int64_t c, std::int64_t r, std::byte* at, int shift) { *at |= static_cast<std::byte>(codes[r * columns + c] << shift); },
        [&](std::int64_t c, std::int64_t w) { return out.data() + (w * columns + c) * 4; });
  return out;
}

std::vector<std::uint8_t> unpack_columns(std::span<const std::byte> words, std::int64_t rows, std::int64_t columns, int bits) {
  SLMC_CHECK(static_cast<std::int64_t>(words.size()) == packed_words(rows, bits) * columns * 4);
  std::vector<std::uint8_t> out(static_cast<std::size_t>(rows * columns));
  visit(columns, rows, bits,
        [&](std::int64_t c, std::int64_t r, const std::byte* at, int shift) {
          out[r * columns + c] = (static_cast<std::uint8_t>(*at) >> shift) & mask(bits);
        },
        [&](std::int64_t c, std::int64_t w) { return words.data() + (w * columns + c) * 4; });
  return out;
}

}  // namespace slmc::io
