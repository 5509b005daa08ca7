#pragma once
// SHA-256 (FIPS 180-4), the only hash of slmc: keys, model identity, files. Uses the CPU's SHA instructions when present.
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace slmc {

class Sha256 {
 public:
  Sha256();
  Sha256& add(std::span<const std::byte> bytes);
  Sha256& add(std::string_view text);
  Sha256& add_number(std::uint64_t n);           // eight bytes, little-endian: lengths, so that "ab"+"c" != "a"+"bc"
  std::string hex();                             // 64 characters; ends the hash

 private:
  void block(const std::uint8_t* p);
  std::array<std::uint32_t, 8> h_;
  std::array<std::uint8_t, 64> buffer_;
  std::uint64_t length_ = 0;
};

std::string sha256(std::string_view text);
std::string sha256_file(const std::filesystem::path& path);   // streams; Error(Data) when unreadable

}  // namespace slmc
