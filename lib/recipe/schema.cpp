// JSON Schema of a whole recipe, for editors: put together from the same tables that decode it.
#include <nlohmann/json.hpp>

#include "recipe/decode.h"
#include "recipe/metrics.h"
#include "stage/measures.h"

namespace slmc::recipe {
namespace {

Json object_of(const std::vector<stage::Setting>& table) {
  Json out = stage::json_schema(table);
  out.erase("$schema");
  return out;
}

Json list_of(Json items) { return {{"type", "array"}, {"items", std::move(items)}, {"minItems", 1}}; }

Json data_schema() {
  Json domain = object_of(domain_table()), section = object_of(data_table());
  domain["properties"]["files"] = list_of({{"type", "string"}});
  domain["required"] = Json::array({"files"});
  section["properties"]["files"] = list_of({{"type", "string"}});
  section["properties"]["mix"] = {{"type", "object"}, {"additionalProperties", domain}};
  return {{"type", "object"}, {"additionalProperties", section}};
}

Json stage_schema(const stage::StageInfo& info) {
  return {{"type", "object"},
          {"description", info.summary},
          {"additionalProperties", false},
          {"required", Json::array({"id", "use"})},
          {"properties",
           {{"id", {{"type", "string"}, {"pattern", "^[A-Za-z0-9_-]{1,40}$"}}},
            {"use", {{"const", info.name}}},
            {"with", object_of(info.settings)}}}};
}

Json eval_schema() {
  Json task = object_of(stage::eval_task_table()), out = object_of(eval_table());
  task["properties"]["name"] = {{"type", "string"}};
  out["properties"]["tasks"] = list_of(std::move(task));
  return out;
}

Json gates_schema() {
  const Json limit = {{"type", Json::array({"number", "string"})}};
  const Json gate = {{"type", "object"},
                     {"additionalProperties", false},
                     {"minProperties", 1},
                     {"properties", {{"max", limit}, {"min", limit}}}};
  std::string names;
  for (const MetricInfo& m : metric_table()) names += (names.empty() ? "" : "|") + m.name;
  return {{"type", "object"},
          {"additionalProperties", false},
          {"patternProperties", {{"^(" + names + ")(:.+)?$", gate}}}};
}

}  // namespace

Json recipe_schema(const stage::Registry& registry) {
  Json out = stage::json_schema(recipe_table());
  out["title"] = "slmc recipe";
  Json stages = Json::array();
  for (const stage::StageInfo& info : registry.all()) stages.push_back(stage_schema(info));
  out["properties"]["slmc"] = {{"const", kRecipeVersion}, {"description", "Version of the format."}};
  out["properties"]["data"] = data_schema();
  out["properties"]["stages"] = list_of({{"oneOf", stages}});
  out["properties"]["sweep"] = {{"type", "object"},
                                {"description", "Values of settings (stage.setting: [...]) or top-level keys; the chain runs for every combination."},
                                {"minProperties", 1},
                                {"additionalProperties", {{"type", "array"}, {"minItems", 1}}}};
  out["properties"]["eval"] = eval_schema();
  out["properties"]["gates"] = gates_schema();
  out["required"] = Json::array({"slmc", "model", "stages"});
  return out;
}

}  // namespace slmc::recipe
