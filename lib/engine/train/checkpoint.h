#pragma once
// Checkpoints: everything that a training run must carry over a kill, so that going on gives the same bits as never having stopped.
//
//   FOLDER/step-00000040.safetensors    weights, and both moments of the optimizer ("NAME", "NAME.m", "NAME.v")
//   FOLDER/step-00000040.json           state, identity, and the SHA-256 of the tensors' file; its rename makes the checkpoint exist
//
// Each file appears whole or not at all, the tensors' before the JSON: a kill between any two writes leaves an older checkpoint, or none.
// The last two are kept; a damaged one is passed over with a warning. Random numbers need no state: they are counters (core/rng.h).
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "engine/train/adamw.h"
#include "stage/job.h"

namespace slmc::engine {

// One point of the loss curve: means over the predictions of the updates since the point before.
struct CurvePoint {
  std::int64_t step = 0;                 // updates done
  double rate = 0;
  std::vector<double> means;             // of Task::terms()
};

// The fields of a run that change; every number is listed once, in fields_of (checkpoint.cpp).
struct TrainState {
  std::int64_t step = 0;                 // updates done
  std::int64_t windows = 0;              // windows of the source used up, over all ranks
  std::int64_t tokens = 0;               // tokens seen
  std::int64_t counted = 0;              // predictions that counted
  double seconds = 0;                    // spent training, over all sittings
  std::vector<CurvePoint> curve;
  std::vector<double> open_sums;         // of the updates since the last point of the curve
  std::int64_t open_counted = 0;
  SharedJson companion;                  // states of TrainSettings::companions, an array; null without any
};

// Writes the checkpoint of state.step, then removes all but the last two. Error(Resource) when the disk is full; older ones stay.
void save_checkpoint(const std::filesystem::path& folder, const TrainState& state, const std::vector<Parameter>& tensors,
                     const Json& identity);

// Fills `tensors` from the newest whole checkpoint and returns its state; nothing when there is none. What is damaged (broken JSON, bytes
// of another SHA-256) or left over from a kill is removed, with a warning when it was a checkpoint. Nothing is removed by an error, and
// training must not go on after one: Error(Usage) naming the first field when `identity` differs: another run; Error(Data) or Error(Model)
// when a file can't be read, Error(Unsupported) when a newer slmc wrote it.
std::optional<TrainState> load_checkpoint(const std::filesystem::path& folder, const std::vector<Parameter>& tensors,
                                          const Json& identity, stage::Events& events);

// The identity of the newest checkpoint, read without its tensors; nothing when there is none.
std::optional<Json> checkpoint_identity(const std::filesystem::path& folder);

}  // namespace slmc::engine
