#include "report/table.h"

#include <algorithm>

#include "core/error.h"

namespace slmc::report {
namespace {

std::string spaces(int n) { return std::string(static_cast<std::size_t>(std::max(n, 0)), ' '); }

std::string plain_text(const Table& table) {
  std::string out;
  const auto line = [&](const std::vector<std::string>& cells) {
    for (std::size_t i = 0; i < cells.size(); ++i) {
      std::string cell = cells[i];
      std::replace_if(
          cell.begin(), cell.end(), [](char c) { return c == '\t' || c == '\n'; }, ' ');
      out += (i ? "\t" : "") + cell;
    }
    out += '\n';
  };
  line(table.titles);
  for (const auto& row : table.rows) line(row);
  return out;
}

std::vector<bool> right_aligned(const Table& table) {
  if (!table.right.empty()) return table.right;
  std::vector<bool> out(table.titles.size(), !table.rows.empty());
  for (const auto& row : table.rows) {
    for (std::size_t i = 0; i < row.size(); ++i) out[i] = out[i] && looks_like_number(row[i]);
  }
  return out;
}

// Takes what is too much from the widest text column, down to eight characters.
void shrink(std::vector<int>& widths, const std::vector<bool>& right, int limit) {
  constexpr int kLeast = 8;
  int total = static_cast<int>(widths.size() - 1) * 2;
  for (const int w : widths) total += w;
  while (limit > 0 && total > limit) {
    int widest = -1;
    for (int i = 0; i < static_cast<int>(widths.size()); ++i) {
      const auto at = static_cast<std::size_t>(i);
      if (!right[at] && widths[at] > kLeast &&
          (widest < 0 || widths[at] > widths[static_cast<std::size_t>(widest)]))
        widest = i;
    }
    if (widest < 0) return;
    int& width = widths[static_cast<std::size_t>(widest)];
    const int by = std::min(total - limit, width - kLeast);
    width -= by;
    total -= by;
  }
}

}  // namespace

bool looks_like_number(std::string_view cell) {
  if (cell.empty() || cell == "–" || cell == "-") return true;
  const std::size_t digit = cell.front() == '-' || cell.front() == '+' ? 1 : 0;
  return digit < cell.size() && cell[digit] >= '0' && cell[digit] <= '9';
}

std::string render(const Table& table, const TableStyle& style) {
  for (const auto& row : table.rows) SLMC_CHECK(row.size() == table.titles.size());
  if (style.plain) return plain_text(table);
  const std::vector<bool> right = right_aligned(table);
  std::vector<int> widths;
  for (std::size_t i = 0; i < table.titles.size(); ++i) {
    int width = display_width(table.titles[i]);
    for (const auto& row : table.rows) width = std::max(width, display_width(row[i]));
    widths.push_back(width);
  }
  shrink(widths, right, style.width);
  std::string out;
  const auto line = [&](const std::vector<std::string>& cells, bool bold) {
    std::string text;
    for (std::size_t i = 0; i < cells.size(); ++i) {
      const std::string cell = cut_to(cells[i], widths[i]);
      const std::string pad = spaces(widths[i] - display_width(cell));
      text += (i ? "  " : "") + (right[i] ? pad + cell : cell + pad);
    }
    text.erase(text.find_last_not_of(' ') + 1);
    out += bold ? "\x1b[1m" + text + "\x1b[0m\n" : text + "\n";
  };
  line(table.titles, style.bold_titles);
  for (const auto& row : table.rows) line(row, false);
  return out;
}

}  // namespace slmc::report
