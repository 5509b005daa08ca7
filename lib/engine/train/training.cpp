#include "engine/train/training.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/hash.h"
#include "engine/kernels.h"
#include "engine/train/parameters.h"
#include "engine/train/trainer.h"
#include "engine/train/window_batches.h"
#include "ir/write.h"

namespace slmc::engine {
namespace {

using stage::Settings;

constexpr std::int64_t kLeastUpdates = 64, kMostBatchTokens = 8192, kMicroTokens = 2048;

double number_or(const Settings& s, const char* name, double automatic) { return s.is_auto(name) ? automatic : s.number(name); }
std::int64_t integer_or(const Settings& s, const char* name, std::int64_t automatic) { return s.is_auto(name) ? automatic : s.integer(name); }

double automatic_final(const Settings& s) {
  if (s.text("schedule") == "cosine") return 0.1;
  return s.text("schedule") == "wsd" && s.text("decay_shape") == "exponential" ? 0.03 : 0.0;
}

Schedule schedule_of(const Settings& s, std::int64_t steps, double peak) {
  Schedule schedule;
  schedule.kind = schedule_kind(s.text("schedule"));
  schedule.shape = decay_shape(s.text("decay_shape"));
  schedule.peak = peak;
  schedule.final = number_or(s, "final_lr", automatic_final(s));
  if (schedule.shape == Schedule::Decay::Exponential && schedule.final <= 0) {
    throw Error(ErrorKind::Usage, "final_lr must be above 0 for an exponential decay, but is 0", "leave it at auto");
  }
  schedule.steps = steps;
  schedule.warmup = share_of(steps, s.number("warmup"), 0);
  schedule.decay = share_of(steps, s.number("decay"), 0);
  return schedule;
}

std::vector<std::string> patterns(const Settings& s) {
  std::vector<std::string> out;
  if (!s.has("freeze")) return out;
  const std::string& text = s.text("freeze");
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t comma = std::min(text.find(',', at), text.size());
    std::string word = text.substr(at, comma - at);
    std::erase(word, ' ');
    if (!word.empty()) out.push_back(word);
    at = comma + 1;
  }
  return out;
}

DType written_type(const Settings& s) {
  const std::string& name = s.text("dtype");
  return name == "f32" ? DType::F32 : name == "bf16" ? DType::BF16 : DType::F16;
}

// What a checkpoint must agree with: everything that decides the numbers, nothing that only says where files are or when to save.
Json identity_of(OpContext& context, const TrainingJob& job, const data::WindowSource& source) {
  Json settings = to_json(context.job.settings);
  for (const char* name : {"teacher", "save_every", "dtype"}) settings.erase(name);
  Json identity = {{"model", job.base.content_hash()},
                   {"data", data::content_hash(source.spec())},
                   {"tokenizer", job.base.tokenizer()->content_hash()},
                   {"settings", std::move(settings)},
                   {"seed", context.job.seed},
                   {"device", context.device.str()},
                   {"threads", at::get_num_threads()},
                   {"gemm", to_string(current_kernels().gemm)}};
  if (!job.teacher.empty()) identity["teacher"] = job.teacher;
  return identity;
}

// A checkpoint keeps to the kernels it was made with; job.gemm "auto" may have measured others this time.
void keep_kernels(OpContext& context) {
  if (context.job.resume.empty() || context.job.gemm != "auto") return;
  const auto found = checkpoint_identity(context.job.resume);
  if (!found || !found->contains("gemm") || !(*found)["gemm"].is_string()) return;
  const std::string before = (*found)["gemm"].get<std::string>();
  if ((before == "mkl" || before == "onednn") && before != to_string(current_kernels().gemm)) choose_kernels(before);
}

void warn_of_epochs(OpContext& context, const data::WindowSource& source, std::int64_t windows) {
  const std::vector<double> epochs = source.epochs_after(windows);
  for (std::size_t i = 0; i < epochs.size(); ++i) {
    if (epochs[i] > 4) {
      context.events.warning(fmt::format("the domain '{}' will be read {:.1f} times; beyond four, more text helps more than more steps",
                                         source.spec().domains[i].name, epochs[i]));
    }
  }
}

}  // namespace

Budget budget_of(std::int64_t tokens, std::int64_t batch_tokens, std::int64_t seq) {
  Budget b;
  const std::int64_t wished = batch_tokens >= 0 ? batch_tokens : std::min(kMostBatchTokens, tokens / kLeastUpdates);
  b.batch = std::max<std::int64_t>(1, (wished + seq / 2) / seq);
  b.steps = (tokens + b.batch * seq - 1) / (b.batch * seq);
  b.tokens = b.steps * b.batch * seq;
  return b;
}

double automatic_rate(double removed, bool from_scratch) {
  if (from_scratch) return 2e-3;
  return removed >= 0.15 ? 2e-4 : 1e-4;
}

Json train_and_write(OpContext& context, const TrainingJob& job) {
  const Settings& s = context.job.settings;
  if (!job.base.tokenizer()) throw Error(ErrorKind::Model, "the model must have a tokenizer to read texts with, but has none", job.base.source());
  if (!context.job.data->contains("train")) throw Error(ErrorKind::Usage, "data 'train' must be given, but is not");
  const data::WindowSource source(data::data_spec_from_json((*context.job.data)["train"], "the job", "data.train"), *job.base.tokenizer());
  const std::int64_t seq = source.spec().seq;
  const Budget budget = budget_of(s.integer("tokens"), integer_or(s, "batch_tokens", -1), seq);
  warn_of_epochs(context, source, budget.steps * budget.batch);
  keep_kernels(context);

  TrainSettings run;
  run.batch = budget.batch;
  run.micro_batch = std::min(budget.batch, integer_or(s, "micro_batch", std::max<std::int64_t>(1, kMicroTokens / seq)));
  const double peak = number_or(s, "lr", automatic_rate(job.removed, job.from_scratch));
  run.schedule = schedule_of(s, budget.steps, peak);
  run.clip = s.number("clip");
  run.save_every = integer_or(s, "save_every", std::max<std::int64_t>(1, (budget.steps + 4) / 5));
  run.folder = context.job.resume;
  run.identity = std::make_shared<const Json>(identity_of(context, job, source));

  Loaded model = load(job.base, at::kFloat, context.device, Storage::Owned);
  const auto groups = parameter_groups(model.weights, s.number("weight_decay"), patterns(s));
  const auto task = job.task(model);
  const WindowBatches batches(source, s.boolean("documents"), context.device);
  std::vector<ParameterGroup> all = groups;
  if (job.own) {
    for (ParameterGroup& group : job.own(peak)) all.push_back(std::move(group));
  }
  Single alone;
  const TrainResult result = train(*task, all, batches, run, alone, context.events);
  const ir::Model trained = with_values(job.base, groups);
  if (job.write) {
    job.write(trained, written_type(s));
  } else {
    ir::write_hf(trained, context.job.out, written_type(s), context.writing());
  }

  Json fields = to_json(result, task->terms());
  fields["resolved"] = {{"lr", peak}, {"batch_tokens", budget.batch * seq}, {"micro_batch", run.micro_batch}, {"final_lr", run.schedule.final},
                        {"save_every", run.save_every}};
  fields["epochs"] = source.epochs_after(result.state.windows);
  return fields;
}

}  // namespace slmc::engine
