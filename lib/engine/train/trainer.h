#pragma once
// The one training loop. It counts, accumulates, clips, updates, reports, saves and stops; it knows no method's name.
//
// Goals: one normaliser for all micro-batches and ranks of a step (8 x 1 equals 1 x 8, with ragged lengths too); a run that was killed
// at any point and goes on gives the same bits as one that was not. Not goals: choosing data or settings.
#include <cstdint>
#include <filesystem>
#include <vector>

#include "core/json.h"
#include "engine/train/adamw.h"
#include "engine/train/checkpoint.h"
#include "engine/train/communicator.h"
#include "engine/train/schedule.h"
#include "engine/train/task.h"
#include "stage/job.h"

namespace slmc::engine {

// Something that goes along with a run and has a state of its own, which checkpoints keep.
class Companion {
 public:
  virtual ~Companion() = default;
  // Before update `step` (from 0), whose first window is `window`; again for the same step after a checkpoint was taken up. False: enough is
  // learned, and the run ends here.
  virtual bool begin_step(std::int64_t step, std::int64_t window) = 0;
  // Once, behind the last update; `step` are done.
  virtual void end(std::int64_t step);
  virtual Json state() const = 0;
  virtual void restore(const Json& state) = 0;
  // Tensors that checkpoints hold besides; same storage as its own. Their names must be no parameter's.
  virtual std::vector<Parameter> tensors() const;
};

struct TrainSettings {
  std::int64_t batch = 16;                // windows of one update, over all ranks
  std::int64_t micro_batch = 4;           // windows of one forward and backward pass
  Schedule schedule;                      // its `steps` is the length of the run
  AdamWSettings adamw;
  double clip = 1.0;                      // largest norm of the gradient; 0 = never clipped
  std::int64_t save_every = 0;            // updates; 0 = only when asked to stop
  std::filesystem::path folder;           // of checkpoints; empty = none are written
  SharedJson identity;                    // what a checkpoint must agree with to be taken up
  std::vector<Companion*> companions;     // asked in this order
};

struct TrainResult {
  TrainState state;
  bool resumed = false;
  std::uint64_t peak_bytes = 0;           // largest resident memory of the process
};

// Trains the parameters in place. Events: progress with loss, its parts, rate, tokens_per_s, seconds_left, peak_bytes.
// Error(Interrupted) after saving when asked to stop; Error(Numeric) with step and remedy when loss or gradient is not finite.
TrainResult train(Task& task, std::vector<ParameterGroup> groups, const Batches& batches, const TrainSettings& settings,
                  Communicator& communicator, stage::Events& events);

// {"steps", "tokens", "counted", "seconds", "tokens_per_s", "peak_bytes", "resumed", "curve": [{"step", "rate", TERM: mean ...}]}
Json to_json(const TrainResult& result, const std::vector<std::string>& terms);

}  // namespace slmc::engine
