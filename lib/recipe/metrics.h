#pragma once
// The numbers that a run has for each model: from the evaluation's document and from the artefact itself.
// Gates name them.
#include <map>
#include <string>
#include <vector>

#include "core/json.h"
#include "recipe/recipe.h"

namespace slmc::recipe {

struct MetricInfo {
  std::string name, unit, help;
  // Kind of task that gives it: "ppl", "choices", "pairs"; "" = known without evaluation
  std::string task;
  bool needs_reference = false;
};
const std::vector<MetricInfo>& metric_table();
const MetricInfo* find_metric(std::string_view base);  // nullptr when unknown

// The metrics in the document of one eval op (stage/measures.h): "ppl:NAME" for each task, and "ppl" for the
// first task that has it.
std::map<std::string, double> eval_metrics(const EvalSection& section, const Json& document);

}  // namespace slmc::recipe
