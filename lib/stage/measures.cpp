#include "stage/measures.h"

namespace slmc::stage {
namespace {

Setting path(std::string name, std::string help) { return {.name = std::move(name), .type = Type::Path, .help = std::move(help)}; }

Setting integer(std::string name, std::string fallback, double least, double most, std::string unit, std::string help) {
  return {.name = std::move(name), .type = Type::Integer, .fallback = std::move(fallback), .help = std::move(help),
          .least = least, .most = most, .unit = std::move(unit)};
}

Setting number(std::string name, std::string fallback, double least, double most, std::string help) {
  return {.name = std::move(name), .type = Type::Number, .fallback = std::move(fallback), .help = std::move(help),
          .least = least, .most = most};
}

// How the next token is chosen; shared by generate and chat.
std::vector<Setting> sampling() {
  return {
      integer("tokens", "128", 1, 1 << 20, "tokens", "Most tokens to generate."),
      number("temperature", "0", 0, 100, "Softmax temperature; 0 takes the likeliest token."),
      integer("top_k", "0", 0, 1 << 24, "tokens", "Sample among the k likeliest tokens; 0 = among all."),
      number("top_p", "1", 0, 1, "Sample among the likeliest tokens that together hold this share of the probability."),
  };
}

std::vector<Setting> with(std::vector<Setting> front, const std::vector<Setting>& more) {
  front.insert(front.end(), more.begin(), more.end());
  return front;
}

}  // namespace

const std::vector<Setting>& eval_task_table() {
  static const std::vector<Setting> table = {
      path("ppl", "Text file for perplexity, cut into windows; .jsonl takes the field `text`."),
      path("choices", "JSON lines of multiple choice: query, choices, gold."),
      path("pairs", "JSON lines of minimal pairs: sentence_good, sentence_bad."),
      path("classify", "JSON lines of labelled texts, for a model tuned by `train --objective classify`; the pieces that its tuning held out."),
      integer("window", "512", 2, 1 << 20, "tokens", "Length of a perplexity window."),
      integer("windows", "64", 0, 1 << 24, "windows",
              "How many windows from the start of the text; 0 = all of it, every byte scored, also against a reference of another vocabulary."),
      integer("first", "0", 0, 1 << 24, "items", "Take only the first items of choices and pairs; 0 = all."),
      integer("per_class", "50", 1, 1 << 24, "pieces", "How many pieces of each class to classify."),
  };
  return table;
}

const StageInfo& eval_info() {
  static const StageInfo info = {
      .name = "eval",
      .summary = "measure a model: perplexity, KL to a reference, multiple choice, pairs, classes",
      .needs = {.dense = false},
      .settings = {{.name = "tasks", .type = Type::Data, .help = "What to measure, a list.", .required = true},
                   path("save_logits", "Write the logits of the first perplexity task to this safetensors file.")},
  };
  return info;
}

const StageInfo& bench_info() {
  static const StageInfo info = {
      .name = "bench",
      .summary = "time a model: forward, prefill, decode, against the rate of the machine",
      .needs = {.dense = false},
      .settings = {integer("batch", "4", 1, 4096, "windows", "Windows of the forward pass."),
                   integer("seq", "512", 1, 1 << 20, "tokens", "Tokens of a window and of the prompt."),
                   integer("decode", "32", 0, 1 << 20, "tokens", "Tokens generated one at a time."),
                   integer("repeat", "3", 1, 1000, "runs", "Runs of each; the fastest counts.")},
  };
  return info;
}

const StageInfo& generate_info() {
  static const StageInfo info = {
      .name = "generate",
      .summary = "continue a text",
      .needs = {.dense = false},
      .settings = with({{.name = "prompt", .type = Type::Text, .help = "The text to continue.", .required = true}}, sampling()),
  };
  return info;
}

const StageInfo& chat_info() {
  static const StageInfo info = {
      .name = "chat",
      .summary = "talk with a model, turn by turn",
      .needs = {.dense = false},
      .settings = with({{.name = "system", .type = Type::Text, .help = "System message; unset takes the chat template's own."}}, sampling()),
  };
  return info;
}

const StageInfo& doctor_info() {
  static const StageInfo info = {
      .name = "doctor", .summary = "look at LibTorch, devices and arithmetic rates", .needs = {.dense = false}};
  return info;
}

}  // namespace slmc::stage
