#pragma once
// Pictures as SVG text. The same data gives the same bytes. Colours are CSS variables with fallbacks, so that
// a page can make them light or dark; a file on its own follows the reader's colour scheme.
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace slmc::report {

enum class Scale { Linear, Log };

struct Axis {
  std::string title;  // "file size, MB"
  Scale scale = Scale::Linear;
  std::optional<double> least, most;  // nothing = from the data
};

struct Point {
  double x = 0, y = 0;  // non-finite points are left out, and break a line
  std::string label;    // written beside the mark; "" = none
};

struct Series {
  std::string name;
  std::vector<Point> points;
  bool line = true, marks = true;
};

struct LimitLine {  // a dashed line: a gate
  double at = 0;
  bool horizontal = true;
  std::string label;
};

struct LineChart {
  std::string title;  // also the text for screen readers
  Axis x, y;
  std::vector<Series> series;
  std::vector<LimitLine> limits;
  int width = 720, height = 400;
};

struct Bar {
  std::string label;
  double value = 0;
  std::string text;  // written at its end
};

struct BarChart {
  std::string title;
  std::string unit;
  std::vector<Bar> bars;  // drawn from the top
  int width = 720;
};

std::string svg(const LineChart& chart);
std::string svg(const BarChart& chart);
// Round numbers inside [least, most]
std::vector<double> ticks(double least, double most, Scale scale, int about);
std::string escape_xml(std::string_view text);  // & < > " ' and characters that XML forbids

}  // namespace slmc::report
