#pragma once
// Text as a terminal shows it. UTF-8 in; invalid bytes count as one column each.
#include <string>
#include <string_view>

namespace slmc {

int display_width(std::string_view utf8);  // columns: East Asian wide and emoji 2, combining marks 0
std::string cut_to(std::string_view utf8, int columns);  // at most so many columns; what was cut ends in "…"
// Breaks at spaces so that no line has more columns than `width` (longer words stand alone); every line but
// the first starts with `indent` spaces. No newline at the end.
std::string wrap(std::string_view text, int width, int indent = 0);

}  // namespace slmc
