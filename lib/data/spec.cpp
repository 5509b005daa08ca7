// DataSpec: from JSON, to JSON, and its hash.
#include <bit>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/hash.h"
#include "data/source.h"

namespace slmc::data {
namespace {

DomainSpec domain_from(Fields& fields, std::string name) {
  DomainSpec domain;
  domain.name = std::move(name);
  fields.at("files");
  for (std::string& file : fields.texts_or("files", {})) domain.files.emplace_back(std::move(file));
  if (domain.files.empty()) fields.fail("files", "must name at least one file, but is empty");
  domain.field = fields.text_or("field", "text");
  domain.label = fields.text_or("label", "label");
  domain.skip_last = fields.integer_or("skip_last", 0);
  if (domain.skip_last < 0)
    fields.fail("skip_last", "must be at least 0, but is " + std::to_string(domain.skip_last));
  domain.only_last = fields.integer_or("only_last", 0);
  if (domain.only_last < 0)
    fields.fail("only_last", "must be at least 0, but is " + std::to_string(domain.only_last));
  return domain;
}

Json domain_json(const DomainSpec& domain) {
  Json json = {{"files", Json::array()}};
  for (const auto& file : domain.files) json["files"].push_back(file.string());
  if (domain.field != "text") json["field"] = domain.field;
  if (domain.label != "label") json["label"] = domain.label;
  if (domain.skip_last) json["skip_last"] = domain.skip_last;
  if (domain.only_last) json["only_last"] = domain.only_last;
  return json;
}

}  // namespace

DataSpec data_spec_from_json(const Json& json, const std::string& file, const std::string& path) {
  Fields fields(json, file, path, ErrorKind::Recipe);
  DataSpec spec;
  if (fields.has("mix")) {
    const Json& mix = fields.at("mix");
    const std::string mix_path = path.empty() ? "mix" : path + ".mix";
    const Fields check(mix, file, mix_path, ErrorKind::Recipe);
    if (mix.empty()) fields.fail("mix", "must name at least one domain, but is empty");
    for (const auto& [name, value] : mix.items()) {
      Fields inner(value, file, mix_path + "." + name, ErrorKind::Recipe);
      DomainSpec domain = domain_from(inner, name);
      domain.weight = inner.number_or("weight", 1.0);
      if (!(domain.weight > 0) || !std::isfinite(domain.weight))
        inner.fail("weight", "must be above 0, but is " + dump_compact(value["weight"]));
      inner.finish();
      spec.domains.push_back(std::move(domain));
    }
  } else {
    spec.domains.push_back(domain_from(fields, "data"));
  }
  const std::int64_t seed = fields.integer_or("seed", 0);
  spec.seq = fields.integer_or("seq", 512);
  spec.samples = fields.integer_or("samples", 0);
  if (spec.seq < 1 || spec.seq > (1 << 24))
    fields.fail("seq", "must be 1 to 16777216 tokens, but is " + std::to_string(spec.seq));
  if (spec.samples < 0) fields.fail("samples", "must be at least 0, but is " + std::to_string(spec.samples));
  if (seed < 0) fields.fail("seed", "must be at least 0, but is " + std::to_string(seed));
  spec.seed = static_cast<std::uint64_t>(seed);
  fields.finish();
  return spec;
}

Json to_json(const DataSpec& spec) {
  Json json = Json::object();
  const bool alone =
      spec.domains.size() == 1 && spec.domains[0].name == "data" && spec.domains[0].weight == 1.0;
  if (alone) {
    json = domain_json(spec.domains[0]);
  } else {
    json["mix"] = Json::object();
    for (const DomainSpec& domain : spec.domains) {
      Json inner = domain_json(domain);
      inner["weight"] = domain.weight;
      json["mix"][domain.name] = std::move(inner);
    }
  }
  json["seq"] = spec.seq;
  if (spec.samples) json["samples"] = spec.samples;
  if (spec.seed) json["seed"] = spec.seed;
  return json;
}

std::string content_hash(const DataSpec& spec) {
  Sha256 hash;
  const auto add = [&](std::string_view text) { hash.add_number(text.size()).add(text); };
  hash.add_number(static_cast<std::uint64_t>(spec.seq))
      .add_number(static_cast<std::uint64_t>(spec.samples))
      .add_number(spec.seed);
  hash.add_number(spec.domains.size());
  for (const DomainSpec& domain : spec.domains) {
    add(domain.name);
    add(domain.field);
    hash.add_number(std::bit_cast<std::uint64_t>(domain.weight))
        .add_number(static_cast<std::uint64_t>(domain.skip_last));
    if (domain.label != "label") add("label " + domain.label);
    if (domain.only_last) add("only_last " + std::to_string(domain.only_last));
    hash.add_number(domain.files.size());
    for (const auto& file : domain.files) {
      add(file.extension() == ".jsonl" ? "jsonl" : "text");
      add(sha256_file(file));
    }
  }
  return hash.hex();
}

}  // namespace slmc::data
