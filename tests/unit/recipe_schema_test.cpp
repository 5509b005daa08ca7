// The recipes that ship: each one is valid by the JSON Schema that `slmc recipe schema` prints, judged by a validator of its own, and is
// accepted by the decoder behind `slmc recipe check`. What the schema forbids, the decoder refuses too.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <regex>

#include "apps/slmc/registry.h"
#include "core/error.h"
#include "core/file.h"
#include "recipe/document.h"
#include "recipe/recipe.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;

// The words of draft-07 that the schema uses. An unknown word throws: a validator that skips it would accept too much.
class Validator {
 public:
  std::vector<std::string> errors;

  bool check(const Json& schema, const Json& value, const std::string& at) {
    const std::size_t before = errors.size();
    for (const auto& [word, arg] : schema.items()) apply(schema, word, arg, value, at);
    return errors.size() == before;
  }

 private:
  void fail(const std::string& at, const std::string& what) { errors.push_back(at + ": " + what); }

  static bool is(const std::string& type, const Json& v) {
    if (type == "object") return v.is_object();
    if (type == "array") return v.is_array();
    if (type == "string") return v.is_string();
    if (type == "boolean") return v.is_boolean();
    if (type == "null") return v.is_null();
    if (type == "number") return v.is_number();
    if (type == "integer") return v.is_number_integer() || (v.is_number() && v.get<double>() == std::floor(v.get<double>()));
    throw std::runtime_error("unknown type " + type);
  }

  std::size_t alternatives(const Json& list, const Json& value, const std::string& at) {
    std::size_t fitting = 0;
    for (const Json& one : list) fitting += Validator().check(one, value, at);
    return fitting;
  }

  void members(const Json& schema, const Json& value, const std::string& at) {
    const Json patterns = schema.value("patternProperties", Json::object());
    for (const auto& [key, member] : value.items()) {
      bool known = false;
      if (schema.contains("properties") && schema["properties"].contains(key)) {
        known = true;
        check(schema["properties"][key], member, at + "." + key);
      }
      for (const auto& [pattern, sub] : patterns.items()) {
        if (!std::regex_search(key, std::regex(pattern))) continue;
        known = true;
        check(sub, member, at + "." + key);
      }
      if (known || !schema.contains("additionalProperties")) continue;
      const Json& more = schema["additionalProperties"];
      if (more.is_boolean() && !more.get<bool>()) fail(at, "unknown key " + key);
      if (more.is_object()) check(more, member, at + "." + key);
    }
  }

  void apply(const Json& schema, const std::string& word, const Json& arg, const Json& value, const std::string& at) {
    if (word == "description" || word == "title" || word == "default" || word == "$schema") return;
    if (word == "properties" || word == "patternProperties" || word == "additionalProperties") {
      const bool first = word == "additionalProperties" || (word == "patternProperties" && !schema.contains("additionalProperties")) ||
                         (!schema.contains("additionalProperties") && !schema.contains("patternProperties"));
      if (first && value.is_object()) members(schema, value, at);
    } else if (word == "type") {
      const Json types = arg.is_array() ? arg : Json::array({arg});
      if (std::none_of(types.begin(), types.end(), [&](const Json& t) { return is(t, value); })) fail(at, "type is not " + arg.dump());
    } else if (word == "const") {
      if (value != arg) fail(at, "is not " + arg.dump());
    } else if (word == "enum") {
      if (std::find(arg.begin(), arg.end(), value) == arg.end()) fail(at, "is none of " + arg.dump());
    } else if (word == "minimum") {
      if (value.is_number() && value.get<double>() < arg.get<double>()) fail(at, "is below " + arg.dump());
    } else if (word == "maximum") {
      if (value.is_number() && value.get<double>() > arg.get<double>()) fail(at, "is above " + arg.dump());
    } else if (word == "pattern") {
      if (value.is_string() && !std::regex_search(value.get<std::string>(), std::regex(arg.get<std::string>()))) fail(at, "is not " + arg.dump());
    } else if (word == "items") {
      for (std::size_t i = 0; value.is_array() && i < value.size(); ++i) check(arg, value[i], at + "[" + std::to_string(i) + "]");
    } else if (word == "minItems") {
      if (value.is_array() && value.size() < arg.get<std::size_t>()) fail(at, "has too few items");
    } else if (word == "minProperties") {
      if (value.is_object() && value.size() < arg.get<std::size_t>()) fail(at, "has too few keys");
    } else if (word == "required") {
      for (const Json& key : arg) {
        if (value.is_object() && !value.contains(key.get<std::string>())) fail(at, "has no " + key.dump());
      }
    } else if (word == "anyOf") {
      if (alternatives(arg, value, at) == 0) fail(at, "fits no alternative");
    } else if (word == "oneOf") {
      if (alternatives(arg, value, at) != 1) fail(at, "must fit one alternative, but fits " + std::to_string(alternatives(arg, value, at)));
    } else {
      throw std::runtime_error("the validator does not know '" + word + "'");
    }
  }
};

std::vector<fs::path> shipped_recipes() {
  std::vector<fs::path> out;
  for (const auto& entry : fs::directory_iterator(fs::path(SLMC_SOURCE_DIR) / "configs/recipes")) {
    if (entry.path().extension() == ".yaml" || entry.path().extension() == ".json") out.push_back(entry.path());
  }
  std::sort(out.begin(), out.end());
  return out;
}

Json document_of(const std::string& text) {
  std::vector<Diagnostic> problems;
  const Json out = recipe::to_json(recipe::parse_document(text, "test", problems));
  EXPECT_TRUE(problems.empty());
  return out;
}

std::vector<std::string> schema_errors(const std::string& text) {
  Validator validator;
  validator.check(recipe::recipe_schema(cli::registry()), document_of(text), "recipe");
  return validator.errors;
}

bool decoder_accepts(const std::string& text) {
  try {
    recipe::decode(text, std::string(SLMC_SOURCE_DIR) + "/configs/recipes/test.yaml", cli::registry());
    return true;
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::Recipe);
    return false;
  }
}

TEST(ShippedRecipes, AreValidBySchemaAndDecoder) {
  std::vector<std::string> names;
  for (const fs::path& path : shipped_recipes()) {
    SCOPED_TRACE(path.filename().string());
    names.push_back(path.stem().string());
    const std::string text = read_text(path);
    EXPECT_EQ(schema_errors(text), std::vector<std::string>{});
    EXPECT_NO_THROW(recipe::read_recipes(path, cli::registry()));
  }
  for (const char* needed : {"quickstart", "ci", "drop", "prune", "distill", "quantize"}) {      // one per stage and two whole chains
    EXPECT_NE(std::find(names.begin(), names.end(), needed), names.end()) << needed;
  }
}

TEST(ShippedRecipes, OneWrongWordIsRefusedByBoth) {
  const std::string good = read_text(fs::path(SLMC_SOURCE_DIR) / "configs/recipes/ci.yaml");
  ASSERT_TRUE(decoder_accepts(good));
  const std::vector<std::pair<std::string, std::string>> mistakes = {
      {"slmc: 1", "slmc: 2"},          {"layers: 1", "layer: 1"},       {"layers: 1", "layers: -1"},    {"greedy-kl", "greedy"},
      {"ffn: 192", "ffn: wide"},       {"use: prune", "use: shrink"},   {"samples: 32", "samples: ten"}, {"seq: 128}", "seq: 0}"},
      {"type: q4_0", "type: q4_2"},    {"window: 128", "windou: 128"},  {"max: 1.09", "most: 1.09"},    {"{max: 420kB}", "420kB"},
      {"id: heal", "id: he al"},       {"tasks: [{ppl", "tasks: [{pl"}, {"gates: {ppl_ratio", "gates: {ppl_rato"}};
  for (const auto& [from, to] : mistakes) {
    SCOPED_TRACE(from + " -> " + to);
    std::string bad = good;
    ASSERT_NE(bad.find(from), std::string::npos);
    bad.replace(bad.find(from), from.size(), to);
    EXPECT_FALSE(decoder_accepts(bad));
    EXPECT_FALSE(schema_errors(bad).empty());
  }
}

}  // namespace
}  // namespace slmc
