#pragma once
// The documents of a domain, found once and read on demand: files stay mapped, only offsets are kept.
#include <cstdint>
#include <string>
#include <vector>

#include "core/file.h"
#include "data/source.h"

namespace slmc::data {

class Documents {
 public:
  explicit Documents(const DomainSpec& domain);  // Error(Data) when a file is missing
  std::int64_t count() const { return static_cast<std::int64_t>(places_.size()); }
  std::string text(std::int64_t document) const;  // Error(Data) with file and line
  // Another key of a .jsonl document, as text. Error(Data) when it is missing or no text, and for documents of plain files.
  std::string field(std::int64_t document, const std::string& name) const;

 private:
  struct Location {
    std::int32_t file = 0, line = 0;  // line 0: the whole file
    std::uint64_t offset = 0, bytes = 0;
  };
  std::vector<MappedFile> files_;
  std::vector<Location> places_;
  std::string field_;
};

// One line of a .jsonl file as an object; Error(Data) with file and line.
Json parse_line(std::string_view line, const std::string& file, int number);
// Calls visit(line, number, offset) for each line that is not blank; numbers count from 1.
template <typename Visit>
void for_each_line(std::string_view text, Visit visit) {
  int number = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = text.substr(at, end - at);
    ++number;
    if (line.find_first_not_of(" \t\r") != line.npos) visit(line, number, at);
    at = end + 1;
  }
}
MappedFile open_data(const std::filesystem::path& path);  // Error(Data) when missing
std::string_view text_of(const MappedFile& file);

}  // namespace slmc::data
