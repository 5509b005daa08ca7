#pragma once
// An op is what slmc-engine runs for one job: a stage or a measurement. Ops are functions in a table; main knows no op's name.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "data/source.h"
#include "engine/decoder.h"
#include "ir/model.h"
#include "ir/write.h"
#include "stage/info.h"
#include "stage/job.h"

namespace slmc::engine {

struct OpContext {
  const stage::Job& job;
  stage::Events& events;
  at::Device device;
  // Loaded on first use.
  const ir::Model& model();                                            // job.model
  ir::Model other(const std::string& name);                            // job.models[name]; Error(Usage) when not given
  std::optional<data::WindowSource> source(const std::string& which);  // "calib" or "train", with the model's tokenizer
  at::Tensor windows(const std::string& which);                        // all samples of it, [samples, seq] int64; Error(Usage) when absent

  ir::Progress writing();                                              // of ir's writers: reports bytes, stops when cancelled

  OpContext(const stage::Job& job, stage::Events& events, at::Device device);

 private:
  std::optional<ir::Model> model_;
};

// Does the whole job and returns the fields of its result event (written to job.out is what job.h says).
using Op = std::function<Json(OpContext&)>;

// An op with the record that it shares with the front program: its settings table is how the job is read. Method folders fill this in
// `void add_ops(engine::Ops&)`.
struct OpEntry {
  const stage::StageInfo* info = nullptr;      // static storage
  Op run;
};
using Ops = std::map<std::string, OpEntry>;
void add_op(Ops& ops, const stage::StageInfo& info, Op run);      // under info.name; SLMC_CHECK when it is there already
void add_measures(Ops& ops);                                      // eval, bench, generate, chat, doctor (stage/measures.h)

}  // namespace slmc::engine
