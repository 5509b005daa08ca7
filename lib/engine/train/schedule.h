#pragma once
// Learning rate as a pure function of the step, so that a resumed run needs no schedule state and `plan` can print it.
//   wsd      warm-up, stable, decay   [MiniCPM, Hu et al. 2024, arXiv:2404.06395, section 4.2]
//   cosine   warm-up, then half a cosine down to `final`   [Loshchilov and Hutter 2017, arXiv:1608.03983]
//   constant warm-up, then the peak
//
//   rate  peak |    ________________                 wsd: updates are counted from 0
//              |   /                \                0 .. warmup-1            peak (step + 1) / warmup
//              |  /                  \               steps-decay .. steps-1   peak f(x), x = (step - start) / decay
//        final | /                    \              else                     peak
//              +--warmup--------decay--steps
//
// Differs from the paper: warm-up counts from 1 and x stays below 1, so that no update has the rate 0.
#include <cstdint>
#include <string_view>

namespace slmc::engine {

struct Schedule {
  enum class Kind { Wsd, Cosine, Constant };
  enum class Decay { OneMinusSqrt, Exponential, Linear };   // 1 - sqrt(x) [arXiv:2408.11029]; final^x; 1 - x
  Kind kind = Kind::Wsd;
  Decay shape = Decay::OneMinusSqrt;      // wsd only
  double peak = 1e-4;
  double final = 0.0;                     // share of the peak at the very end; Exponential needs > 0
  std::int64_t steps = 0;                 // updates of the whole run
  std::int64_t warmup = 0;                // updates
  std::int64_t decay = 0;                 // updates; wsd only
};

// The rate of update `step` in [0, steps). Always > 0 when the peak is, except where final = 0 rounds to it.
double rate_at(const Schedule& schedule, std::int64_t step);

// Updates of a share of the run, at least `least`, at most all.
std::int64_t share_of(std::int64_t steps, double share, std::int64_t least);

// "wsd" "cosine" "constant"; "1-sqrt" "exponential" "linear". SLMC_CHECK on anything else: settings were checked before.
Schedule::Kind schedule_kind(std::string_view name);
Schedule::Decay decay_shape(std::string_view name);

}  // namespace slmc::engine
