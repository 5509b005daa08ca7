#include "data/documents.h"

#include <nlohmann/json.hpp>

namespace slmc::data {

MappedFile open_data(const std::filesystem::path& path) {
  try {
    return MappedFile::open(path);
  } catch (const Error& error) {
    throw Error(ErrorKind::Data, error.diagnostics());
  }
}

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

namespace {

// "\r\n" and a lone "\r" become "\n".
std::string with_plain_line_ends(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\r')
      out += text[i];
    else if (i + 1 == text.size() || text[i + 1] != '\n')
      out += '\n';
  }
  return out;
}

}  // namespace

Json parse_line(std::string_view line, const std::string& file, int number) {
  try {
    Json object = parse_json(line, file, ErrorKind::Data);
    if (!object.is_object())
      throw Error(ErrorKind::Data, "a line of a .jsonl file must be an object, but is not");
    return object;
  } catch (const Error& error) {
    Place place = error.diagnostics().front().place;
    place.file = file;
    place.line = number;
    if (place.line_text.size() > 200) place.line_text.clear();
    throw Error(ErrorKind::Data, place, error.message());
  }
}

Documents::Documents(const DomainSpec& domain) : field_(domain.field) {
  for (const std::filesystem::path& path : domain.files) {
    const auto file = static_cast<std::int32_t>(files_.size());
    const std::size_t before = places_.size();
    files_.push_back(open_data(path));
    const std::string_view text = text_of(files_.back());
    if (path.extension() == ".jsonl")
      for_each_line(text, [&](std::string_view line, int number, std::size_t at) {
        places_.push_back({file, number, at, line.size()});
      });
    else
      places_.push_back({file, 0, 0, text.size()});
    const auto skipped = static_cast<std::size_t>(
        std::min<std::int64_t>(domain.skip_last, static_cast<std::int64_t>(places_.size() - before)));
    places_.resize(places_.size() - skipped);
    const auto own = static_cast<std::int64_t>(places_.size() - before);
    if (domain.only_last > 0 && own > domain.only_last)
      places_.erase(places_.begin() + static_cast<std::ptrdiff_t>(before), places_.end() - domain.only_last);
  }
}

std::string Documents::text(std::int64_t document) const {
  const Location& place = places_[static_cast<std::size_t>(document)];
  if (place.line != 0) return field(document, field_);
  return with_plain_line_ends(text_of(files_[static_cast<std::size_t>(place.file)]).substr(place.offset, place.bytes));
}

std::string Documents::field(std::int64_t document, const std::string& name) const {
  const Location& place = places_[static_cast<std::size_t>(document)];
  const MappedFile& file = files_[static_cast<std::size_t>(place.file)];
  if (place.line == 0) {
    throw Error(ErrorKind::Data, Place{file.path(), 0, 0, 1, {}}, "a document with the field '" + name + "' must be a line of a .jsonl file, but is plain text");
  }
  const Json object = parse_line(text_of(file).substr(place.offset, place.bytes), file.path(), place.line);
  const auto found = object.find(name);
  if (found == object.end() || !found->is_string())
    throw Error(
        ErrorKind::Data, Place{file.path(), place.line, 1, 1, {}},
        "the field '" + name + "' must be a text, but is " + (found == object.end() ? "missing" : "not"));
  return found->get<std::string>();
}

std::vector<std::string> read_documents(const DomainSpec& domain) {
  const Documents documents(domain);
  std::vector<std::string> texts;
  for (std::int64_t i = 0; i < documents.count(); ++i) {
    std::string text = documents.text(i);
    if (!text.empty()) texts.push_back(std::move(text));
  }
  return texts;
}

}  // namespace slmc::data
