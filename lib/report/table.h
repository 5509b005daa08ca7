#pragma once
// Tables for terminals: columns as wide as their text, numbers to the right. Plain style is tab separated,
// without padding, for scripts.
#include <string>
#include <string_view>
#include <vector>

#include "core/text.h"

namespace slmc::report {

struct Table {
  std::vector<std::string> titles;
  std::vector<std::vector<std::string>> rows;  // as many cells as titles; "" is an empty cell
  std::vector<bool> right;  // per column; empty = columns whose cells all start like numbers
};

struct TableStyle {
  bool plain = false;
  bool bold_titles = false;  // terminal escape codes
  int width = 0;  // columns of the terminal; the widest text column is cut with "…"; 0 = no limit
};

std::string render(const Table& table, const TableStyle& style = {});
bool looks_like_number(std::string_view cell);  // "12.5 MB", "-3", "1 min 2 s", "–" and empty cells

}  // namespace slmc::report
