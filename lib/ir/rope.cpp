#include "ir/rope.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>
#include <set>

#include "core/error.h"

namespace slmc::ir {
namespace {

double llama3_frequency(const Rope& rope, double w) {
  const double wave = 2 * std::numbers::pi / w;
  const double original = static_cast<double>(rope.original);
  if (wave > original / rope.low) return w / rope.factor;
  if (wave < original / rope.high) return w;
  const double smooth = (original / wave - rope.low) / (rope.high - rope.low);
  return (1 - smooth) * w / rope.factor + smooth * w;
}

[[noreturn]] void unsupported(const std::string& file, const std::string& message) {
  throw Error(ErrorKind::Unsupported, Place{file, 0, 0, 1, {}}, message);
}

double positive(const Json& object, const char* key, double fallback, const std::string& file) {
  const auto it = object.find(key);
  if (it == object.end() || it->is_null()) return fallback;
  if (!it->is_number() || !(it->get<double>() > 0) || !std::isfinite(it->get<double>()))
    throw Error(ErrorKind::Model, Place{file, 0, 0, 1, {}},
                std::string("the rotary setting '") + key + "' must be a positive number, but is " +
                    dump_compact(*it));
  return it->get<double>();
}

std::int64_t tokens(const Json& object, const char* key, std::int64_t fallback, const std::string& file) {
  constexpr double kMost = 100'000'000;  // as of every size of a config
  const double value = positive(object, key, static_cast<double>(fallback), file);
  if (value > kMost || value != std::floor(value))
    throw Error(ErrorKind::Model, Place{file, 0, 0, 1, {}},
                std::string("the rotary setting '") + key + "' must be a whole number from 1 to 100000000, but is " +
                    dump_compact(object.at(key)));
  return static_cast<std::int64_t>(value);
}

}  // namespace

std::vector<double> frequencies(const Rope& rope, std::int64_t pairs) {
  if (rope.type == "custom") {
    SLMC_CHECK(static_cast<std::int64_t>(rope.own.size()) == pairs);
    return rope.own;
  }
  std::vector<double> w(static_cast<std::size_t>(pairs));
  for (std::size_t i = 0; i < w.size(); ++i) {
    w[i] = 1.0 / std::pow(rope.theta, static_cast<double>(i) / static_cast<double>(pairs));
    if (rope.type == "linear") w[i] /= rope.factor;
    if (rope.type == "llama3") w[i] = llama3_frequency(rope, w[i]);
  }
  return w;
}

Rope rope_from_json(const Json& scaling, double theta, std::int64_t original, const std::string& file) {
  Rope rope;
  rope.type = "default";
  rope.theta = theta;
  if (scaling.is_null()) return rope;
  if (!scaling.is_object())
    unsupported(file, "the rotary settings must be an object, but are " + dump_compact(scaling));
  for (const char* key : {"type", "rope_type"})
    if (const auto it = scaling.find(key); it != scaling.end() && !it->is_null()) {
      if (!it->is_string()) unsupported(file, "the rotary type must be a text, but is " + dump_compact(*it));
      rope.type = it->get<std::string>();
    }
  std::set<std::string> known = {"type", "rope_type", "rope_theta", "partial_rotary_factor"};
  if (rope.type == "linear") {
    rope.factor = positive(scaling, "factor", 1, file);
    known.insert("factor");
  } else if (rope.type == "llama3") {
    for (const char* key : {"factor", "low_freq_factor", "high_freq_factor"})
      if (!scaling.contains(key))
        throw Error(ErrorKind::Model, Place{file, 0, 0, 1, {}},
                    std::string("llama3 rotary scaling must give '") + key + "', but does not");
    rope.factor = positive(scaling, "factor", 1, file);
    rope.low = positive(scaling, "low_freq_factor", 1, file);
    rope.high = positive(scaling, "high_freq_factor", 4, file);
    rope.original = tokens(scaling, "original_max_position_embeddings", original, file);
    if (rope.high <= rope.low)
      throw Error(ErrorKind::Model, Place{file, 0, 0, 1, {}},
                  "high_freq_factor must be above low_freq_factor, but is not");
    known.insert({"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"});
  } else if (rope.type != "default") {
    unsupported(file, "the rotary type must be default, linear or llama3, but is '" + rope.type + "'");
  }
  for (const auto& [key, value] : scaling.items())
    if (!known.contains(key) && !value.is_null())
      unsupported(file, "rotary settings of type '" + rope.type + "' must not hold '" + key + "', but do");
  return rope;
}

Json to_json(const Rope& rope) {
  Json json = Json::object();
  json["rope_theta"] = rope.theta;
  json["rope_type"] = rope.type;
  if (rope.type == "linear") json["factor"] = rope.factor;
  if (rope.type == "llama3") {
    json["factor"] = rope.factor;
    json["low_freq_factor"] = rope.low;
    json["high_freq_factor"] = rope.high;
    json["original_max_position_embeddings"] = rope.original;
  }
  return json;
}

std::vector<float> rope_factors(const Rope& rope, std::int64_t pairs) {
  Rope plain;
  plain.type = "default";
  plain.theta = rope.theta;
  const std::vector<double> base = frequencies(plain, pairs), own = frequencies(rope, pairs);
  std::vector<float> factors(base.size());
  for (std::size_t i = 0; i < base.size(); ++i) factors[i] = static_cast<float>(base[i] / own[i]);
  return factors;
}

Rope rope_from_factors(const std::vector<float>& factors, double theta) {
  Rope rope;
  rope.theta = theta;
  rope.type = "llama3";
  rope.factor = factors.empty() ? 1 : *std::max_element(factors.begin(), factors.end());
  for (std::int64_t original : {8192, 4096, 2048, 16384, 32768}) {
    rope.original = original;
    const std::vector<float> want = rope_factors(rope, static_cast<std::int64_t>(factors.size()));
    bool same = true;  // llama.cpp's converter works in fp32: a few ulp apart
    for (std::size_t i = 0; i < want.size(); ++i)
      same = same && std::abs(want[i] - factors[i]) <= 2e-6f * want[i] * 4;
    if (same && rope.factor > 1) return rope;
  }
  Rope plain;
  plain.type = "default";
  plain.theta = theta;
  std::vector<double> w = frequencies(plain, static_cast<std::int64_t>(factors.size()));
  bool all_one = true;
  for (std::size_t i = 0; i < w.size(); ++i) {
    if (!(factors[i] > 0) || !std::isfinite(factors[i]))
      throw Error(ErrorKind::Model, "rotary divisors must be positive, but one is not");
    all_one = all_one && factors[i] == 1.0f;
    w[i] /= static_cast<double>(factors[i]);
  }
  if (all_one) return plain;
  rope = Rope{};
  rope.type = "custom";
  rope.theta = theta;
  rope.own = std::move(w);
  return rope;
}

}  // namespace slmc::ir
