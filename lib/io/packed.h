#pragma once
// Codes of 4 or 8 bits side by side in little-endian 32-bit words, as compressed-tensors' pack-quantized form stores them: element i of a
// row lies in word i / (32 / bits) at bit (i mod 32 / bits) * bits; the last word of a row is filled up with zeros.
// (Other widths cross words, or not, depending on the reader's version: compressed-tensors PR #715.)
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace slmc::io {

std::int64_t packed_words(std::int64_t count, int bits);                                        // of one row of `count` codes
// codes [rows, columns], one byte each -> words [rows, packed_words(columns)]
std::vector<std::byte> pack_rows(std::span<const std::uint8_t> codes, std::int64_t rows, std::int64_t columns, int bits);
std::vector<std::uint8_t> unpack_rows(std::span<const std::byte> words, std::int64_t rows, std::int64_t columns, int bits);
// The same along the first dimension: codes [rows, columns] -> words [packed_words(rows), columns].
std::vector<std::byte> pack_columns(std::span<const std::uint8_t> codes, std::int64_t rows, std::int64_t columns, int bits);
std::vector<std::uint8_t> unpack_columns(std::span<const std::byte> words, std::int64_t rows, std::int64_t columns, int bits);

}  // namespace slmc::io
