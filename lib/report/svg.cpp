#include "report/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "core/error.h"
#include "core/text.h"
#include "core/units.h"
#include "report/svg_parts.h"

namespace slmc::report {
namespace {

constexpr int kColours = 5;

// Colours are chosen to be told apart by colour-blind readers and in both schemes.
constexpr std::string_view kStyle =
    "<style>.slmc{--ink:#1c2128;--soft:#57606a;--grid:#d8dee4;--s0:#0b62c4;--s1:#c2410c;--s2:#15803d;--s3:#"
    "7e22ce;--s4:#854d0e;--bad:#b91c1c}"
    "@media "
    "(prefers-color-scheme:dark){.slmc{--ink:#e6edf3;--soft:#9aa4af;--grid:#30363d;--s0:#6cb0ff;--s1:#ff9d5c;"
    "--s2:#5fd38d;"
    "--s3:#c99bff;--s4:#e3b341;--bad:#ff8080}}"
    ".slmc text{font:12px system-ui,sans-serif;fill:var(--ink)}.slmc .soft{fill:var(--soft)}.slmc "
    ".title{font-weight:600;font-size:13px}"
    ".slmc .grid{stroke:var(--grid)}.slmc .limit{stroke:var(--bad);stroke-dasharray:5 4}.slmc "
    ".limittext{fill:var(--bad)}</style>";

}  // namespace

std::string px(double v) {
  std::string out = fmt::format("{:.2f}", v);
  while (out.back() == '0') out.pop_back();
  if (out.back() == '.') out.pop_back();
  return out == "-0" ? "0" : out;
}

std::string text(double x, double y, std::string_view content, std::string_view anchor,
                 std::string_view cls) {
  return fmt::format("<text x=\"{}\" y=\"{}\"{}{}>{}</text>\n", px(x), px(y),
                     anchor == "start" ? "" : fmt::format(" text-anchor=\"{}\"", anchor),
                     cls.empty() ? "" : fmt::format(" class=\"{}\"", cls), escape_xml(content));
}

std::string line(double x1, double y1, double x2, double y2, std::string_view cls) {
  return fmt::format("<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" class=\"{}\"/>\n", px(x1), px(y1), px(x2),
                     px(y2), cls);
}

std::string open_svg(int width, int height, const std::string& title) {
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"slmc\" viewBox=\"0 0 {} {}\" width=\"{}\" "
      "height=\"{}\" role=\"img\" "
      "aria-label=\"{}\" style=\"max-width:100%;height:auto\">\n<title>{}</title>\n{}\n",
      width, height, width, height, escape_xml(title), escape_xml(title), kStyle);
}

namespace {

std::string colour(std::size_t series) { return fmt::format("var(--s{})", series % kColours); }

std::string tick_text(double v) {
  if (v != 0 && (std::abs(v) >= 1e6 || std::abs(v) < 1e-3)) return format_number(v);
  std::string out = fmt::format("{:.4f}", v);
  while (out.back() == '0') out.pop_back();
  if (out.back() == '.') out.pop_back();
  return out;
}

// Maps data to pixels along one axis. Ends are widened a little so that marks don't sit on the frame.
class Mapping {
 public:
  Mapping(const Axis& axis, std::vector<double> values, double from, double to)
      : scale_(axis.scale), from_(from), to_(to) {
    std::erase_if(values, [&](double v) { return !usable(v); });
    double least = values.empty() ? 1 : *std::min_element(values.begin(), values.end());
    double most = values.empty() ? 2 : *std::max_element(values.begin(), values.end());
    if (axis.least && usable(*axis.least)) least = *axis.least;
    if (axis.most && usable(*axis.most)) most = *axis.most;
    if (least > most) std::swap(least, most);
    least_ = place(least);
    most_ = place(most);
    const double room = most_ > least_ ? (most_ - least_) * 0.06 : std::max(std::abs(least_) * 0.1, 1e-12);
    if (!axis.least || most_ <= least_) least_ -= room;
    if (!axis.most || most_ <= least_ + room) most_ += room;
  }
  bool usable(double v) const { return std::isfinite(v) && (scale_ == Scale::Linear || v > 0); }
  double operator()(double v) const { return from_ + (place(v) - least_) / (most_ - least_) * (to_ - from_); }
  std::vector<double> ticks(int about) const {
    return report::ticks(scale_ == Scale::Log ? std::pow(10.0, least_) : least_,
                         scale_ == Scale::Log ? std::pow(10.0, most_) : most_, scale_, about);
  }

 private:
  double place(double v) const { return scale_ == Scale::Log ? std::log10(v) : v; }
  Scale scale_;
  double from_, to_, least_ = 0, most_ = 1;
};

struct Box {
  double x, y, w, h;
  bool meets(const Box& o) const { return x < o.x + o.w && o.x < x + w && y < o.y + o.h && o.y < y + h; }
};

// Puts labels beside marks where they hide no mark, label or line: eight places are tried in order, then
// again further off, at last over lines.
class Labels {
 public:
  Labels(double width, double height) : width_(width), height_(height) {}
  void block_mark(double x, double y) { taken_.push_back({x - 5, y - 5, 10, 10}); }
  void block_line(double x1, double y1, double x2, double y2) {
    const double length = std::hypot(x2 - x1, y2 - y1);
    for (double at = 0; at < length; at += 5)
      lines_.push_back({x1 + (x2 - x1) * at / length, y1 + (y2 - y1) * at / length, 1, 1});
  }
  std::string put(double x, double y, const std::string& label) {
    const double w = display_width(label) * kCharacter, h = kFont + 2;
    const std::array<std::array<double, 2>, 8> places = {
        {{9, 4}, {-w / 2, -10}, {-w / 2, 20}, {-w - 9, 4}, {7, -8}, {7, 18}, {-w - 7, -8}, {-w - 7, 18}}};
    Box best{std::clamp(x + 9, 2.0, std::max(2.0, width_ - w - 2)), y + 4 - h + 3, w, h};
    for (int round = 0; round < 8; ++round) {
      const double further = (round % 4) * (h + 2);
      bool found = false;
      for (const auto& p : places) {
        const Box box{x + p[0], y + p[1] + (p[1] < 0 ? -further : further) - h + 3, w, h};
        if (!free(box, round < 4)) continue;
        best = box;
        found = true;
        break;
      }
      if (found) break;
    }
    taken_.push_back(best);
    return text(best.x, best.y + h - 3, label);
  }

 private:
  bool free(const Box& box, bool mind_lines) const {
    const auto meets = [&](const Box& o) { return o.meets(box); };
    return box.x >= 2 && box.x + box.w <= width_ - 2 && box.y >= 2 && box.y + box.h <= height_ - 2 &&
           std::none_of(taken_.begin(), taken_.end(), meets) &&
           !(mind_lines && std::any_of(lines_.begin(), lines_.end(), meets));
  }
  double width_, height_;
  std::vector<Box> taken_, lines_;
};

struct Frame {
  double left = 64, right = 20, top = 34, bottom = 52;
};

std::string axes(const LineChart& chart, const Frame& f, const Mapping& mx, const Mapping& my) {
  std::string out;
  const double w = chart.width, h = chart.height;
  for (const double t : mx.ticks(6)) {
    out += line(mx(t), f.top, mx(t), h - f.bottom, "grid");
    out += text(mx(t), h - f.bottom + 16, tick_text(t), "middle", "soft");
  }
  for (const double t : my.ticks(6)) {
    out += line(f.left, my(t), w - f.right, my(t), "grid");
    out += text(f.left - 6, my(t) + 4, tick_text(t), "end", "soft");
  }
  out += text((f.left + w - f.right) / 2, h - 10, chart.x.title, "middle", "soft");
  out += fmt::format(
      "<text transform=\"translate(14 {}) rotate(-90)\" text-anchor=\"middle\" class=\"soft\">{}</text>\n",
      px((f.top + h - f.bottom) / 2), escape_xml(chart.y.title));
  out += text(f.left, 18, chart.title, "start", "title");
  return out;
}

std::string limits(const LineChart& chart, const Frame& f, const Mapping& mx, const Mapping& my) {
  std::string out;
  for (const LimitLine& limit : chart.limits) {
    if (limit.horizontal && my.usable(limit.at)) {
      out += line(f.left, my(limit.at), chart.width - f.right, my(limit.at), "limit");
      out += text(f.left + 4, my(limit.at) - 4, limit.label, "start", "limittext");
    } else if (!limit.horizontal && mx.usable(limit.at)) {
      out += line(mx(limit.at), f.top, mx(limit.at), chart.height - f.bottom, "limit");
      out += text(mx(limit.at) + 4, f.top + 12, limit.label, "start", "limittext");
    }
  }
  return out;
}

std::string legend(const LineChart& chart, const Frame& f) {
  if (chart.series.size() < 2) return {};
  std::string out;
  double x = chart.width - f.right;
  for (std::size_t i = chart.series.size(); i-- > 0;) {
    x -= display_width(chart.series[i].name) * kCharacter + 22;
    out += fmt::format("<circle cx=\"{}\" cy=\"14\" r=\"4\" style=\"fill:{}\"/>\n", px(x), colour(i)) +
           text(x + 8, 18, chart.series[i].name);
  }
  return out;
}

std::string draw(const Series& series, std::size_t index, const Mapping& mx, const Mapping& my,
                 Labels& labels) {
  std::string path, marks;
  bool pen_down = false;
  for (const Point& p : series.points) {
    if (!mx.usable(p.x) || !my.usable(p.y)) {
      pen_down = false;
      continue;
    }
    path += fmt::format("{}{} {}", pen_down ? "L" : "M", px(mx(p.x)), px(my(p.y)));
    pen_down = true;
    if (series.marks)
      marks += fmt::format("<circle cx=\"{}\" cy=\"{}\" r=\"4\" style=\"fill:{}\"/>\n", px(mx(p.x)),
                           px(my(p.y)), colour(index));
    if (!p.label.empty()) marks += labels.put(mx(p.x), my(p.y), p.label);
  }
  if (!series.line || path.empty()) return marks;
  return fmt::format("<path d=\"{}\" style=\"fill:none;stroke:{};stroke-width:2;stroke-opacity:.6\"/>\n",
                     path, colour(index)) +
         marks;
}

}  // namespace

std::string escape_xml(std::string_view raw) {
  std::string out;
  for (const char c : raw) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: out += static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t' ? ' ' : c;
    }
  }
  return out;
}

std::vector<double> ticks(double least, double most, Scale scale, int about) {
  std::vector<double> out;
  if (!(least < most) || !std::isfinite(least) || !std::isfinite(most) || about < 1) return out;
  if (scale == Scale::Log && most / least > 3) {
    // 1, 2, 5 of each decade; only the ones when there are many decades.
    const int first = static_cast<int>(std::floor(std::log10(least))),
              last = static_cast<int>(std::ceil(std::log10(most)));
    const int step = std::max(1, (last - first) / std::max(about, 1));
    for (int e = first; e <= last; e += step) {
      for (const double m : {1.0, 2.0, 5.0}) {
        const double t = m * std::pow(10.0, e);
        if (t >= least && t <= most && (m == 1.0 || last - first <= about / 2)) out.push_back(t);
      }
    }
    return out;
  }
  const double raw = (most - least) / about, power = std::pow(10.0, std::floor(std::log10(raw)));
  double step = power;
  for (const double m : {1.0, 2.0, 5.0, 10.0}) {
    step = m * power;
    if (step >= raw * 0.75) break;
  }
  const double first = std::ceil(least / step - 1e-9) + 0.0;      // of -0 it makes 0, so that no label says -0
  for (double k = first; k * step <= most + step * 1e-9 && out.size() < 100; ++k) out.push_back(k * step);
  return out;
}

std::string svg(const LineChart& chart) {
  const Frame frame;
  std::vector<double> xs, ys;
  for (const Series& s : chart.series) {
    for (const Point& p : s.points) {
      xs.push_back(p.x);
      ys.push_back(p.y);
    }
  }
  for (const LimitLine& limit : chart.limits) (limit.horizontal ? ys : xs).push_back(limit.at);
  const Mapping mx(chart.x, xs, frame.left, chart.width - frame.right);
  const Mapping my(chart.y, ys, chart.height - frame.bottom, frame.top);
  Labels labels(chart.width, chart.height - frame.bottom);
  for (const Series& s : chart.series) {
    const Point* last = nullptr;
    for (const Point& p : s.points) {
      const bool usable = mx.usable(p.x) && my.usable(p.y);
      if (usable) labels.block_mark(mx(p.x), my(p.y));
      if (usable && last && s.line) labels.block_line(mx(last->x), my(last->y), mx(p.x), my(p.y));
      last = usable ? &p : nullptr;
    }
  }
  std::string out = open_svg(chart.width, chart.height, chart.title) + axes(chart, frame, mx, my) +
                    limits(chart, frame, mx, my) + legend(chart, frame);
  for (std::size_t i = 0; i < chart.series.size(); ++i) out += draw(chart.series[i], i, mx, my, labels);
  return out + "</svg>\n";
}

std::string svg(const BarChart& chart) {
  constexpr double kRow = 26, kTop = 34;
  const int height = static_cast<int>(kTop + kRow * static_cast<double>(chart.bars.size()) + 8);
  double most = 0;
  int name_width = 4, text_width = 0;
  for (const Bar& bar : chart.bars) {
    if (std::isfinite(bar.value)) most = std::max(most, bar.value);
    name_width = std::max(name_width, display_width(bar.label));
    text_width = std::max(text_width, display_width(bar.text));
  }
  const double left = std::min(name_width * kCharacter + 16, chart.width * 0.4);
  const double room = std::max(chart.width - left - text_width * kCharacter - 24, 10.0);
  std::string out =
      open_svg(chart.width, height, chart.title) +
      text(0, 18, chart.unit.empty() ? chart.title : chart.title + ", " + chart.unit, "start", "title");
  for (std::size_t i = 0; i < chart.bars.size(); ++i) {
    const Bar& bar = chart.bars[i];
    const double y = kTop + kRow * static_cast<double>(i);
    const double length = most > 0 && std::isfinite(bar.value) && bar.value > 0 ? bar.value / most * room : 0;
    out += text(left - 8, y + 16, bar.label, "end");
    out += fmt::format(
        "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"18\" rx=\"2\" style=\"fill:var(--s0)\"/>\n", px(left),
        px(y + 3), px(length));
    out += text(left + length + 6, y + 16, bar.text, "start", "soft");
  }
  return out + "</svg>\n";
}

}  // namespace slmc::report
