// eval: and gates:. A gate must name a number that this recipe's evaluation gives.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/units.h"
#include "recipe/decode.h"
#include "recipe/metrics.h"
#include "stage/measures.h"

namespace slmc::recipe {
using stage::Setting;
using stage::Type;

namespace {

const std::vector<std::string>& task_kinds() {
  static const std::vector<std::string> names = {"ppl", "choices", "pairs", "classify"};
  return names;
}

// Settings that only make sense beside another kind of task.
void check_task_settings(const Node& map, const std::string& kind, Problems& problems) {
  const auto misplaced = [&](const char* key, const char* belongs) {
    problems.push_back(
        {fmt::format("the key '{}' must stand in a task of {}, but stands in one of {}", key, belongs, kind),
         map.key_place(key),
         {}});
  };
  if (kind != "choices" && kind != "pairs" && map.find("first")) misplaced("first", "choices or pairs");
  if (kind != "classify" && map.find("per_class")) misplaced("per_class", "classify");
  if (kind != "ppl" && map.find("window")) misplaced("window", "ppl");
  if (kind != "ppl" && map.find("windows")) misplaced("windows", "ppl");
}

std::string unused_name(const std::string& stem, const std::vector<EvalTask>& tasks) {
  const auto taken = [&](const std::string& name) {
    return std::any_of(tasks.begin(), tasks.end(), [&](const EvalTask& t) { return t.name == name; });
  };
  std::string name = stem;
  for (int n = 2; taken(name); ++n) name = fmt::format("{}-{}", stem, n);
  return name;
}

EvalTask decode_task(const Node& map, const std::vector<EvalTask>& before, const DecodeContext& context) {
  EvalTask task;
  task.place = map.place;
  for (const std::string& kind : task_kinds()) {
    if (map.find(kind) == nullptr) continue;
    if (!task.kind.empty()) {
      context.problems.push_back(
          {fmt::format("a task must be one of ppl, choices, pairs and classify, but is both {} and {}", task.kind,
                       kind),
           map.key_place(kind),
           {}});
      return task;
    }
    task.kind = kind;
  }
  if (task.kind.empty())
    context.problems.push_back(
        {"a task must have one of ppl, choices, pairs and classify, with a file, but has none", map.place, {}});
  task.settings = read_group(map, stage::eval_task_table(), {"name"}, "in a task of eval", context.problems);
  if (task.kind.empty()) return task;
  check_task_settings(map, task.kind, context.problems);
  if (task.settings.has(task.kind)) {
    task.file = absolute_path(task.settings.text(task.kind), context.folder);
    task.settings.set(task.kind, {.value = task.file.string(), .from = stage::Value::From::Recipe});
    task.place = map.find(task.kind)->place;
  }
  const Node* name =
      read_kind(map, "name", Node::Kind::Scalar, "the name of a task must be text", context.problems);
  task.name = name ? name->text : unused_name(task.file.stem().string(), before);
  if (name &&
      std::any_of(before.begin(), before.end(), [&](const EvalTask& t) { return t.name == name->text; })) {
    context.problems.push_back(
        {fmt::format("the name of a task must be its own, but '{}' is taken", name->text), name->place, {}});
  }
  return task;
}

std::optional<double> decode_limit(const Node& map, const char* key, const MetricInfo& metric,
                                   Problems& problems) {
  const Node* node =
      read_kind(map, key, Node::Kind::Scalar, fmt::format("the limit '{}' must be a number", key), problems);
  if (node == nullptr) return std::nullopt;
  if (metric.unit == "bytes") {
    if (const auto bytes = parse_bytes(node->text)) return static_cast<double>(*bytes);
  }
  if (const auto number = parse_number(node->text)) return number;
  if (metric.name == "seconds") {
    if (const auto seconds = parse_seconds(node->text)) return seconds;
  }
  if (metric.name == "parameters") {
    if (const auto count = parse_count(node->text)) return static_cast<double>(*count);
  }
  const char* wanted = metric.unit == "bytes" ? "a size such as 82MB" : "a number";
  problems.push_back(
      {fmt::format("the limit '{}' must be {}, but is '{}'", key, wanted, node->text), node->place, {}});
  return std::nullopt;
}

// Whether the recipe's evaluation gives this metric.
void check_measured(const std::string& name, const std::string& task, const MetricInfo& metric,
                    const Recipe& recipe, const Place& place, Problems& problems) {
  if (metric.task.empty()) {
    if (!task.empty())
      problems.push_back(
          {fmt::format("the metric '{}' must stand alone, but has the task '{}'", metric.name, task),
           place,
           {}});
    return;
  }
  std::vector<std::string> names;
  if (recipe.eval) {
    for (const EvalTask& t : recipe.eval->tasks) {
      if (t.kind == metric.task) names.push_back(t.name);
    }
  }
  if (names.empty()) {
    problems.push_back(
        {fmt::format("the gate '{}' must have a task of {} in 'eval', but there is none", name, metric.task),
         place,
         {}});
  } else if (!task.empty() && std::find(names.begin(), names.end(), task) == names.end()) {
    problems.push_back(
        {fmt::format("the gate '{}' must name a task of {}, but '{}' is none", name, metric.task, task),
         place, suggestion(task, names)});
  } else if (metric.needs_reference && recipe.eval->reference.empty()) {
    problems.push_back({fmt::format("the gate '{}' must have a reference in 'eval', but there is none", name),
                        place, "write reference: $model"});
  }
}

}  // namespace

const std::vector<Setting>& eval_table() {
  static const std::vector<Setting> table = {
      {.name = "every_stage",
       .type = Type::Boolean,
       .fallback = "true",
       .help = "Measure after every stage; false = the input and the last model only."},
      {.name = "reference",
       .type = Type::Model,
       .fallback = "$model",
       .help = "Model that KL, agreement and ratios compare with; none = no comparison."},
  };
  return table;
}

EvalSection decode_eval(const Node& map, const Recipe& so_far, const DecodeContext& context) {
  EvalSection out;
  out.place = map.place;
  const stage::Settings settings = read_group(map, eval_table(), {"tasks"}, "in 'eval'", context.problems);
  if (settings.has("every_stage")) out.every_stage = settings.boolean("every_stage");
  if (settings.has("reference"))
    out.reference = settings.text("reference") == "none"
                        ? ""
                        : absolute_model(settings.text("reference"), context.folder);
  const Node* reference = map.find("reference");
  check_reference(out.reference, so_far.stages, reference ? reference->place : map.place, "the reference",
                  context.problems);
  const Node* tasks =
      read_kind(map, "tasks", Node::Kind::List, "the key 'tasks' of 'eval' must be a list", context.problems);
  if (!map.find("tasks") || (tasks && tasks->items.empty())) {
    context.problems.push_back({"the key 'eval' must have at least one of 'tasks', but has none", map.place,
                                "write tasks: [{ppl: FILE}]"});
  }
  if (tasks == nullptr) return out;
  for (const Node& item : tasks->items) {
    if (item.kind != Node::Kind::Map) {
      context.problems.push_back(
          {"a task must be a group such as {ppl: FILE, window: 512}, but is not", item.place, {}});
      continue;
    }
    out.tasks.push_back(decode_task(item, out.tasks, context));
  }
  return out;
}

std::vector<Gate> decode_gates(const Node& map, const Recipe& so_far, const DecodeContext& context) {
  std::vector<Gate> out;
  std::vector<std::string> known;
  for (const MetricInfo& m : metric_table()) known.push_back(m.name);
  for (const auto& [name, limits, place] : map.entries) {
    const std::size_t colon = name.find(':');
    const std::string base = name.substr(0, colon),
                      task = colon == std::string::npos ? "" : name.substr(colon + 1);
    const MetricInfo* metric = find_metric(base);
    if (metric == nullptr) {
      context.problems.push_back(
          {fmt::format("unknown metric '{}' in 'gates'", base), place, suggestion(base, known)});
      continue;
    }
    check_measured(name, task, *metric, so_far, place, context.problems);
    if (limits.kind != Node::Kind::Map) {
      context.problems.push_back(
          {fmt::format("the gate '{}' must be a group such as {{max: 2.0}}, but is not", name),
           limits.kind == Node::Kind::Null ? place : limits.place,
           {}});
      continue;
    }
    for (const auto& [key, limit, key_place] : limits.entries) {
      if (key != "max" && key != "min")
        context.problems.push_back(
            {fmt::format("unknown key '{}' in gate '{}'", key, name), key_place, "a gate has max or min"});
    }
    Gate gate{name, decode_limit(limits, "min", *metric, context.problems),
              decode_limit(limits, "max", *metric, context.problems), place};
    if (!limits.find("min") && !limits.find("max"))
      context.problems.push_back(
          {fmt::format("the gate '{}' must have max or min, but has neither", name), limits.place, {}});
    if (gate.least && gate.most && *gate.least > *gate.most) {
      context.problems.push_back({fmt::format("the gate '{}' must have min at most max, but has {} and {}",
                                              name, limits.find("min")->text, limits.find("max")->text),
                                  limits.place,
                                  {}});
    }
    out.push_back(std::move(gate));
  }
  return out;
}

}  // namespace slmc::recipe
