#include "engine/classify.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "core/cancel.h"
#include "core/error.h"
#include "core/file.h"
#include "engine/tensors.h"
#include "io/safetensors.h"

namespace slmc::engine {
namespace {

namespace fs = std::filesystem;

constexpr int kClassifierVersion = 1;
constexpr std::int64_t kBatchTokens = 2048, kTimed = 21;
constexpr std::string_view kPlace = "{text}";
const char* const kHeadName = "score.weight";

fs::path folder_of(const fs::path& model) { return model / "classify"; }

void split_template(Classifier& c, const text::Tokenizer& tokenizer) {
  const std::size_t at = c.template_text.find(kPlace);
  if (at == std::string::npos || c.template_text.find(kPlace, at + 1) != std::string::npos) {
    throw Error(ErrorKind::Usage, fmt::format("the template must have {{text}} once, but is '{}'", c.template_text), "'{text} This is from the book:'");
  }
  c.before = tokenizer.encode(c.template_text.substr(0, at));
  c.after = tokenizer.encode(c.template_text.substr(at + kPlace.size()));
}

// The token that a word begins with behind a blank.
std::int64_t first_token(const std::string& word, const text::Tokenizer& tokenizer) {
  const std::vector<std::int32_t> ids = tokenizer.encode(" " + word);
  if (ids.empty()) throw Error(ErrorKind::Usage, fmt::format("the word of a class must have a token, but '{}' has none", word));
  return ids.front();
}

std::vector<std::string> split_words(const std::string& name) {
  std::vector<std::string> out;
  std::string word;
  for (const char c : name + " ") {
    if (c != ' ') word += c;
    if (c == ' ' && !word.empty()) out.push_back(std::move(word)), word.clear();
  }
  return out;
}

std::vector<std::string> chosen_words(const std::vector<std::string>& classes, const text::Tokenizer& tokenizer) {
  std::map<std::int64_t, std::set<std::size_t>> owners;
  for (std::size_t i = 0; i < classes.size(); ++i) {
    for (const std::string& word : split_words(classes[i])) owners[first_token(word, tokenizer)].insert(i);
  }
  std::vector<std::string> out;
  for (const std::string& name : classes) {
    const std::vector<std::string> words = split_words(name);
    const auto own = std::find_if(words.begin(), words.end(), [&](const std::string& w) { return owners.at(first_token(w, tokenizer)).size() == 1; });
    if (own == words.end()) {
      throw Error(ErrorKind::Usage, fmt::format("each class must have a word of its own, but '{}' has none that no other begins with", name), "give words: 'one, two, ...'");
    }
    out.push_back(*own);
  }
  return out;
}

void choose_words(Classifier& c, const text::Tokenizer& tokenizer) {
  if (c.method != Classifier::Method::Prompt) return;
  if (c.words.empty()) c.words = chosen_words(c.classes, tokenizer);
  if (c.words.size() != c.classes.size()) {
    throw Error(ErrorKind::Usage, fmt::format("there must be a word for each of {} classes, but there are {}", c.classes.size(), c.words.size()),
                fmt::format("the first is for '{}', the last for '{}'", c.classes.front(), c.classes.back()));
  }
  std::map<std::int64_t, std::size_t> taken;
  c.word_ids.clear();
  for (std::size_t i = 0; i < c.words.size(); ++i) {
    c.word_ids.push_back(first_token(c.words[i], tokenizer));
    const auto [other, is_new] = taken.emplace(c.word_ids.back(), i);
    if (!is_new) {
      throw Error(ErrorKind::Usage, fmt::format("the words of two classes must begin with different tokens, but '{}' and '{}' begin alike", c.words[other->second], c.words[i]));
    }
  }
}

at::Tensor rows_of(const Classifier& c, const std::vector<data::Piece>& pieces, std::size_t first, std::size_t count) {
  const std::size_t length = c.before.size() + static_cast<std::size_t>(c.seq) + c.after.size();
  at::Tensor rows = at::empty({static_cast<std::int64_t>(count), static_cast<std::int64_t>(length)}, at::kLong);
  for (std::size_t i = 0; i < count; ++i) {
    const std::vector<std::int32_t> ids = tokens_of(c, pieces[first + i]);
    std::copy(ids.begin(), ids.end(), rows.mutable_data_ptr<std::int64_t>() + i * length);
  }
  return rows;
}

// fp64 [B, classes] on the CPU.
at::Tensor log_probabilities(const Classifier& c, const ModelRef& model, const at::Tensor& ids) {
  const at::Tensor h = hidden_states(model.arch, model.weights, ids.to(model.weights.tensor("embed").device()));
  return class_logits(c, model, h.select(1, h.size(1) - 1)).to(at::kCPU, at::kDouble).log_softmax(1);
}

double seconds_of_one(const Classifier& c, const ModelRef& model, const std::vector<data::Piece>& pieces) {
  std::vector<double> seconds;
  for (std::size_t i = 0; i < std::min(pieces.size(), static_cast<std::size_t>(kTimed)); ++i) {
    const at::Tensor ids = rows_of(c, pieces, i, 1);
    const auto began = std::chrono::steady_clock::now();
    log_probabilities(c, model, ids);
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2), seconds.end());
  return seconds[seconds.size() / 2];
}

void write_head(const fs::path& file, const at::Tensor& head) {
  const at::Tensor values = head.detach().to(at::kCPU, at::kFloat).contiguous();
  io::SafetensorsWriter writer = io::SafetensorsWriter::single(file, {{kHeadName, DType::F32, values.sizes().vec()}});
  writer.write(kHeadName, {static_cast<const std::byte*>(values.const_data_ptr()), values.nbytes()});
  writer.finish();
}

at::Tensor read_head(const fs::path& file, std::int64_t classes, std::int64_t hidden) {
  const at::Tensor head = to_tensor(io::SafetensorsFile::open(file).read(kHeadName)).clone();
  if (head.dim() == 2 && head.size(0) == classes && head.size(1) == hidden && head.isfinite().all().item<bool>()) return head;
  throw Error(ErrorKind::Model, Place{file.string(), 0, 0, 1, {}}, fmt::format("the head must be [{}, {}] of finite numbers, but is not", classes, hidden),
              "a model that was cut after it was tuned must be tuned again");
}

}  // namespace

void prepare(Classifier& classifier, const text::Tokenizer& tokenizer) {
  split_template(classifier, tokenizer);
  choose_words(classifier, tokenizer);
}

std::vector<std::int32_t> tokens_of(const Classifier& classifier, const data::Piece& piece) {
  std::vector<std::int32_t> ids = classifier.before;
  ids.insert(ids.end(), piece.ids.begin(), piece.ids.end());
  ids.insert(ids.end(), classifier.after.begin(), classifier.after.end());
  return ids;
}

at::Tensor class_logits(const Classifier& classifier, const ModelRef& model, const at::Tensor& last) {
  if (classifier.method == Classifier::Method::Head) return at::linear(last, classifier.head.to(last.device(), last.scalar_type()));
  const at::Tensor rows = at::tensor(classifier.word_ids).to(last.device());
  return at::linear(last, head_weight(model.arch, model.weights).index_select(0, rows));
}

Classified classify(const Classifier& classifier, const ModelRef& model, const std::vector<data::Piece>& pieces, stage::Events& events) {
  SLMC_CHECK(!pieces.empty());
  const at::NoGradGuard no_grad;
  Classified out;
  const std::size_t batch = std::max<std::size_t>(1, static_cast<std::size_t>(kBatchTokens) / tokens_of(classifier, pieces.front()).size());
  std::int64_t right = 0;
  for (std::size_t first = 0; first < pieces.size(); first += batch) {
    cancel_point("nothing was written");
    const std::size_t count = std::min(batch, pieces.size() - first);
    const at::Tensor log_p = log_probabilities(classifier, model, rows_of(classifier, pieces, first, count)), best = log_p.argmax(1);
    for (std::size_t i = 0; i < count; ++i) {
      const auto row = static_cast<std::int64_t>(i);
      const std::int64_t label = pieces[first + i].label;
      out.picks.push_back(best[row].item<std::int64_t>());
      right += out.picks.back() == label;
      out.nll -= log_p[row][label].item<double>();
    }
    events.progress("pieces", static_cast<std::int64_t>(first + count), static_cast<std::int64_t>(pieces.size()));
  }
  const auto n = static_cast<double>(pieces.size());
  out.accuracy = static_cast<double>(right) / n;
  out.nll /= n;
  if (!std::isfinite(out.nll)) throw Error(ErrorKind::Numeric, "the likelihood of a class must be finite, but is not", "weights or activations overflow");
  out.latency = seconds_of_one(classifier, model, pieces);
  return out;
}

void write_classifier(const fs::path& model_folder, const Classifier& c) {
  fs::create_directories(folder_of(model_folder));
  const bool head = c.method == Classifier::Method::Head;
  Json json = {{"slmc_classify", kClassifierVersion}, {"method", head ? "head" : "prompt"}, {"classes", c.classes}, {"template", c.template_text}};
  if (!head) json["words"] = c.words;
  json["field"] = c.field, json["label"] = c.label, json["seq"] = c.seq, json["held_out"] = c.held_out;
  write_json(folder_of(model_folder) / "classify.json", json);
  if (head) write_head(folder_of(model_folder) / "head.safetensors", c.head);
}

std::optional<Classifier> read_classifier(const fs::path& model_folder, const ir::Model& model) {
  const fs::path file = folder_of(model_folder) / "classify.json";
  if (!fs::exists(file)) return std::nullopt;
  const Json json = read_json(file, ErrorKind::Model);
  Fields fields(json, file.string(), "", ErrorKind::Model);
  if (const std::int64_t version = fields.integer("slmc_classify"); version != kClassifierVersion) {
    throw Error(ErrorKind::Unsupported, Place{file.string(), 0, 0, 1, {}}, fmt::format("the version 'slmc_classify' must be {}, but is {}", kClassifierVersion, version),
                "a newer slmc wrote this");
  }
  Classifier c;
  const std::string method = fields.text("method");
  if (method != "prompt" && method != "head") fields.fail("method", "must be prompt or head, but is " + method);
  c.method = method == "head" ? Classifier::Method::Head : Classifier::Method::Prompt;
  c.classes = fields.texts_or("classes", {});
  if (c.classes.size() < 2) fields.fail("classes", "must be at least two, but are not");
  c.template_text = fields.text("template");
  c.words = fields.texts_or("words", {});
  c.field = fields.text("field"), c.label = fields.text("label");
  c.seq = fields.integer("seq"), c.held_out = fields.number("held_out");
  if (c.seq < 1 || c.seq > (1 << 20)) fields.fail("seq", "must be 1 to 1048576, but is " + std::to_string(c.seq));
  if (!(c.held_out > 0 && c.held_out < 1)) fields.fail("held_out", "must be between 0 and 1, but is not");
  fields.finish();
  if (!model.tokenizer()) throw Error(ErrorKind::Model, "the model must have a tokenizer to read texts with, but has none", model.source());
  prepare(c, *model.tokenizer());
  if (c.method == Classifier::Method::Head) c.head = read_head(folder_of(model_folder) / "head.safetensors", static_cast<std::int64_t>(c.classes.size()), model.sizes().hidden);
  return c;
}

}  // namespace slmc::engine
