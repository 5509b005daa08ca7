#pragma once
// Tables for terminals: columns as wide as their text, numbers to the right. Plain style is tab separated, without padding, for scripts.
#include <string>
#include <string_view>
#include <vector>

namespace slmc::report {

struct Table {
  std::vector<std::string> titles;
  std::vector<std::vector<std::string>> rows;      // as many cells as titles; "" is an empty cell
  std::vector<bool> right;                         // per column; empty = columns whose cells all start like numbers
};

struct TableStyle {
  bool plain = false;
  bool bold_titles = false;                        // terminal escape codes
  int width = 0;                                   // columns of the terminal; longer first columns are cut with "…"; 0 = no limit
};

std::string render(const Table& table, const TableStyle& style = {});
int display_width(std::string_view utf8);          // code points; wide and combining ones counted as terminals do
std::string wrap(std::string_view text, int width, int indent);   // words; every line but the first indented

}  // namespace slmc::report
