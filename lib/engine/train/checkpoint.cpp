#include "engine/train/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <span>

#include "core/error.h"
#include "core/file.h"
#include "core/hash.h"
#include "io/safetensors.h"

namespace slmc::engine {
namespace {

namespace fs = std::filesystem;
constexpr int kVersion = 1, kKept = 2;
constexpr const char* kPrefix = "step-";

// ---- state as JSON: one list of fields for both ways ----

template <typename State, typename Visit>
void fields_of(State& s, Visit visit) {
  visit("step", s.step);
  visit("windows", s.windows);
  visit("tokens", s.tokens);
  visit("counted", s.counted);
  visit("seconds", s.seconds);
  visit("open_sums", s.open_sums);
  visit("open_counted", s.open_counted);
}

Json to_json(const TrainState& state) {
  Json json = Json::object();
  fields_of(state, [&](const char* name, const auto& value) { json[name] = value; });
  json["curve"] = Json::array();
  for (const CurvePoint& p : state.curve) json["curve"].push_back({{"step", p.step}, {"rate", p.rate}, {"means", p.means}});
  if (state.companion) json["companion"] = *state.companion;
  return json;
}

TrainState state_from(const Json& json) {
  TrainState state;
  fields_of(state, [&](const char* name, auto& value) { json.at(name).get_to(value); });
  for (const Json& p : json.at("curve")) {
    state.curve.push_back({p.at("step").get<std::int64_t>(), p.at("rate").get<double>(), p.at("means").get<std::vector<double>>()});
  }
  if (json.contains("companion")) state.companion = std::make_shared<const Json>(json["companion"]);
  return state;
}

// ---- files ----

std::string stem_of(std::int64_t step) { return fmt::format("{}{:08}", kPrefix, step); }

bool is_leftover(const std::string& name) { return name.starts_with("." + std::string(kPrefix)); }      // an AtomicFile that was killed

// Stems of the checkpoints that exist, newest first.
std::vector<std::string> stems(const fs::path& folder) {
  std::vector<std::string> out;
  if (!fs::is_directory(folder)) return out;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const fs::path& path = entry.path();
    if (path.extension() == ".json" && path.stem().string().starts_with(kPrefix)) out.push_back(path.stem().string());
  }
  std::sort(out.rbegin(), out.rend());
  return out;
}

void remove_all_but(const fs::path& folder, const std::vector<std::string>& kept) {
  std::vector<fs::path> gone;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const fs::path& path = entry.path();
    const bool ours = path.filename().string().starts_with(kPrefix) && (path.extension() == ".json" || path.extension() == ".safetensors");
    const bool keep = std::find(kept.begin(), kept.end(), path.stem().string()) != kept.end();
    if ((ours && !keep) || is_leftover(path.filename().string())) gone.push_back(path);
  }
  std::sort(gone.begin(), gone.end());                     // .json before .safetensors: no checkpoint ever lacks its tensors
  for (const fs::path& path : gone) fs::remove(path);
}

DType dtype_of(const at::Tensor& t) {
  SLMC_CHECK(t.scalar_type() == at::kFloat || t.scalar_type() == at::kDouble);
  return t.scalar_type() == at::kFloat ? DType::F32 : DType::F64;
}

std::span<const std::byte> bytes_of(const at::Tensor& contiguous) {
  return {static_cast<const std::byte*>(contiguous.const_data_ptr()), contiguous.nbytes()};
}

void write_tensors(const fs::path& file, const std::vector<Parameter>& tensors) {
  std::vector<io::SafetensorsWriter::Entry> entries;
  for (const Parameter& p : tensors) entries.push_back({p.name, dtype_of(p.value), p.value.sizes().vec()});
  io::SafetensorsWriter writer = io::SafetensorsWriter::single(file, std::move(entries));
  for (const Parameter& p : tensors) writer.write(p.name, bytes_of(p.value.to(at::kCPU).contiguous()));
  writer.finish();
}

// All of a file's tensors are checked against what is wanted before the first is filled. An error ends the run: no one trains on with
// half of them filled.
void read_tensors(const fs::path& file, const std::vector<Parameter>& tensors) {
  const io::SafetensorsFile stored = io::SafetensorsFile::open(file);
  for (const Parameter& p : tensors) {
    const io::StoredTensor* t = stored.find(p.name);
    if (!t || t->shape != p.value.sizes().vec() || t->dtype != dtype_of(p.value)) {
      throw Error(ErrorKind::Model, fmt::format("the checkpoint must hold the tensor '{}' of this run, but does not", p.name)).in_file(file.string());
    }
  }
  for (const Parameter& p : tensors) {
    const io::TensorData data = stored.read(p.name);
    at::Tensor host = p.value.device().is_cpu() && p.value.is_contiguous() ? p.value : p.value.to(at::kCPU).contiguous().clone();
    if (!data.bytes.empty()) std::memcpy(host.mutable_data_ptr(), data.bytes.data(), data.bytes.size());
    at::Tensor value = p.value;
    if (!host.is_same(value)) value.copy_(host);
  }
}

// Error(Model): damaged. Every other error says nothing about the checkpoint: Data, it can't be read; Unsupported, it is of a newer slmc.
Json read_record(const fs::path& file) {
  Json record = parse_json(read_text(file), file.string(), ErrorKind::Model);
  const auto version = record.is_object() && record.contains("slmc_checkpoint") ? record["slmc_checkpoint"] : Json();
  if (version.is_number_integer() && version.get<std::int64_t>() > kVersion) {
    throw Error(ErrorKind::Unsupported, fmt::format("the checkpoint must be of version {} or older, but is of version {}", kVersion, version.dump()),
                "go on with the newer slmc that wrote it, or remove that folder to start anew").in_file(file.string());
  }
  if (!version.is_number_integer() || version.get<int>() != kVersion) {
    throw Error(ErrorKind::Model, fmt::format("a checkpoint must have version {}, but has {}", kVersion, version.dump())).in_file(file.string());
  }
  return record;
}

void require_same_run(const Json& found, const Json& wanted, const fs::path& folder) {
  for (const auto& [key, value] : wanted.items()) {
    if (found.is_object() && found.contains(key) && found[key] == value) continue;
    const std::string was = found.is_object() && found.contains(key) ? found[key].dump() : "nothing";
    throw Error(ErrorKind::Usage,
                fmt::format("the checkpoint in {} must come from this run, but its '{}' is {} instead of {}", folder.string(), key, was, value.dump()),
                "give the value that it was started with, or remove that folder to start anew");
  }
}

// The state of one checkpoint when its record and its tensors' file are whole; nothing, after a warning, when either is damaged.
std::optional<TrainState> whole_state(const fs::path& folder, const std::string& stem, const Json& identity, stage::Events& events) {
  const fs::path file = folder / (stem + ".safetensors");
  std::string why;
  try {
    const Json record = read_record(folder / (stem + ".json"));
    require_same_run(record.at("identity"), identity, folder);
    TrainState state = state_from(record.at("state"));
    std::error_code ignored;
    if (fs::status(file, ignored).type() == fs::file_type::not_found) {
      why = "its tensors are missing";
    } else if (sha256_file(file) == record.at("sha256")) {
      return state;
    } else {
      why = "its tensors must have the SHA-256 of its record, but do not";
    }
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::Model) throw;
    why = e.message();
  } catch (const nlohmann::json::exception&) {
    why = "its record lacks a field";
  }
  events.warning(fmt::format("passed over the damaged checkpoint {}: {}", stem, why));
  return std::nullopt;
}

}  // namespace

void save_checkpoint(const fs::path& folder, const TrainState& state, const std::vector<Parameter>& tensors, const Json& identity) {
  fs::create_directories(folder);
  const std::string stem = stem_of(state.step);
  const fs::path file = folder / (stem + ".safetensors");
  fs::remove(folder / (stem + ".json"));                   // the same step again: the record must never describe other bytes
  write_tensors(file, tensors);
  write_json(folder / (stem + ".json"), {{"slmc_checkpoint", kVersion},
                                         {"sha256", sha256_file(file)},
                                         {"state", to_json(state)},
                                         {"identity", identity}});
  std::vector<std::string> kept = stems(folder);
  if (kept.size() > kKept) kept.resize(kKept);
  remove_all_but(folder, kept);
}

std::optional<TrainState> load_checkpoint(const fs::path& folder, const std::vector<Parameter>& tensors, const Json& identity,
                                          stage::Events& events) {
  for (const std::string& stem : stems(folder)) {
    if (auto state = whole_state(folder, stem, identity, events)) {
      read_tensors(folder / (stem + ".safetensors"), tensors);
      remove_all_but(folder, stems(folder));
      return state;
    }
    fs::remove(folder / (stem + ".json"));
  }
  if (fs::is_directory(folder)) remove_all_but(folder, {});
  return std::nullopt;
}

std::optional<Json> checkpoint_identity(const fs::path& folder) {
  for (const std::string& stem : stems(folder)) {
    try {
      return read_record(folder / (stem + ".json")).at("identity");
    } catch (const std::exception&) {                      // load_checkpoint says what is wrong with it
    }
  }
  return std::nullopt;
}

}  // namespace slmc::engine
