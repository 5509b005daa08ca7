// Plans as files: strict JSON, and the tensors beside it.
#include "ir/plan.h"

#include <nlohmann/json.hpp>

#include "core/bytes.h"
#include "core/error.h"
#include "core/file.h"
#include "io/safetensors.h"

namespace slmc::ir {
namespace {

namespace fs = std::filesystem;
constexpr const char* kValuesFile = "plan.safetensors";
constexpr const char* kZeroNames[] = {"symmetric", "min", "zero-point"};

[[noreturn]] void fail(const std::string& file, const std::string& message, const std::string& hint = {}) {
  throw Error(ErrorKind::Recipe, Place{file, 0, 0, 1, {}}, message, hint);
}

std::vector<std::int64_t> indices(const Json& list, const std::string& file, const std::string& axis) {
  if (!list.is_array()) fail(file, "take." + axis + ": the kept entries must be a list, but are not");
  std::vector<std::int64_t> result;
  result.reserve(list.size());
  for (const Json& v : list) {
    if (!v.is_number_integer() || (v.is_number_unsigned() && v.get<std::uint64_t>() > 1ull << 62))
      fail(file, "take." + axis + ": the kept entries must be whole numbers, but one is not");
    result.push_back(v.get<std::int64_t>());
  }
  return result;
}

SetFrom set_from(const Json& json, const std::string& file, const std::string& path) {
  Fields f(json, file, path, ErrorKind::Recipe);
  SetFrom from;
  from.file = f.text_or("file", "");
  from.tensor = f.text_or("tensor", "");
  from.copy = f.text_or("copy", "");
  f.finish();
  if (from.file.empty() == from.copy.empty())
    fail(file, path + ": an entry must give either 'file' or 'copy', but does not");
  if (from.file.empty() != from.tensor.empty())
    fail(file, path + ": 'tensor' must stand with 'file', but does not");
  const fs::path p(from.file);
  if (p.is_absolute() || from.file.find("..") != std::string::npos)
    fail(file, path + ": a file must lie in the plan's folder, but is '" + from.file + "'");
  return from;
}

std::string scheme_text(const io::QuantScheme& s) {
  Json json = Json::object();
  json["bits"] = s.bits;
  json["group"] = s.group;
  json["zero"] = kZeroNames[static_cast<int>(s.zero)];
  json["scale_dtype"] = std::string(to_string(s.scale_dtype));
  return dump_compact(json);
}

io::QuantScheme scheme_from(const std::string& text, const std::string& file) {
  const Json json = parse_json(text, file, ErrorKind::Model);
  Fields f(json, file, "", ErrorKind::Model);
  io::QuantScheme s;
  s.bits = static_cast<int>(f.integer("bits"));
  s.group = f.integer("group");
  const std::string zero = f.text("zero");
  bool known = false;
  for (int z = 0; z < 3; ++z)
    if (zero == kZeroNames[z]) {
      s.zero = static_cast<io::QuantScheme::Zero>(z);
      known = true;
    }
  if (!known) f.fail("zero", "the kind of zero must be symmetric, min or zero-point, but is '" + zero + "'");
  const std::optional<DType> dtype = dtype_from(f.text("scale_dtype"));
  if (!dtype) f.fail("scale_dtype", "the type of scales must be F16, BF16 or F32, but is not");
  s.scale_dtype = *dtype;
  f.finish();
  if (s.bits < 2 || s.bits > 8 || s.group < 1)
    f.fail("bits", "bits must be 2 to 8 and the group at least 1, but are not");
  return s;
}

io::TensorData quantized_value(const io::SafetensorsFile& file, const std::string& name,
                               const std::string& scheme) {
  const io::TensorData codes = file.read(name + ".codes"), scales = file.read(name + ".scales");
  io::Quantized q;
  q.scheme = scheme_from(scheme, file.file());
  if (codes.dtype != DType::U8 || codes.shape.empty() || codes.shape.back() % q.scheme.group != 0)
    throw Error(ErrorKind::Model, Place{file.file(), 0, 0, 1, {}},
                "the codes of '" + name + "' must be U8 rows of whole groups, but are not");
  std::vector<std::int64_t> groups = codes.shape;
  groups.back() /= q.scheme.group;
  const bool mins = q.scheme.zero != io::QuantScheme::Zero::Symmetric;
  if (scales.shape != groups || (mins && file.read(name + ".mins").shape != groups))
    throw Error(ErrorKind::Model, Place{file.file(), 0, 0, 1, {}},
                "the scales of '" + name + "' must be " + shape_text(groups) + ", but are " +
                    shape_text(scales.shape));
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(codes.bytes.data());
  q.codes.assign(bytes, bytes + codes.bytes.size());
  for (const std::uint8_t c : q.codes)
    if (c >> q.scheme.bits)
      throw Error(ErrorKind::Model, Place{file.file(), 0, 0, 1, {}},
                  "the codes of '" + name + "' must fit " + std::to_string(q.scheme.bits) +
                      " bits, but one does not");
  q.scales = scales.to_floats();
  if (mins) q.mins = file.read(name + ".mins").to_floats();
  return io::TensorData::of(codes.shape, std::move(q));
}

std::span<const std::byte> bytes_of(const std::vector<float>& v) { return std::as_bytes(std::span(v)); }

void write_values(const fs::path& folder, const Plan& plan) {
  std::vector<io::SafetensorsWriter::Entry> entries;
  std::map<std::string, std::string> metadata;
  for (const auto& [name, from] : plan.set) {
    if (!from.value) continue;
    const io::TensorData& v = *from.value;
    if (!v.quantized) {
      entries.push_back({name, v.dtype, v.shape});
      continue;
    }
    std::vector<std::int64_t> groups = v.shape;
    groups.back() /= v.quantized->scheme.group;
    metadata[name] = scheme_text(v.quantized->scheme);
    entries.push_back({name + ".codes", DType::U8, v.shape});
    entries.push_back({name + ".scales", DType::F32, groups});
    if (!v.quantized->mins.empty()) entries.push_back({name + ".mins", DType::F32, groups});
  }
  if (entries.empty()) return;
  auto writer = io::SafetensorsWriter::single(folder / kValuesFile, entries, metadata);
  for (const auto& [name, from] : plan.set) {
    if (!from.value) continue;
    const io::TensorData& v = *from.value;
    if (!v.quantized) {
      writer.write(name, v.bytes);
      continue;
    }
    writer.write(name + ".codes", std::as_bytes(std::span(v.quantized->codes)));
    writer.write(name + ".scales", bytes_of(v.quantized->scales));
    if (!v.quantized->mins.empty()) writer.write(name + ".mins", bytes_of(v.quantized->mins));
  }
  writer.finish();
}

}  // namespace

Plan::Plan(const Model& model) : base_shape(model.shape_hash()), base(std::make_shared<const Model>(model)) {}

Plan plan_from_json(const Json& json, const std::string& file) {
  Fields f(json, file, "", ErrorKind::Recipe);
  if (const std::int64_t version = f.integer("slmc_plan"); version != 1)
    fail(file, "slmc_plan: the version must be 1, but is " + std::to_string(version),
         version > 1 ? "this plan is from a newer slmc" : "");
  Plan plan;
  Fields base = f.object("base");
  plan.base_shape = base.text("shape");
  plan.base_content = base.text_or("content", "");
  base.finish();
  if (const Json* take = f.find("take")) {
    if (!take->is_object()) fail(file, "take: the value must be an object, but is not");
    for (const auto& [axis, list] : take->items()) plan.take[axis] = indices(list, file, axis);
  }
  if (const Json* set = f.find("set")) {
    if (!set->is_object()) fail(file, "set: the value must be an object, but is not");
    for (const auto& [name, from] : set->items()) plan.set[name] = set_from(from, file, "set." + name);
  }
  if (const Json* config = f.find("config")) {
    if (!config->is_object()) fail(file, "config: the value must be an object, but is not");
    plan.config = std::make_shared<const Json>(*config);
  }
  if (const Json* format = f.find("format")) {
    if (!format->is_object()) fail(file, "format: the value must be an object, but is not");
    for (const auto& [glob, type] : format->items()) {
      if (!type.is_string()) fail(file, "format." + glob + ": the stored type must be a text, but is not");
      plan.format.emplace_back(glob, type.get<std::string>());
    }
  }
  if (const Json* why = f.find("why")) plan.why = std::make_shared<const Json>(*why);
  f.finish();
  return plan;
}

Plan read_plan(const fs::path& file) {
  Plan plan = plan_from_json(read_json(file, ErrorKind::Recipe), file.string());
  plan.folder = file.parent_path();
  return plan;
}

io::TensorData read_value(const SetFrom& from, const fs::path& folder) {
  if (from.value) return *from.value;
  const io::SafetensorsFile file = io::SafetensorsFile::open(folder / from.file);
  const auto scheme = file.metadata().find(from.tensor);
  if (scheme != file.metadata().end() && file.find(from.tensor + ".codes"))
    return quantized_value(file, from.tensor, scheme->second);
  return file.read(from.tensor);
}

Json to_json(const Plan& plan) {
  Json json = Json::object();
  json["slmc_plan"] = 1;
  json["base"] = {{"shape", plan.base_shape}, {"content", plan.base_content}};
  if (!plan.take.empty()) {
    Json& take = json["take"] = Json::object();
    for (const auto& [axis, kept] : plan.take) take[axis] = kept;
  }
  if (!plan.set.empty()) {
    Json& set = json["set"] = Json::object();
    for (const auto& [name, from] : plan.set) {
      if (!from.copy.empty() && !from.value)
        set[name] = {{"copy", from.copy}};
      else
        set[name] = {{"file", from.value ? kValuesFile : from.file},
                     {"tensor", from.value ? name : from.tensor}};
    }
  }
  if (plan.config && !plan.config->empty()) json["config"] = *plan.config;
  if (!plan.format.empty()) {
    Json& format = json["format"] = Json::object();
    for (const auto& [glob, type] : plan.format) {
      format.erase(glob);  // the last one wins, and keeps its place
      format[glob] = type;
    }
  }
  if (plan.why && !plan.why->empty()) json["why"] = *plan.why;
  return json;
}

void write_plan(const fs::path& folder, const Plan& plan) {
  Plan complete = plan;
  if (complete.base_content.empty() && !complete.set.empty() && complete.base)
    complete.base_content = complete.base->content_hash();
  write_values(folder, complete);
  write_json(folder / "plan.json", to_json(complete));
}

}  // namespace slmc::ir
