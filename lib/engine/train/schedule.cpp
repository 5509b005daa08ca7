#include "engine/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.h"

namespace slmc::engine {
namespace {

// From 1 at x = 0 to `final` at x = 1.
double falling(Schedule::Decay shape, double final, double x) {
  switch (shape) {
    case Schedule::Decay::OneMinusSqrt: return final + (1 - final) * (1 - std::sqrt(x));
    case Schedule::Decay::Exponential: return std::pow(final, x);
    case Schedule::Decay::Linear: return final + (1 - final) * (1 - x);
  }
  internal_error(__FILE__, __LINE__, "decay shape");
}

}  // namespace

double rate_at(const Schedule& s, std::int64_t step) {
  SLMC_CHECK(step >= 0 && step < s.steps);
  if (step < s.warmup) return s.peak * static_cast<double>(step + 1) / static_cast<double>(s.warmup);
  switch (s.kind) {
    case Schedule::Kind::Constant: return s.peak;
    case Schedule::Kind::Wsd: {
      const std::int64_t start = std::max(s.steps - s.decay, s.warmup);
      if (step < start) return s.peak;
      return s.peak * falling(s.shape, s.final, static_cast<double>(step - start) / static_cast<double>(s.steps - start));
    }
    case Schedule::Kind::Cosine: {
      const double x = static_cast<double>(step - s.warmup) / static_cast<double>(s.steps - s.warmup);
      return s.peak * (s.final + (1 - s.final) * 0.5 * (1 + std::cos(std::numbers::pi * x)));
    }
  }
  internal_error(__FILE__, __LINE__, "schedule kind");
}

std::int64_t share_of(std::int64_t steps, double share, std::int64_t least) {
  const auto part = static_cast<std::int64_t>(std::llround(static_cast<double>(steps) * share));
  return std::min(steps, std::max(part, least));
}

Schedule::Kind schedule_kind(std::string_view name) {
  if (name == "wsd") return Schedule::Kind::Wsd;
  if (name == "cosine") return Schedule::Kind::Cosine;
  SLMC_CHECK(name == "constant");
  return Schedule::Kind::Constant;
}

Schedule::Decay decay_shape(std::string_view name) {
  if (name == "1-sqrt") return Schedule::Decay::OneMinusSqrt;
  if (name == "exponential") return Schedule::Decay::Exponential;
  SLMC_CHECK(name == "linear");
  return Schedule::Decay::Linear;
}

}  // namespace slmc::engine
