#pragma once
// What the training stages share: settings into a run, the run itself, and its result as a model folder.
#include <functional>
#include <memory>
#include <vector>

#include "engine/decoder.h"
#include "engine/op.h"
#include "engine/train/adamw.h"
#include "engine/train/task.h"

namespace slmc::engine {

// The updates that settings ask for.
struct Budget {
  std::int64_t batch = 0;          // windows of one update
  std::int64_t steps = 0;          // updates
  std::int64_t tokens = 0;         // steps * batch * seq, at least what was asked for
};
// batch_tokens < 0 is auto: at least 64 updates where the tokens allow, at most 8192 tokens each.
Budget budget_of(std::int64_t tokens, std::int64_t batch_tokens, std::int64_t seq);

// Peak learning rate of `lr: auto`. removed: share of the parameters that are gone from the model it came from.
double automatic_rate(double removed, bool from_scratch);

// What is read, where it is not the windows of the training data.
struct Feed {
  std::unique_ptr<Batches> batches;
  std::int64_t window = 0;         // tokens of each
  std::int64_t tokens = 0;         // to train on
  std::string content;             // hash of everything that decides the batches; checkpoints must agree with it
};

struct TrainingJob {
  ir::Model base;                                                          // what is trained
  bool from_scratch = false;
  double removed = 0;                                                      // for lr: auto
  std::string teacher;                                                     // its content hash; empty without one
  std::function<std::unique_ptr<Task>(ModelRef)> task;     // of the loaded base
  // Made once; empty: windows of the training data, as many tokens as the settings say.
  std::function<Feed()> feed;
  // Parameters that the task trains besides the model's, for this peak rate; asked for after `task`. May be empty.
  std::function<std::vector<ParameterGroup>(double peak)> own;
  // What the model is measured under while it trains; empty: no gates.
  std::function<Gates()> gates;
  std::int64_t parameters = 0;                                             // of the result; 0: those of `base`
  // Writes the result to job.out; empty: ir::write_hf.
  std::function<void(const ir::Model& trained, DType type)> write;
};

// Trains and writes the model folder job.out. Returns the fields of the result event: curve, tokens, speed, resolved settings.
Json train_and_write(OpContext& context, const TrainingJob& job);

}  // namespace slmc::engine
