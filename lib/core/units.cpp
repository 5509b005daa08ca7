#include "core/units.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>

namespace slmc {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// "12.5kB" is {"12.5", "kB"}; one run of spaces may stand between.
struct Split {
  std::string_view number, unit;
};

Split split(std::string_view text) {
  std::size_t end = 0;
  while (end < text.size() && (is_digit(text[end]) || text[end] == '.')) ++end;
  std::string_view unit = text.substr(end);
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  return {text.substr(0, end), unit};
}

__extension__ using Wide = unsigned __int128;

// number * factor, exactly; nothing when it is not whole (unless `round`) or passes 64 bits. "1.6" * 10^6 =
// 1600000.
std::optional<std::uint64_t> scaled(std::string_view number, std::uint64_t factor, bool round) {
  constexpr Wide kMostDivisor = static_cast<Wide>(1'000'000'000'000'000'000) * 1'000'000'000;
  std::uint64_t digits = 0;
  Wide divisor = 1;
  bool seen_dot = false, seen_digit = false;
  for (char c : number) {
    if (c == '.') {
      if (seen_dot) return std::nullopt;
      seen_dot = true;
      continue;
    }
    seen_digit = true;
    if (digits > (std::numeric_limits<std::uint64_t>::max() - 9) / 10 || divisor > kMostDivisor)
      return std::nullopt;
    digits = digits * 10 + static_cast<std::uint64_t>(c - '0');
    if (seen_dot) divisor *= 10;
  }
  if (!seen_digit) return std::nullopt;
  const Wide product = static_cast<Wide>(digits) * factor;
  if (!round && product % divisor != 0) return std::nullopt;
  const Wide result = (product + divisor / 2) / divisor;
  if (result > std::numeric_limits<std::uint64_t>::max()) return std::nullopt;
  return static_cast<std::uint64_t>(result);
}

struct Unit {
  std::string_view name;
  std::uint64_t factor;
};

constexpr std::array kByteUnits = {Unit{"", 1},
                                   Unit{"B", 1},
                                   Unit{"kB", 1000},
                                   Unit{"KB", 1000},
                                   Unit{"MB", 1000000},
                                   Unit{"GB", 1000000000},
                                   Unit{"TB", 1000000000000},
                                   Unit{"KiB", 1ull << 10},
                                   Unit{"MiB", 1ull << 20},
                                   Unit{"GiB", 1ull << 30},
                                   Unit{"TiB", 1ull << 40}};
constexpr std::array kCountUnits = {Unit{"", 1}, Unit{"k", 1000}, Unit{"M", 1000000}, Unit{"B", 1000000000}};

template <typename Units>
std::optional<std::uint64_t> parse_with(const Units& units, std::string_view text, bool round) {
  const Split parts = split(text);
  for (const Unit& unit : units) {
    if (unit.name == parts.unit) return scaled(parts.number, unit.factor, round);
  }
  return std::nullopt;
}

// 98362432 with {"B", "kB", "MB"} is "98.4 MB"; numbers below 1000 are whole.
template <std::size_t N>
std::string with_prefix(std::uint64_t n, const std::array<std::string_view, N>& units) {
  if (n < 1000) return units[0].empty() ? fmt::format("{}", n) : fmt::format("{} {}", n, units[0]);
  double value = static_cast<double>(n);
  std::size_t unit = 0;
  while (value >= 999.95 && unit + 1 < N) value /= 1000, ++unit;  // 999.95 would print as 1000.0
  return fmt::format("{:.1f} {}", value, units[unit]);
}

}  // namespace

std::optional<std::uint64_t> parse_bytes(std::string_view text) { return parse_with(kByteUnits, text, true); }
std::optional<std::uint64_t> parse_count(std::string_view text) {
  return parse_with(kCountUnits, text, false);
}

std::optional<double> parse_number(std::string_view text) {
  if (!text.empty() && text.front() == '+') {
    text.remove_prefix(1);
    if (!text.empty() && text.front() == '-') return std::nullopt;
  }
  double value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

std::optional<double> parse_seconds(std::string_view text) {
  const Split parts = split(text);
  const std::optional<double> number = parse_number(parts.number);
  if (!number) return std::nullopt;
  if (parts.unit.empty() || parts.unit == "s") return *number;
  if (parts.unit == "ms") return *number / 1000;
  if (parts.unit == "m" || parts.unit == "min") return *number * 60;
  if (parts.unit == "h") return *number * 3600;
  return std::nullopt;
}

std::string format_bytes(std::uint64_t bytes) {
  return with_prefix(bytes, std::array<std::string_view, 6>{"B", "kB", "MB", "GB", "TB", "PB"});
}

std::string format_count(std::uint64_t n) {
  return with_prefix(n, std::array<std::string_view, 4>{"", "k", "M", "B"});
}

std::string format_seconds(double s) {
  if (!(s >= 0) || s > 1e9) return fmt::format("{} s", format_number(s));
  if (s < 9.995) return fmt::format("{:.2f} s", s);
  if (s < 59.95) return fmt::format("{:.1f} s", s);
  const auto whole = static_cast<std::int64_t>(std::llround(s));
  if (whole < 3600) return fmt::format("{} min {} s", whole / 60, whole % 60);
  const std::int64_t minutes = (whole + 30) / 60;
  return fmt::format("{} h {} min", minutes / 60, minutes % 60);
}

std::string format_number(double x) {
  std::array<char, 32> buffer;
  const auto result = std::to_chars(buffer.data(), buffer.data() + buffer.size(), x);
  return {buffer.data(), result.ptr};
}

}  // namespace slmc
