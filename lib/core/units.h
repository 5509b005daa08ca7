#pragma once
// Numbers as people write them. "80MB" is 80,000,000 and "80MiB" 83,886,080 bytes; "60k" and "1.6M" are counts.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace slmc {

std::optional<std::uint64_t> parse_bytes(std::string_view text);   // B kB KB MB GB TB KiB MiB GiB TiB, or a bare number
std::optional<std::uint64_t> parse_count(std::string_view text);   // k M B(=1e9) or a bare number; must come out whole
std::optional<double> parse_number(std::string_view text);         // plain decimal or scientific; never locale dependent
std::optional<double> parse_seconds(std::string_view text);        // "90s" "15m" "2h" "250ms", or bare seconds
std::string format_bytes(std::uint64_t bytes);                     // "98.4 MB"
std::string format_count(std::uint64_t n);                         // "134.5 M", "60.0 k", "812"
std::string format_seconds(double s);                              // "0.84 s", "3 min 12 s"
std::string format_number(double x);                               // shortest text that reads back equal

}  // namespace slmc
