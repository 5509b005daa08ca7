#pragma once
// Classification by a decoder: one position of the text speaks for the whole.
//   prompt   the logits of one word for each class, at the end of a template that asks for it      [Schick and Schuetze 2021, arXiv:2001.07676]
//   head     a linear map of the last hidden state, [classes, hidden], in place of the vocabulary's
// p(class | text) is the softmax over these numbers alone. A model that was tuned so carries what it needs beside its weights:
//   MODEL/classify/classify.json          method, classes, template, words, and how texts are cut into pieces
//   MODEL/classify/head.safetensors       "score.weight" F32 [classes, hidden], of a head only
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/labelled.h"
#include "engine/decoder.h"
#include "stage/job.h"
#include "text/tokenizer.h"

namespace slmc::engine {

struct Classifier {
  enum class Method { Prompt, Head };
  Method method = Method::Prompt;
  std::vector<std::string> classes;
  std::string template_text = "{text}";      // with "{text}" once
  std::vector<std::string> words;            // of a prompt, one for each class
  std::string field = "text", label = "label";
  std::int64_t seq = 0;                      // tokens of a piece
  double held_out = 0.5;
  at::Tensor head;                           // of a head: fp32 [classes, hidden]

  // Made by prepare.
  std::vector<std::int32_t> before, after;   // tokens of the template around a piece
  std::vector<std::int64_t> word_ids;        // the token that stands for each class
};

// Fills what follows from the tokenizer. Words that are not given are chosen: of each class's name the first word whose first token no
// word of another name begins with. Error(Usage) when the template has not exactly one "{text}", when the number of words is not that of the
// classes, or when two classes would have the same token.
void prepare(Classifier& classifier, const text::Tokenizer& tokenizer);

// Template and piece as one row of tokens, the same length for all.
std::vector<std::int32_t> tokens_of(const Classifier& classifier, const data::Piece& piece);

// Hidden states of the last position [B, hidden] -> [B, classes].
at::Tensor class_logits(const Classifier& classifier, const ModelRef& model, const at::Tensor& last);

struct Classified {
  std::vector<std::int64_t> picks;           // index of the likeliest class of each piece, the first of equals
  double accuracy = 0, nll = 0;              // share that is right; mean negative log-likelihood of the right class
  double latency = 0;                        // seconds of wall time for one piece alone, median of up to 21
};
Classified classify(const Classifier& classifier, const ModelRef& model, const std::vector<data::Piece>& pieces, stage::Events& events);

void write_classifier(const std::filesystem::path& model_folder, const Classifier& classifier);
// Nothing when the model carries none. Error(Model) when it is damaged or does not fit the model; Error(Unsupported) when a newer slmc wrote it.
std::optional<Classifier> read_classifier(const std::filesystem::path& model_folder, const ir::Model& model);

}  // namespace slmc::engine
