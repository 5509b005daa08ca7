// The op eval: texts and tasks around evaluate.h. The protocol of perplexity is one sentence, printed with every result.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>

#include "core/cancel.h"
#include "data/eval_sets.h"
#include "data/source.h"
#include "engine/classify.h"
#include "engine/evaluate.h"
#include "engine/whole_text.h"
#include "engine/kernels.h"
#include "engine/ops.h"
#include "engine/prompt.h"
#include "io/safetensors.h"
#include "stage/measures.h"

namespace slmc::engine {
namespace {

double now_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Everything the tasks of one job share; weights are loaded once.
struct Evaluation {
  OpContext& context;
  Loaded model;
  std::optional<ir::Model> reference_files;
  std::optional<Loaded> reference;

  const text::Tokenizer& tokenizer() const { return tokenizer_of(context.model()); }
};

std::string whole_text(const std::filesystem::path& file) {
  data::DomainSpec spec;
  spec.name = file.filename().string();
  spec.files = {file};
  std::string out;
  for (const std::string& document : data::read_documents(spec)) out += (out.empty() ? "" : "\n\n") + document;
  return out;
}

// The first windows of a text as [n, window]; at most `most`. The text is tokenised once, whole; what is left over is dropped.
at::Tensor windows_of(const std::vector<std::int32_t>& ids, std::int64_t window, std::int64_t most, const std::string& file) {
  const std::int64_t there = static_cast<std::int64_t>(ids.size()) / window, n = std::min(most, there);
  if (n == 0) {
    throw Error(ErrorKind::Data, Place{file, 0, 0, 1, {}},
                fmt::format("the text must hold a window of {} tokens, but is {} tokens long", window, ids.size()),
                fmt::format("a window of {} would fit", ids.size()));
  }
  at::Tensor out = at::empty({n, window}, at::kLong);
  std::copy(ids.begin(), ids.begin() + n * window, out.mutable_data_ptr<std::int64_t>());
  return out;
}

// Bytes of text behind the predicted tokens: all but the first of each window.
std::int64_t predicted_bytes(const at::Tensor& windows, const text::Tokenizer& tokenizer) {
  std::int64_t bytes = 0;
  const auto* ids = windows.const_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < windows.numel(); ++i) {
    if (i % windows.size(1) != 0) bytes += static_cast<std::int64_t>(tokenizer.piece(static_cast<std::int32_t>(ids[i])).size());
  }
  return bytes;
}

void require_same_ids(const Evaluation& e, const std::string& text, const std::vector<std::int32_t>& ids) {
  const text::Tokenizer& other = tokenizer_of(*e.reference_files);
  if (other.content_hash() == e.tokenizer().content_hash() || other.encode(text) == ids) return;
  throw Error(ErrorKind::Usage, "the reference must read the text as the same tokens as the model, but its tokenizer gives others",
              "compare bits per byte of the whole text: --windows 0");
}

std::vector<std::int32_t> ids_of_whole(const text::Tokenizer& tokenizer, const std::string& text, const std::string& file) {
  const std::optional<std::int32_t> begin = tokenizer.end_of_text();
  if (!begin) throw Error(ErrorKind::Data, Place{file, 0, 0, 1, {}}, "the tokenizer must have a token between texts to score a whole one, but has none", "give --windows N");
  std::vector<std::int32_t> ids = {*begin};
  const std::vector<std::int32_t> body = tokenizer.encode(text);
  ids.insert(ids.end(), body.begin(), body.end());
  if (body.empty()) throw Error(ErrorKind::Data, Place{file, 0, 0, 1, {}}, "the text must have a token to predict, but has none");
  return ids;
}

Json whole_text_task(Evaluation& e, const stage::Settings& task) {
  const std::string& file = task.text("ppl");
  const std::string text = whole_text(file);
  const std::int64_t window = task.integer("window");
  const WholeText own = score_whole(e.model, ids_of_whole(e.tokenizer(), text, file), window, e.context.events);
  const double nll = own.nll / static_cast<double>(own.tokens);
  Json out = {{"task", "ppl"},
              {"file", file},
              {"window", window},
              {"windows", own.window_nll.size()},
              {"tokens", own.tokens},
              {"bytes", text.size()},
              {"protocol", fmt::format("every token of the text tokenised once, in windows of {} that begin with the token before, the first with the "
                                       "end-of-text token", window)},
              {"nll", nll},
              {"nll_error", WindowScores{own.window_nll}.standard_error()},
              {"ppl", std::exp(nll)},
              {"bits_per_byte", bits_per_byte(own.nll, text.size())},
              {"window_nll", own.window_nll}};
  if (e.reference) {
    const WholeText other = score_whole(*e.reference, ids_of_whole(tokenizer_of(*e.reference_files), text, file), window, e.context.events);
    out["reference_bits_per_byte"] = bits_per_byte(other.nll, text.size());
    out["bits_per_byte_ratio"] = own.nll / other.nll;
  }
  return out;
}

Json ppl_task(Evaluation& e, const stage::Settings& task) {
  if (task.integer("windows") == 0) return whole_text_task(e, task);
  const std::string& file = task.text("ppl");
  const std::string text = whole_text(file);
  const std::vector<std::int32_t> ids = e.tokenizer().encode(text);
  const at::Tensor windows = windows_of(ids, task.integer("window"), task.integer("windows"), file);
  const std::int64_t predicted = windows.size(0) * (windows.size(1) - 1), bytes = predicted_bytes(windows, e.tokenizer());

  std::optional<WindowComparison> both;
  WindowScores scores;
  if (e.reference) {
    require_same_ids(e, text, ids);
    both = compare_windows(e.model, *e.reference, windows, e.context.events);
    scores = both->model;
  } else {
    scores = score_windows(e.model, windows, e.context.events);
  }
  const double nll = scores.mean();
  Json out = {{"task", "ppl"},
              {"file", file},
              {"window", windows.size(1)},
              {"windows", windows.size(0)},
              {"tokens", predicted},
              {"bytes", bytes},
              {"protocol", fmt::format("first {} non-overlapping windows of {} tokens of the text tokenised once, no BOS, first token of each "
                                       "window unscored", windows.size(0), windows.size(1))},
              {"nll", nll},
              {"nll_error", scores.standard_error()},
              {"ppl", std::exp(nll)},
              {"bits_per_byte", bits_per_byte(nll * static_cast<double>(predicted), static_cast<std::size_t>(bytes))},
              {"window_nll", scores.nll}};
  if (both) {
    out["reference_ppl"] = std::exp(both->reference.mean());
    out["ppl_ratio"] = std::exp(nll - both->reference.mean());
    out["kl"] = mean_of(both->kl);
    out["top1_agreement"] = mean_of(both->top1);
  }
  return out;
}

std::size_t largest(const double* first, std::size_t n) { return static_cast<std::size_t>(std::max_element(first, first + n) - first); }

// A text without a token to predict would win with a likelihood of one. `n` counts from 0.
void require_scored(const data::ScoredSequence& s, const std::string& file, std::size_t n) {
  if (s.start < static_cast<std::int64_t>(s.ids.size())) return;
  throw Error(ErrorKind::Data, Place{file, 0, 0, 1, {}}, fmt::format("every text must have a token to predict, but one of item {} has none", n + 1));
}

Json choices_task(Evaluation& e, const stage::Settings& task) {
  const std::string& file = task.text("choices");
  const std::vector<data::ChoiceItem> items = data::read_choices(file, task.integer("first"));
  if (items.empty()) throw Error(ErrorKind::Data, Place{file, 0, 0, 1, {}}, "the file must hold at least one item, but holds none");
  std::vector<data::ScoredSequence> all;
  for (const data::ChoiceItem& item : items) {
    for (data::ScoredSequence& s : data::sequences(item, e.tokenizer())) {
      require_scored(s, file, static_cast<std::size_t>(&item - items.data()));
      all.push_back(std::move(s));
    }
  }
  const std::vector<double> sums = log_likelihoods(e.model, all, e.context.events);
  std::vector<double> per_character(sums.size());
  for (std::size_t i = 0; i < sums.size(); ++i) per_character[i] = sums[i] / static_cast<double>(std::max<std::int64_t>(1, all[i].characters));
  Json picks = Json::array(), picks_norm = Json::array();
  std::int64_t right = 0, right_norm = 0;
  std::size_t at = 0;
  for (const data::ChoiceItem& item : items) {
    const auto pick = static_cast<std::int64_t>(largest(sums.data() + at, item.choices.size()));
    const auto pick_norm = static_cast<std::int64_t>(largest(per_character.data() + at, item.choices.size()));
    right += pick == item.gold;
    right_norm += pick_norm == item.gold;
    picks.push_back(pick);
    picks_norm.push_back(pick_norm);
    at += item.choices.size();
  }
  const auto n = static_cast<double>(items.size());
  return {{"task", "choices"}, {"file", file}, {"items", items.size()},
          {"acc", static_cast<double>(right) / n}, {"acc_norm", static_cast<double>(right_norm) / n},
          {"picks", picks}, {"picks_norm", picks_norm},
          {"protocol", "sum of log-likelihoods of the choice after the context, no BOS; acc_norm divides by the choice's characters"}};
}

Json pairs_task(Evaluation& e, const stage::Settings& task) {
  const std::string& file = task.text("pairs");
  const std::vector<data::MinimalPair> pairs = data::read_pairs(file, task.integer("first"));
  if (pairs.empty()) throw Error(ErrorKind::Data, Place{file, 0, 0, 1, {}}, "the file must hold at least one pair, but holds none");
  std::vector<data::ScoredSequence> all;
  for (const data::MinimalPair& pair : pairs) {
    for (const std::string* text : {&pair.good, &pair.bad}) {
      all.push_back(data::sequence(*text, e.tokenizer()));
      require_scored(all.back(), file, static_cast<std::size_t>(&pair - pairs.data()));
    }
  }
  const std::vector<double> sums = log_likelihoods(e.model, all, e.context.events);
  Json picks = Json::array();
  std::int64_t right = 0;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const bool good = sums[2 * i] > sums[2 * i + 1];
    right += good;
    picks.push_back(good ? 0 : 1);
  }
  return {{"task", "pairs"}, {"file", file}, {"items", pairs.size()},
          {"acc", static_cast<double>(right) / static_cast<double>(pairs.size())}, {"picks", picks},
          {"protocol", "sum of log-likelihoods of the whole sentence from its second token on, no BOS"}};
}

std::uint64_t peak_memory() {
  rusage use{};
  getrusage(RUSAGE_SELF, &use);
  return static_cast<std::uint64_t>(use.ru_maxrss) * 1024;
}

Json classify_task(Evaluation& e, const stage::Settings& task) {
  const std::string& file = task.text("classify");
  const std::optional<Classifier> classifier = read_classifier(e.context.job.model, e.context.model());
  if (!classifier) return {{"task", "classify"}, {"file", file}, {"skipped", "the model was not tuned to classify"}};
  data::DomainSpec texts;
  texts.files = {file};
  texts.field = classifier->field, texts.label = classifier->label;
  const data::Labelled labelled = data::read_labelled(texts, classifier->seq, classifier->held_out, e.tokenizer());
  if (labelled.classes != classifier->classes) {
    throw Error(ErrorKind::Data, Place{file, 0, 0, 1, {}},
                fmt::format("the classes of the text must be the {} that the model was tuned on, but are {} others or more", classifier->classes.size(), labelled.classes.size()));
  }
  const std::vector<data::Piece> pieces = data::test_pieces(labelled, task.integer("per_class"));
  const Classified out = classify(*classifier, e.model, pieces, e.context.events);
  return {{"task", "classify"}, {"file", file}, {"items", pieces.size()}, {"classes", classifier->classes}, {"accuracy", out.accuracy}, {"nll", out.nll},
          {"latency", out.latency}, {"memory", peak_memory()}, {"picks", out.picks},
          {"protocol", fmt::format("{} pieces of {} tokens of each of {} classes, evenly spread over the last {:.0f} % of its text", task.integer("per_class"), classifier->seq,
                                   classifier->classes.size(), 100 * classifier->held_out)}};
}

Json run_task(Evaluation& e, const stage::Settings& task) {
  if (task.has("ppl")) return ppl_task(e, task);
  if (task.has("classify")) return classify_task(e, task);
  return task.has("choices") ? choices_task(e, task) : pairs_task(e, task);
}

std::span<const std::byte> bytes_of(const at::Tensor& t) {
  return {static_cast<const std::byte*>(t.const_data_ptr()), static_cast<std::size_t>(t.nbytes())};
}

// Logits of every position, window by window.
void save_logits(Evaluation& e, const stage::Settings& task, const std::string& file) {
  const at::NoGradGuard no_grad;
  const std::vector<std::int32_t> ids = e.tokenizer().encode(whole_text(task.text("ppl")));
  const std::int64_t most = task.integer("windows") == 0 ? static_cast<std::int64_t>(ids.size()) : task.integer("windows");
  const at::Tensor windows = windows_of(ids, task.integer("window"), most, task.text("ppl"));
  auto out = io::SafetensorsWriter::single(
      file, {{"logits", DType::F32, {windows.size(0), windows.size(1), e.model.arch.sizes.vocab}}, {"ids", DType::I64, windows.sizes().vec()}});
  out.write("ids", bytes_of(windows));
  for (std::int64_t i = 0; i < windows.size(0); ++i) {
    cancel_point("no logits were written");
    const at::Tensor h = hidden_states(e.model.arch, e.model.weights, windows.narrow(0, i, 1).to(e.context.device));
    const at::Tensor z = logits(e.model.arch, e.model.weights, h).to(at::kCPU, at::kFloat).contiguous();
    out.append("logits", bytes_of(z));
    e.context.events.progress("logits", i + 1, windows.size(0));
  }
  out.finish();
}

std::vector<stage::Settings> parse_tasks(const Json& list) {
  std::vector<stage::Settings> out;
  std::vector<Diagnostic> problems;
  if (!list.is_array()) throw Error(ErrorKind::Usage, "the tasks must be a list, but are not");
  for (const Json& item : list) {
    stage::Settings task = stage::parse_settings(stage::eval_task_table(), item, [](std::string_view) { return Place{}; }, problems);
    const int kinds = task.has("ppl") + task.has("choices") + task.has("pairs") + task.has("classify");
    if (kinds != 1) throw Error(ErrorKind::Usage, "a task must have exactly one of ppl, choices, pairs and classify, but has " + std::to_string(kinds));
    out.push_back(std::move(task));
  }
  if (!problems.empty()) throw Error(ErrorKind::Usage, std::move(problems));
  return out;
}

Json run_eval(OpContext& context) {
  const double cpu = cpu_seconds();
  const auto& settings = context.job.settings;
  const std::vector<stage::Settings> tasks = parse_tasks(settings.data("tasks"));
  const double start = now_s();
  Evaluation e{context, load(context.model(), at::kFloat, context.device), std::nullopt, std::nullopt};
  const double loaded = now_s() - start;
  if (context.job.models.contains("reference")) {
    e.reference_files = context.other("reference");
    e.reference = load(*e.reference_files, at::kFloat, context.device);
  }
  Json results = Json::array();
  bool saved = !settings.has("save_logits");
  for (const stage::Settings& task : tasks) {
    results.push_back(run_task(e, task));
    if (!saved && task.has("ppl")) {
      save_logits(e, task, settings.text("save_logits"));
      saved = true;
    }
  }
  if (!saved) throw Error(ErrorKind::Usage, "save_logits needs a perplexity task, but there is none");
  return {{"model", {{"load_s", loaded}}}, {"tasks", results}, {"cpu_s", cpu_seconds() - cpu}};
}

}  // namespace

void add_eval(Ops& ops) { add_op(ops, stage::eval_info(), run_eval); }

}  // namespace slmc::engine
