#pragma once
// Where a model comes from: one entry per stage, oldest first, in lineage.json inside a model folder, or FILE.lineage.json beside a file.
//
// {"slmc_lineage": 1, "id": "width", "stage": "prune", "settings": {...}, "key": "...", "inputs": {"model": {"key", "source"}, "teacher": {...}},
//  "data": {"calib": {"spec": {...}, "key": "...", "licences": {...}}}, "seed": 7, "metrics": {"before": {...}, "after": {...}},
//  "versions": {"slmc", "source", "torch", "device", "gemm"}, "model": {"parameters": ..., "bytes": ...},
//  "measured": {"seconds": ..., "cpu_seconds": ..., "peak_bytes": ...}}
#include <filesystem>
#include <string>
#include <vector>

#include "core/json.h"
#include "stage/info.h"

namespace slmc::recipe {

std::filesystem::path lineage_path(const std::filesystem::path& model);
Json read_lineage(const std::filesystem::path& model);       // an array; empty when the model has none. Error(Model) when broken or newer
void write_lineage(const std::filesystem::path& model, const Json& entries);

// A recipe that makes the same model again: stages, settings as resolved, data and seed. Error(Unsupported) when the entries name stages that
// this program doesn't have.
std::string recipe_from_lineage(const Json& entries, const stage::Registry& registry, const std::filesystem::path& folder);

}  // namespace slmc::recipe
