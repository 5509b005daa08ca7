#pragma once
// Where a model comes from: one entry per stage, oldest first, in lineage.json inside a model folder, or
// FILE.lineage.json beside a file.
//
// {"slmc_lineage": 1, "recipe": {"name", "seed"}, "id": "width", "stage": "prune", "settings": {...},
//  "auto": ["align"], "resolved": {...}, "key": "...", "inputs": {"model": {"key", "source"}, "teacher": {...}},
//  "data": {"calib": {"spec": {...}, "key": "...", "licences": {...}}}, "seed": 7,
//  "versions": {"slmc", "source", "torch", "device", "gemm"}, "model": {"parameters": ...},
//  "eval": {...}, "reference": {"key", "source"}, "gates": {...},      the recipe's sections, paths absolute
//  "metrics": {"before": {...}, "after": {...}},
//  "measured": {"seconds": ..., "cpu_seconds": ..., "peak_bytes": ...}}
#include <filesystem>
#include <string>
#include <vector>

#include "core/json.h"
#include "stage/info.h"

namespace slmc::recipe {

inline constexpr int kLineageVersion = 1;

std::filesystem::path lineage_path(const std::filesystem::path& model);
// An array; empty when the model has none. A GGUF without the file beside it is asked for its metadata.
// Error(Model) when broken or newer.
Json read_lineage(const std::filesystem::path& model);
void write_lineage(const std::filesystem::path& model, const Json& entries);
// Puts the entries into the GGUF itself, as metadata slmc.lineage, without what a run measures about itself
// ("measured", "metrics") and what it asked for beyond the stages ("eval", "reference", "gates"): the file must come out the same whenever it is made again.
void embed_lineage(const std::filesystem::path& gguf, const Json& entries);

// A recipe that makes the same model again: stages, settings as they were given (what was `auto` is again), data, seed, and the
// evaluation and gates of the run that made it. Paths relative to `folder` where they lie below it, absolute ones when it is empty.
// Error(Unsupported) when the entries name stages that this program doesn't have.
std::string recipe_from_lineage(const Json& entries, const stage::Registry& registry,
                                const std::filesystem::path& folder);

}  // namespace slmc::recipe
