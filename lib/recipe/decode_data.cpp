// data: {NAME: {files: [...], samples, seq} | {mix: {DOMAIN: {files, weight}}, seq}}. The result is the JSON
// that lib/data reads.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "recipe/decode.h"

namespace slmc::recipe {
using stage::Setting;
using stage::Type;

namespace {

Setting field_setting() {
  return {.name = "field",
          .type = Type::Text,
          .fallback = "text",
          .help = "Key that holds the text in JSON lines."};
}
Setting label_setting() {
  return {.name = "label",
          .type = Type::Text,
          .fallback = "label",
          .help = "Key that names a document's class in JSON lines, for `train` with objective: classify."};
}
Setting skip_last_setting() {
  return {.name = "skip_last",
          .type = Type::Integer,
          .fallback = "0",
          .help = "Documents at each file's end that are left out, kept for evaluation.",
          .least = 0,
          .most = 1e9,
          .unit = "documents"};
}
Setting only_last_setting() {
  return {.name = "only_last",
          .type = Type::Integer,
          .help = "Only so many documents at each file's end, after skip_last.",
          .least = 1,
          .most = 1e9,
          .unit = "documents"};
}
Setting licence_setting() {
  return {.name = "licence", .type = Type::Text, .help = "Goes into the lineage."};
}

// The files of one domain into `out["files"]` and `section.files`.
void decode_files(const Node& map, const std::string& where, const DecodeContext& context, Json& out,
                  DataSection& section) {
  Json paths = Json::array();
  const Node* files = map.find("files");
  if (files != nullptr && files->kind == Node::Kind::Scalar) {
    context.problems.push_back({fmt::format("the key 'files' {} must be a list, but is text", where),
                                files->place, fmt::format("write [{}]", files->text)});
  } else if ((files = read_kind(map, "files", Node::Kind::List,
                                fmt::format("the key 'files' {} must be a list", where), context.problems))) {
    if (files->items.empty())
      context.problems.push_back(
          {fmt::format("the list 'files' {} must name at least one file, but is empty", where),
           files->place,
           {}});
    for (const Node& file : files->items) {
      if (file.kind != Node::Kind::Scalar || file.text.empty()) {
        context.problems.push_back({"a file must be a path, but is something else", file.place, {}});
        continue;
      }
      section.files.push_back({absolute_path(file.text, context.folder), file.place});
      paths.push_back(section.files.back().path.string());
    }
  }
  out["files"] = std::move(paths);
}

void put_common(const stage::Settings& settings, const std::string& domain, Json& out, DataSection& section) {
  if (settings.has("field")) out["field"] = settings.text("field");
  if (settings.has("skip_last")) out["skip_last"] = settings.integer("skip_last");
  if (settings.has("only_last")) out["only_last"] = settings.integer("only_last");
  if (settings.has("licence")) section.licences[domain] = settings.text("licence");
}

Json decode_domain(const Node& node, const std::string& name, const std::string& section_name,
                   const DecodeContext& context, DataSection& section) {
  const std::string where = fmt::format("of domain '{}' of data '{}'", name, section_name);
  Json out = Json::object();
  if (node.kind != Node::Kind::Map) {
    context.problems.push_back(
        {fmt::format("the domain '{}' must be a group with 'files', but is not", name), node.place, {}});
    return out;
  }
  if (!node.find("files"))
    context.problems.push_back(
        {fmt::format("the domain '{}' must have 'files', but has none", name), node.place, {}});
  decode_files(node, where, context, out, section);
  const stage::Settings settings = read_group(node, domain_table(), {"files"}, where, context.problems);
  if (settings.has("weight")) out["weight"] = settings.number("weight");
  put_common(settings, name, out, section);
  return out;
}

}  // namespace

const std::vector<Setting>& data_table() {
  static const std::vector<Setting> table = {
      {.name = "seq",
       .type = Type::Integer,
       .fallback = "512",
       .help = "Tokens per window.",
       .least = 2,
       .most = 1 << 20,
       .unit = "tokens"},
      {.name = "samples",
       .type = Type::Count,
       .help = "Windows of calibration text; 128 unless told.",
       .least = 1,
       .most = 1e12},
      field_setting(),
      label_setting(),
      skip_last_setting(),
      only_last_setting(),
      {.name = "seed",
       .type = Type::Integer,
       .help = "Order of documents; the recipe's seed unless given.",
       .least = 0},
      licence_setting(),
  };
  return table;
}

const std::vector<Setting>& domain_table() {
  static const std::vector<Setting> table = {
      {.name = "weight",
       .type = Type::Number,
       .fallback = "1",
       .help = "Share of the windows, relative to the others.",
       .least = 0.001,
       .most = 1e6},
      field_setting(),
      skip_last_setting(),
      only_last_setting(),
      licence_setting(),
  };
  return table;
}

DataSection decode_data(const Node& node, const std::string& name, std::uint64_t seed,
                        const DecodeContext& context) {
  DataSection section;
  section.place = node.place;
  if (node.kind != Node::Kind::Map) {
    context.problems.push_back(
        {fmt::format("the data '{}' must be a group with 'files' or 'mix', but is not", name),
         node.place,
         {}});
    section.spec = std::make_shared<const Json>(Json::object());
    return section;
  }
  const std::string where = fmt::format("of data '{}'", name);
  Json out = Json::object();
  const bool has_files = node.find("files") != nullptr, has_mix = node.find("mix") != nullptr;
  if (has_files == has_mix) {
    context.problems.push_back({fmt::format("the data '{}' must have either 'files' or 'mix', but has {}",
                                            name, has_files ? "both" : "neither"),
                                node.place,
                                {}});
  }
  const stage::Settings settings = read_group(node, data_table(), {"files", "mix"}, where, context.problems);
  if (has_files) {
    decode_files(node, where, context, out, section);
    put_common(settings, "", out, section);
    if (settings.has("label") && settings.text("label") != "label") out["label"] = settings.text("label");
  }
  if (has_mix) {
    out["mix"] = Json::object();
    for (const char* key : {"field", "label", "skip_last", "only_last"}) {
      if (node.find(key))
        context.problems.push_back(
            {fmt::format("the key '{}' must stand in a domain of 'mix', but stands beside it", key),
             node.key_place(key),
             {}});
    }
    const Node* mix =
        read_kind(node, "mix", Node::Kind::Map,
                  fmt::format("the key 'mix' {} must be a group of domains", where), context.problems);
    if (mix && mix->entries.empty())
      context.problems.push_back(
          {fmt::format("the 'mix' {} must have at least one domain, but is empty", where), mix->place, {}});
    if (mix) {
      for (const auto& [domain, value, key_place] : mix->entries)
        out["mix"][domain] = decode_domain(value, domain, name, context, section);
    }
    if (settings.has("licence")) section.licences[""] = settings.text("licence");
  }
  if (settings.has("seq")) out["seq"] = settings.integer("seq");
  if (settings.has("samples") && name == "train") {
    context.problems.push_back({"the key 'samples' must stand in calibration data, but stands in 'train'",
                                node.key_place("samples"), "a stage's 'tokens' says how much is read"});
  } else if (settings.has("samples")) {
    out["samples"] = settings.integer("samples");
  } else if (name == "calib") {
    out["samples"] = 128;
  }
  out["seed"] = settings.has("seed") ? static_cast<std::uint64_t>(settings.integer("seed")) : seed;
  section.spec = std::make_shared<const Json>(std::move(out));
  return section;
}

}  // namespace slmc::recipe
