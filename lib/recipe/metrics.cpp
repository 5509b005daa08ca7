#include "recipe/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace slmc::recipe {

const std::vector<MetricInfo>& metric_table() {
  static const std::vector<MetricInfo> table = {
      {"ppl", "", "perplexity of the text, per token", "ppl", false},
      {"ppl_ratio", "", "perplexity over that of the reference, same windows", "ppl", true},
      {"log_ppl_increase", "nats", "ln(ppl_ratio)", "ppl", true},
      {"nll", "nats", "negative log-likelihood per token", "ppl", false},
      {"bits_per_byte", "bits", "negative log-likelihood per byte of text", "ppl", false},
      {"bits_per_byte_ratio", "", "bits per byte over those of the reference, whole text (windows: 0)", "ppl", true},
      {"kl", "nats", "KL divergence from the reference, mean per token", "ppl", true},
      {"top1_agreement", "", "share of tokens with the reference's likeliest one", "ppl", true},
      {"acc", "", "share of multiple-choice items with the right choice likeliest", "choices", false},
      {"acc_norm", "", "the same with log-likelihoods divided by the choice's characters", "choices", false},
      {"pairs", "", "share of minimal pairs whose good sentence is likelier", "pairs", false},
      {"accuracy", "", "share of pieces whose class was found", "classify", false},
      {"latency", "s", "wall time of classifying one piece alone, median", "classify", false},
      {"memory", "bytes", "largest memory of the process that classified", "classify", false},
      {"parameters", "", "weights of the last model; a tied head counts once", "", false},
      {"parameters_ratio", "", "parameters over those of the input", "", false},
      {"file_bytes", "bytes", "size of the last model: a GGUF file, or the .safetensors files of a folder", "", false},
      {"bytes_ratio", "", "file_bytes over those of the input", "", false},
      {"kv_bytes_per_token", "bytes", "16-bit key/value cache per token", "", false},
      {"seconds", "s", "time of all stages together, reused ones as first measured", "", false},
      {"peak_bytes", "bytes", "largest memory of any stage", "", false},
  };
  return table;
}

const MetricInfo* find_metric(std::string_view base) {
  const auto& table = metric_table();
  const auto it =
      std::find_if(table.begin(), table.end(), [&](const MetricInfo& m) { return m.name == base; });
  return it == table.end() ? nullptr : &*it;
}

std::map<std::string, double> eval_metrics(const EvalSection& section, const Json& document) {
  std::map<std::string, double> out;
  const auto tasks = document.find("tasks");
  if (tasks == document.end() || !tasks->is_array() || tasks->size() != section.tasks.size()) {
    throw Error(ErrorKind::Internal, fmt::format("the evaluation's document must have {} tasks, but has not",
                                                 section.tasks.size()));
  }
  for (std::size_t i = 0; i < section.tasks.size(); ++i) {
    const EvalTask& task = section.tasks[i];
    for (const MetricInfo& metric : metric_table()) {
      if (metric.task != task.kind) continue;
      const Json& result = (*tasks)[i];
      double value = std::nan("");
      if (metric.name == "log_ppl_increase") {
        if (result.contains("ppl_ratio") && result["ppl_ratio"].is_number())
          value = std::log(result["ppl_ratio"].get<double>());
      } else {
        const char* field = metric.name == "pairs" ? "acc" : metric.name.c_str();
        if (result.contains(field) && result[field].is_number()) value = result[field].get<double>();
      }
      if (!std::isfinite(value)) continue;  // no reference, or an overflow: JSON has no infinity
      out.emplace(metric.name, value);      // the first task's stays
      out[metric.name + ":" + task.name] = value;
    }
  }
  return out;
}

}  // namespace slmc::recipe
