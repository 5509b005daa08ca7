#pragma once
// Strict JSON: duplicate keys, trailing text, NaN and nesting over 200 are errors with line and column.
// Files of ours keep key order, so Json is nlohmann's ordered_json: looking a key up walks the object, so go through a large
// one (a vocabulary) with items(). Include <nlohmann/json.hpp> only in .cpp files.
#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace slmc {

using Json = nlohmann::ordered_json;
using SharedJson = std::shared_ptr<const Json>;   // a JSON value inside a struct; null means an empty object

Json parse_json(std::string_view text, std::string_view file, ErrorKind kind);   // Error(kind) with place
Json read_json(const std::filesystem::path& path, ErrorKind kind);               // missing file is Error(kind)
void write_json(const std::filesystem::path& path, const Json& json);            // two-space indent, final newline, atomic
std::string dump_compact(const Json& json);                                      // one line; invalid UTF-8 is replaced

// Reads typed fields of one object and remembers which were asked for; finish() reports unknown keys with a suggestion.
// Errors name the file and the JSON path ("tensors[3].name").
class Fields {
 public:
  Fields(const Json& object, std::string file, std::string path, ErrorKind kind);
  bool has(const char* key) const;
  const Json& at(const char* key);                       // required, any type
  std::string text(const char* key);                     // required string
  std::string text_or(const char* key, std::string fallback);
  std::int64_t integer(const char* key);
  std::int64_t integer_or(const char* key, std::int64_t fallback);
  double number(const char* key);
  double number_or(const char* key, double fallback);
  bool boolean_or(const char* key, bool fallback);
  std::vector<std::string> texts_or(const char* key, std::vector<std::string> fallback);
  std::vector<std::int64_t> integers(const char* key);
  const Json* find(const char* key);                     // nullptr when absent
  Fields object(const char* key);                        // required nested object
  void finish() const;                                   // any key never asked for is an error
  [[noreturn]] void fail(const char* key, const std::string& message, const std::string& hint = {}) const;

 private:
  const Json* object_;
  std::string file_, path_;
  ErrorKind kind_;
  std::vector<std::string> asked_;
};

}  // namespace slmc
