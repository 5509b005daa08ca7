#include "engine/train/training.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "core/hash.h"
#include "engine/kernels.h"
#include "engine/evaluate.h"
#include "engine/train/domains.h"
#include "engine/train/keep_best.h"
#include "engine/train/lora.h"
#include "engine/train/parameters.h"
#include "engine/train/trainer.h"
#include "engine/train/window_batches.h"
#include "ir/cost.h"
#include "ir/write.h"

namespace slmc::engine {
namespace {

using stage::Settings;

constexpr double kLoraRate = 3e-4;                          // of LLM-Pruner's published code
constexpr std::int64_t kLeastUpdates = 64, kMostBatchTokens = 8192, kMicroTokens = 2048;

bool has(const Settings& s, const char* name) { return s.all().contains(name) && s.has(name); }
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

// "embed, block.0.*" of a setting as patterns; none where it is unset or the stage has no such setting.
std::vector<std::string> patterns(const Settings& s, const char* name) {
  std::vector<std::string> out;
  if (!has(s, name)) return out;
  const std::string& text = s.text(name);
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
Json identity_of(OpContext& context, const TrainingJob& job, const Feed& feed) {
  Json settings = to_json(context.job.settings);
  for (const char* name : {"teacher", "reference", "reference_losses", "valid", "save_every", "dtype"}) settings.erase(name);
  Json identity = {{"model", job.base.content_hash()},
                   {"data", feed.content},
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

void warn_of_epochs(OpContext& context, const data::WindowSource& source, const std::vector<double>& epochs) {
  for (std::size_t i = 0; i < epochs.size(); ++i) {
    if (epochs[i] > 4) {
      context.events.warning(fmt::format("the domain '{}' will be read {:.1f} times; beyond four, more text helps more than more steps",
                                         source.spec().domains[i].name, epochs[i]));
    }
  }
}

// ---- held-out text: domains that follow their losses, the best weights kept ----

constexpr std::int64_t kValidWindows = 16;                  // of each domain, where `valid` gives no samples

std::vector<std::string> names_of(const data::DataSpec& spec) {
  std::vector<std::string> out;
  for (const data::DomainSpec& domain : spec.domains) out.push_back(domain.name);
  return out;
}

data::WindowSource valid_source(OpContext& context, const data::WindowSource& trained, const text::Tokenizer& tokenizer) {
  if (!context.job.data->contains("valid")) {
    throw Error(ErrorKind::Recipe, "losses that are followed or kept must have held-out text under 'valid', but have none", "valid: {files: [...], samples: 16, seq: 512}");
  }
  data::DataSpec spec = data::data_spec_from_json((*context.job.data)["valid"], "the job", "data.valid");
  if (spec.samples == 0) spec.samples = kValidWindows;
  return {matching_domains(std::move(spec), trained.spec()), tokenizer};
}

// The losses that domains should reach, and what is said about where they come from.
data::References references_of(OpContext& context, const TrainingJob& job, const data::WindowSource& valid) {
  const Settings& s = context.job.settings;
  const std::vector<std::string> names = names_of(valid.spec());
  if (s.has("reference") == s.has("reference_losses")) {
    throw Error(ErrorKind::Recipe, fmt::format("weights of domains that follow losses must have 'reference' or 'reference_losses', but have {}",
                                               s.has("reference") ? "both" : "neither"));
  }
  if (s.has("reference_losses")) {
    const std::string& file = s.text("reference_losses");
    const std::int64_t parameters = job.parameters > 0 ? job.parameters : ir::cost(job.base).parameters;
    data::References out = data::references_from_json(read_json(file, ErrorKind::Data), file, names, static_cast<double>(parameters));
    for (const auto& [name, law] : out.laws) {
      context.events.note(fmt::format("{}: loss {:.4f} + {:.4f} / (N / 1e9)^{:.4f}; at {} parameters a change of the given losses moves it {:.1f}-fold", name, law.c,
                                      law.a, law.b, parameters, out.sensitivities.at(name)));
    }
    return out;
  }
  const ir::Model model = context.other("reference");
  if (!model.tokenizer() || model.tokenizer()->content_hash() != job.base.tokenizer()->content_hash()) {
    throw Error(ErrorKind::Usage, "the reference must have the model's tokenizer, but has another", "losses per token only compare between equal tokens");
  }
  Loaded loaded = load(model, at::kFloat, context.device);
  return {.losses = domain_losses(loaded, valid, valid.spec().samples, nullptr)};
}

// The last weights in the model's lineage, in the order of the domains.
std::vector<double> last_weights(const ir::Model& model, const std::vector<std::string>& names) {
  const Json& lineage = model.lineage();
  for (auto entry = lineage.rbegin(); entry != lineage.rend(); ++entry) {
    if (!entry->is_object() || !entry->contains("domains") || !(*entry)["domains"].is_array() || (*entry)["domains"].empty()) continue;
    const Json weights = (*entry)["domains"].back().value("weights", Json::object());
    std::vector<double> out;
    for (const std::string& name : names) {
      if (!weights.contains(name) || !weights[name].is_number() || !(weights[name].get<double>() > 0)) {
        throw Error(ErrorKind::Model, fmt::format("the model's last training must have left a weight of the domain '{}', but did not", name), model.source());
      }
      out.push_back(weights[name].get<double>());
    }
    return out;
  }
  throw Error(ErrorKind::Usage, "the model's lineage must hold weights of domains to begin with, but holds none", "domains_start: data");
}

data::WeightRule rule_of(const Settings& s) {
  return {s.text("domains") == "bandit" ? data::WeightRule::Kind::Bandit : data::WeightRule::Kind::Doremi, s.number("domains_rate"), s.boolean("domains_clamp"),
          s.number("domains_smooth")};
}

// The windows of the training data, whose turns may change while they are read.
struct Texts {
  data::WindowSource source;
  std::shared_ptr<data::Mixture> mixture;
};

Texts read_texts(OpContext& context, const TrainingJob& job) {
  if (!context.job.data->contains("train")) throw Error(ErrorKind::Usage, "data 'train' must be given, but is not");
  data::WindowSource source(data::data_spec_from_json((*context.job.data)["train"], "the job", "data.train"), *job.base.tokenizer());
  auto mixture = std::make_shared<data::Mixture>(source.mixture());
  return {std::move(source), std::move(mixture)};
}

Feed feed_of(const Texts& texts, OpContext& context) {
  const Settings& s = context.job.settings;
  return {std::make_unique<WindowBatches>(texts.source, s.boolean("documents"), context.device, texts.mixture), texts.source.spec().seq, s.integer("tokens"),
          data::content_hash(texts.source.spec())};
}

// ---- adapters, and the best weights ----

LoraWeights adapted(OpContext& context, const TrainingJob& job, PlainWeights& weights) {
  const Settings& s = context.job.settings;
  if (s.has("freeze")) throw Error(ErrorKind::Recipe, "the setting 'freeze' must stand beside the training of all weights, but stands beside lora", "lora_targets says what is adapted");
  if (job.from_scratch) throw Error(ErrorKind::Recipe, "adapters must stand on a model that has learned something, but init is random");
  return {weights, job.base, LoraSettings{s.integer("lora"), s.number("lora_alpha"), patterns(s, "lora_targets")}, context.job.seed};
}

// The merged model is the result; the adapters lie beside it for those who keep one base and many adapters.
void write_adapter(OpContext& context, const LoraWeights& lora, const ir::Model& base) {
  try {
    write_peft(std::filesystem::path(context.job.out) / "adapter", lora, base);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::Unsupported) throw;
    context.events.note(error.message() + "; the adapters are in the weights only");
  }
}

std::vector<Parameter> all_of(const std::vector<ParameterGroup>& groups) {
  std::vector<Parameter> out;
  for (const ParameterGroup& group : groups) out.insert(out.end(), group.parameters.begin(), group.parameters.end());
  return out;
}

KeepBestSettings best_settings(const Settings& s, std::int64_t steps) {
  return {integer_or(s, "valid_every", std::max<std::int64_t>(1, steps / 10)), s.has("patience") ? s.integer("patience") : 0};
}

bool keeps_best(const Settings& s) { return has(s, "keep") && s.text("keep") == "best"; }

bool follows_losses(const Settings& s) { return s.all().contains("domains") && s.text("domains") != "constant"; }

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
  std::optional<Texts> texts;
  if (!job.feed) texts = read_texts(context, job);
  const Feed feed = texts ? feed_of(*texts, context) : job.feed();
  const Budget budget = budget_of(feed.tokens, integer_or(s, "batch_tokens", -1), feed.window);
  if (texts) warn_of_epochs(context, texts->source, texts->source.epochs_after(budget.steps * budget.batch));
  keep_kernels(context);

  TrainSettings run;
  run.batch = budget.batch;
  run.micro_batch = std::min(budget.batch, integer_or(s, "micro_batch", std::max<std::int64_t>(1, kMicroTokens / feed.window)));
  const double peak = number_or(s, "lr", has(s, "lora") ? kLoraRate : automatic_rate(job.removed, job.from_scratch));
  run.schedule = schedule_of(s, budget.steps, peak);
  run.clip = s.number("clip");
  run.save_every = integer_or(s, "save_every", std::max<std::int64_t>(1, (budget.steps + 4) / 5));
  run.folder = context.job.resume;
  if (keeps_best(s) && !texts) throw Error(ErrorKind::Recipe, "keep: best must stand beside the training of next tokens, but objective is another");
  const bool follows = texts && follows_losses(s), keeps = keeps_best(s);
  std::optional<data::WindowSource> valid;
  data::References references;
  Json identity = identity_of(context, job, feed);
  if (follows || keeps) {
    valid.emplace(valid_source(context, texts->source, *job.base.tokenizer()));
    identity["valid"] = data::content_hash(valid->spec());
  }
  if (follows) {
    references = references_of(context, job, *valid);
    if (s.text("domains_start") == "model") texts->mixture->change(0, last_weights(job.base, names_of(texts->source.spec())));
    identity["start"] = texts->mixture->shares();
    identity["references"] = references.losses;
  }
  run.identity = std::make_shared<const Json>(std::move(identity));

  Loaded model = load(job.base, at::kFloat, context.device, Storage::Owned);
  std::optional<LoraWeights> lora;
  if (has(s, "lora")) lora.emplace(adapted(context, job, model.weights));
  std::vector<ParameterGroup> groups = lora ? std::vector{lora->parameters(s.number("weight_decay"))}
                                            : parameter_groups(model.weights, s.number("weight_decay"), patterns(s, "freeze"));
  const ModelRef acting = lora ? ModelRef(model.arch, *lora) : ModelRef(model);
  const auto task = job.task(acting);
  const auto losses = [&acting, &job, &valid] {
    const Gates gates = job.gates ? job.gates() : Gates{};
    return domain_losses(acting, *valid, valid->spec().samples, job.gates ? &gates : nullptr);
  };
  std::optional<DynamicDomains> domains;
  if (follows) {
    domains.emplace(DomainSettings{rule_of(s), s.integer("domains_every"), names_of(texts->source.spec()), references.losses}, texts->mixture, losses, context.events);
    run.companions.push_back(&*domains);
  }
  std::optional<KeepBest> best;
  if (keeps) {
    best.emplace(best_settings(s, budget.steps), all_of(groups), [&losses] { return mean_of(losses()); }, context.events);
    run.companions.push_back(&*best);
  }
  std::vector<ParameterGroup> all = groups;
  if (job.own) {
    for (ParameterGroup& group : job.own(peak)) all.push_back(std::move(group));
  }
  Single alone;
  const TrainResult result = train(*task, all, *feed.batches, run, alone, context.events);
  if (lora) groups = lora->merge();
  const ir::Model trained = with_values(job.base, groups);
  if (job.write) {
    job.write(trained, written_type(s));
  } else {
    ir::write_hf(trained, context.job.out, written_type(s), context.writing());
  }
  if (lora) write_adapter(context, *lora, job.base);

  Json fields = to_json(result, task->terms());
  fields["resolved"] = {{"lr", peak}, {"batch_tokens", budget.batch * feed.window}, {"micro_batch", run.micro_batch}, {"final_lr", run.schedule.final},
                        {"save_every", run.save_every}};
  if (best) fields["kept"] = {{"step", best->best_step()}, {"loss", best->best_loss()}, {"losses", best->state()}};
  if (texts) fields["epochs"] = texts->source.epochs_after(result.state.windows, *texts->mixture);
  if (domains) {
    fields["domains"] = domains->history();
    for (std::size_t i = 0; i < references.losses.size(); ++i) fields["references"][texts->source.spec().domains[i].name] = references.losses[i];
  }
  return fields;
}

}  // namespace slmc::engine
