#include "distillation/classify.h"

#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/hash.h"
#include "core/rng.h"
#include "distillation/classify_task.h"
#include "engine/train/training.h"
#include "ir/write.h"

namespace slmc::distillation {
namespace {

using engine::Classifier;

constexpr double kHeadDeviation = 0.02;      // as new heads are drawn in Hugging Face's classifiers

std::vector<std::string> words_of(const stage::Settings& settings) {
  std::vector<std::string> out;
  if (!settings.has("words")) return out;
  std::string word;
  for (const char c : settings.text("words") + ",") {
    if (c != ',') word += c;
    if (c != ',') continue;
    const std::size_t first = word.find_first_not_of(' '), last = word.find_last_not_of(' ');
    if (first == std::string::npos) throw Error(ErrorKind::Usage, "the words must not be empty, but one is");
    out.push_back(word.substr(first, last - first + 1));
    word.clear();
  }
  return out;
}

data::DataSpec texts_of(engine::OpContext& context) {
  if (!context.job.data->contains("train")) throw Error(ErrorKind::Usage, "data 'train' must be given, but is not");
  data::DataSpec spec = data::data_spec_from_json((*context.job.data)["train"], "the job", "data.train");
  if (spec.domains.size() != 1) {
    throw Error(ErrorKind::Recipe, fmt::format("the training data of a classifier must be one section of files, but is a mix of {}", spec.domains.size()));
  }
  return spec;
}

Classifier classifier_of(const stage::Settings& settings, const data::DataSpec& spec, const data::Labelled& texts, const text::Tokenizer& tokenizer) {
  Classifier out;
  out.method = settings.text("classifier") == "head" ? Classifier::Method::Head : Classifier::Method::Prompt;
  out.classes = texts.classes;
  out.template_text = settings.text("template");
  out.words = words_of(settings);
  if (out.method == Classifier::Method::Head && !out.words.empty()) {
    throw Error(ErrorKind::Recipe, "the setting 'words' must stand beside classifier: prompt, but classifier is head");
  }
  out.field = spec.domains.front().field;
  out.label = spec.domains.front().label;
  out.seq = spec.seq;
  out.held_out = settings.number("held_out");
  engine::prepare(out, tokenizer);
  return out;
}

at::Tensor drawn_head(std::int64_t classes, std::int64_t hidden, std::uint64_t seed, at::Device device) {
  const Rng rng(derive_seed(seed, "head"));
  std::vector<float> values(static_cast<std::size_t>(classes * hidden));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(kHeadDeviation * rng.normal(i));
  return at::tensor(values).view({classes, hidden}).to(device);
}

void require_fits(const Classifier& classifier, const ir::Model& model, std::int64_t window) {
  const std::int64_t context = model.decoder().context;
  if (context <= 0 || window <= context) return;
  throw Error(ErrorKind::Recipe, fmt::format("a piece with its template must be at most {} tokens, the model's context, but is {}", context, window),
              fmt::format("seq: {} is the most", context - (window - classifier.seq)));
}

}  // namespace

Json train_classifier(engine::OpContext& context, const ir::Model& model, bool from_scratch) {
  const stage::Settings& s = context.job.settings;
  if (!model.tokenizer()) throw Error(ErrorKind::Model, "the model must have a tokenizer to read texts with, but has none", model.source());
  const data::DataSpec spec = texts_of(context);
  const data::Labelled texts = data::read_labelled(spec.domains.front(), spec.seq, s.number("held_out"), *model.tokenizer());
  Classifier classifier = classifier_of(s, spec, texts, *model.tokenizer());
  const bool head = classifier.method == Classifier::Method::Head;
  if (head) classifier.head = drawn_head(static_cast<std::int64_t>(texts.classes.size()), model.sizes().hidden, context.job.seed, context.device).requires_grad_();
  if (!head) context.events.note(fmt::format("words: {}", fmt::join(classifier.words, ", ")));

  engine::TrainingJob job{.base = model, .from_scratch = from_scratch};
  job.task = [&](engine::ModelRef loaded) { return std::make_unique<Classify>(loaded, classifier, s.boolean("recompute")); };
  job.feed = [&] {
    auto batches = std::make_unique<PieceBatches>(classifier, data::draw_shots(texts, s.integer("shots"), context.job.seed), context.job.seed, context.device);
    require_fits(classifier, model, batches->window());
    const std::int64_t window = batches->window(), tokens = s.integer("epochs") * batches->epoch() * window;
    const std::string content = batches->content_hash();
    return engine::Feed{std::move(batches), window, tokens, content};
  };
  if (head) {
    job.own = [&](double peak) {
      return std::vector<engine::ParameterGroup>{{{{"classify.head", classifier.head}}, 0.0, s.number("head_lr") / peak}};
    };
  }
  job.write = [&](const ir::Model& trained, DType type) {
    ir::write_hf(trained, context.job.out, type, context.writing());
    engine::write_classifier(context.job.out, classifier);
  };
  Json out = engine::train_and_write(context, job);
  out["classes"] = classifier.classes;
  if (!head) out["words"] = classifier.words;
  return out;
}

}  // namespace slmc::distillation
