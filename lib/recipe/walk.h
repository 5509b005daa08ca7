#pragma once
// Inside recipe: follows shapes and containers through a chain, from settings alone.
#include <string>
#include <vector>

#include "ir/model.h"
#include "recipe/decode.h"
#include "recipe/resolve.h"

namespace slmc::recipe {

// The model as it is after some stages: shapes are right, weights are whatever the input has.
struct Walk {
  ir::Model model;
  Artefact at;               // what the next stage reads
  std::string quantized_by;  // id of the stage that quantized, "" = none yet
  DType dtype = DType::F32;  // what stages write model folders in, unless told
};

Walk start_walk(const ir::Model& input);
// Applies stage `i` to the walk and returns its artefact. Fills settings that are `auto` and follow from
// shapes. Problems are those of settings and containers; after one, the walk goes on with the shape
// unchanged.
Artefact walk_stage(Walk& walk, Recipe& recipe, std::size_t i, std::vector<std::string>& assumed,
                    Problems& problems);

Json sizes_json(const ir::Model& model);
bool given(const StageEntry& entry, const std::string& setting);      // has a value of its own, not auto
// Rough time and memory of a stage (predict.cpp). `teacher`: the model that it learns from, of its own shape; may be null.
void predict(const Walk& before, const StageEntry& entry, const Recipe& recipe, const ir::Model* teacher, int threads,
             StageForecast& out);

}  // namespace slmc::recipe
