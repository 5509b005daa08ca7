#pragma once
// What the pictures of lib/report are made of; private to it.
#include <string>
#include <string_view>

namespace slmc::report {

inline constexpr double kFont = 12,
                        kCharacter = 6.6;  // px; the mean width of a character is good enough to place labels

// Coordinates with at most two digits behind the point, so that the last bits of a sum never show.
std::string px(double v);
std::string text(double x, double y, std::string_view content, std::string_view anchor = "start",
                 std::string_view cls = "");
std::string line(double x1, double y1, double x2, double y2, std::string_view cls);
// The opening tag with title and style; ends with "</svg>".
std::string open_svg(int width, int height, const std::string& title);

}  // namespace slmc::report
