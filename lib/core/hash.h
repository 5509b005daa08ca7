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
  enum class Path { Fastest, Portable };         // Portable: plain C++ whatever the CPU has; tests compare the two
  explicit Sha256(Path path = Path::Fastest);
  Sha256& add(std::span<const std::byte> bytes);
  Sha256& add(std::string_view text);
  Sha256& add_number(std::uint64_t n);           // eight bytes, little-endian: lengths, so that "ab"+"c" != "a"+"bc"
  std::string hex();                             // 64 characters; ends the hash

 private:
  // Compresses `blocks` blocks of 64 bytes into the state.
  using Compress = void (*)(std::uint32_t* state, const std::uint8_t* bytes, std::size_t blocks);
  Compress compress_;
  std::array<std::uint32_t, 8> state_;
  std::array<std::uint8_t, 64> buffer_;          // the first length_ % 64 bytes wait for the rest of their block
  std::uint64_t length_ = 0;                     // bytes so far
};

std::string sha256(std::string_view text);
std::string sha256_file(const std::filesystem::path& path);   // streams; Error(Data) when unreadable

}  // namespace slmc
