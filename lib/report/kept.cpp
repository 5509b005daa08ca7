#include "report/kept.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/text.h"
#include "report/svg.h"
#include "report/svg_parts.h"

namespace slmc::report {
namespace {

bool shrank(const Share& s) { return s.now != s.was; }

std::string numbers(const Share& s) { return s.was == 0 ? "–" : s.now == 0 ? "gone" : fmt::format("{}/{}", s.now, s.was); }

double fraction(const Share& s) {
  return s.was > 0 ? std::clamp(static_cast<double>(s.now) / static_cast<double>(s.was), 0.0, 1.0) : 0.0;
}

// What is left, to the nearest cell, but whole only when nothing is missing and empty only when nothing is left.
std::string bar(const Share& s, int cells) {
  int full = static_cast<int>(std::lround(fraction(s) * cells));
  if (s.now > 0) full = std::max(full, 1);
  if (s.now < s.was) full = std::min(full, cells - 1);
  std::string out;
  for (int i = 0; i < cells; ++i) out += i < full ? "█" : "░";
  return out;
}

std::string padded(const std::string& text, int columns, bool right = false) {
  const std::string blanks(static_cast<std::size_t>(std::max(columns - display_width(text), 0)), ' ');
  return right ? blanks + text : text + blanks;
}

bool alike(const KeptBlock& a, const KeptBlock& b) {
  return a.there == b.there && (!a.there || (a.kv == b.kv && a.heads == b.heads && a.ffn == b.ffn));
}

struct Run {                               // of neighbours that are alike
  std::size_t first = 0, last = 0;
};

std::vector<Run> runs_of(const std::vector<KeptBlock>& blocks) {
  std::vector<Run> out;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (!out.empty() && alike(blocks[out.back().first], blocks[i])) {
      out.back().last = i;
    } else {
      out.push_back({i, i});
    }
  }
  return out;
}

std::string name_of(const Kept& kept, const Run& run) {
  const std::size_t count = run.last - run.first + 1;
  if (!kept.which_known) return fmt::format("{} of {}", count, kept.blocks.size());
  const std::int64_t first = kept.blocks[run.first].number;
  return count == 1 ? fmt::format("{}", first) : fmt::format("{}-{}", first, kept.blocks[run.last].number);
}

constexpr int kHeadCells = 10, kFfnCells = 20;

std::string trimmed(std::string line) {
  while (!line.empty() && line.back() == ' ') line.pop_back();
  return line + "\n";
}

// The range of an axis over the blocks that are there: "1024 to 1280 of 1536".
std::string range_of(const Kept& kept, Share KeptBlock::* axis) {
  std::int64_t least = -1, most = -1, was = 0;
  for (const KeptBlock& b : kept.blocks) {
    was = std::max(was, (b.*axis).was);
    if (!b.there || (b.*axis).now == 0) continue;
    least = least < 0 ? (b.*axis).now : std::min(least, (b.*axis).now);
    most = std::max(most, (b.*axis).now);
  }
  if (most < 0) return was == 0 ? "none" : "all gone";
  return least == most ? fmt::format("{} of {}", most, was) : fmt::format("{} to {} of {}", least, most, was);
}

std::string rect(double x, double y, double w, double h, const std::string& style) {
  return fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" style=\"{}\"/>\n", px(x), px(y), px(w), px(h), style);
}

constexpr const char* kOutline = "fill:none;stroke:var(--grid)";
constexpr const char* kFilled = "fill:var(--s0)";
constexpr double kLeft = 152, kRight = 8, kTop = 34, kGap = 12;

// One block's cell of a lane: an outline as high as what was there, filled from below by what is left, crossed out where nothing is.
std::string cell(const Kept& kept, const KeptBlock& block, const Share& share, const char* what, double most, double x, double y, double w, double h) {
  if (share.was == 0) return {};
  const double whole = h * static_cast<double>(share.was) / most, left = block.there ? whole * fraction(share) : 0;
  const std::string which = kept.which_known ? fmt::format("block {}", block.number) : "one block";
  const std::string says = !block.there ? "gone" : share.now == 0 ? fmt::format("{} gone", what) : fmt::format("{} {} of {}", what, share.now, share.was);
  std::string out = fmt::format("<g><title>{}: {}</title>\n", which, says);
  out += rect(x, y + h - whole, w, whole, kOutline);
  if (left > 0) out += rect(x, y + h - left, w, left, kFilled);
  if (left == 0) out += line(x, y + h, x + w, y + h - whole, "limit");
  return out + "</g>\n";
}

std::string lane(const Kept& kept, Share KeptBlock::* axis, const char* what, double y, double h) {
  std::int64_t most = 0;
  for (const KeptBlock& b : kept.blocks) most = std::max(most, (b.*axis).was);
  if (most == 0) return {};
  const double step = (720 - kLeft - kRight) / static_cast<double>(kept.blocks.size()), w = std::max(step - 2, step * 0.6);
  std::string out = text(kLeft - 10, y + h / 2 - 2, what, "end") + text(kLeft - 10, y + h / 2 + 13, range_of(kept, axis), "end", "soft");
  for (std::size_t i = 0; i < kept.blocks.size(); ++i) {
    out += cell(kept, kept.blocks[i], kept.blocks[i].*axis, what, static_cast<double>(most), kLeft + step * static_cast<double>(i), y, w, h);
  }
  return out;
}

std::string block_numbers(const Kept& kept, double y) {
  const double step = (720 - kLeft - kRight) / static_cast<double>(kept.blocks.size());
  const auto every = static_cast<std::size_t>(std::max(1.0, std::ceil(24 / step)));
  std::string out = text(kLeft - 10, y, kept.which_known ? "block" : "which is not known yet", "end", "soft");
  if (!kept.which_known) return out;
  for (std::size_t i = 0; i < kept.blocks.size(); i += every) {
    out += text(kLeft + step * static_cast<double>(i) + step / 2 - 1, y, std::to_string(kept.blocks[i].number), "middle", "soft");
  }
  return out;
}

std::string whole_bar(const std::string& name, const Share& share, double y) {
  constexpr double kLength = 360;
  return text(kLeft - 10, y + 12, name, "end") + rect(kLeft, y, kLength, 16, kOutline) + rect(kLeft, y, kLength * fraction(share), 16, kFilled) +
         text(kLeft + kLength + 8, y + 12, fmt::format("{} of {}", share.now, share.was), "start", "soft");
}

}  // namespace

bool anything_went(const Kept& kept) {
  return std::any_of(kept.blocks.begin(), kept.blocks.end(),
                     [](const KeptBlock& b) { return !b.there || shrank(b.kv) || shrank(b.heads) || shrank(b.ffn); }) ||
         std::any_of(kept.whole.begin(), kept.whole.end(), [](const auto& axis) { return shrank(axis.second); });
}

std::string text(const Kept& kept) {
  const std::vector<Run> runs = runs_of(kept.blocks);
  int names = 6, groups = 6, heads = 3, axes = 6;
  for (const Run& run : runs) {
    const KeptBlock& b = kept.blocks[run.first];
    names = std::max(names, display_width(name_of(kept, run)));
    groups = std::max(groups, display_width(numbers(b.kv)));
    heads = std::max(heads, display_width(numbers(b.heads)));
  }
  for (const auto& [name, share] : kept.whole) axes = std::max(axes, display_width(name));
  std::string out = kept.title + "\n";
  out += trimmed("  " + padded("blocks", names) + "  " + padded("groups", groups, true) + "  " + padded("query heads", kHeadCells + 1 + heads) + "  feed-forward");
  for (const Run& run : runs) {
    const KeptBlock& b = kept.blocks[run.first];
    std::string row = "  " + padded(name_of(kept, run), names) + "  ";
    if (!b.there) {
      out += trimmed(row + padded("gone", groups, true));
      continue;
    }
    row += padded(numbers(b.kv), groups, true) + "  ";
    row += padded(b.heads.was > 0 ? bar(b.heads, kHeadCells) + " " : "", kHeadCells + 1) + padded(numbers(b.heads), heads, true) + "  ";
    out += trimmed(row + (b.ffn.was > 0 ? bar(b.ffn, kFfnCells) + " " : "") + numbers(b.ffn));
  }
  for (const auto& [name, share] : kept.whole) out += trimmed("  " + padded(name, axes) + "  " + bar(share, kFfnCells) + " " + numbers(share));
  return out;
}

std::string svg(const Kept& kept) {
  constexpr double kFfn = 96, kHeads = 56, kGroups = 40, kBar = 24;
  double y = kTop;
  std::string body;
  const auto add = [&](Share KeptBlock::* axis, const char* what, double h) {
    const std::string drawn = lane(kept, axis, what, y, h);
    if (!drawn.empty()) y += h + kGap;
    body += drawn;
  };
  if (!kept.blocks.empty()) {
    add(&KeptBlock::ffn, "feed-forward", kFfn);
    add(&KeptBlock::heads, "query heads", kHeads);
    add(&KeptBlock::kv, "key/value groups", kGroups);
    body += block_numbers(kept, y + 4);
    y += 24;
  }
  for (const auto& [name, share] : kept.whole) {
    body += whole_bar(name, share, y);
    y += kBar;
  }
  return open_svg(720, static_cast<int>(y + 4), kept.title) + text(0, 18, kept.title, "start", "title") + body + "</svg>\n";
}

}  // namespace slmc::report
