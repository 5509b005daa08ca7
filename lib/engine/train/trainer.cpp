#include "engine/train/trainer.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>

#include "core/cancel.h"
#include "core/error.h"
#include "core/units.h"

namespace slmc::engine {
namespace {

constexpr std::int64_t kCurvePoints = 200;

std::uint64_t peak_bytes() {
  rusage use{};
  getrusage(RUSAGE_SELF, &use);
  return static_cast<std::uint64_t>(use.ru_maxrss) * 1024;
}

struct StepLoss {
  std::vector<double> sums;               // of the task's terms, over all ranks
  std::int64_t counted = 0;
  double mean() const { return sums.front() / static_cast<double>(counted); }
};

class Run {
 public:
  Run(Task& task, std::vector<ParameterGroup> groups, const Batches& batches, const TrainSettings& settings, Communicator& communicator,
      stage::Events& events)
      : task_(task), batches_(batches), settings_(settings), communicator_(communicator), events_(events),
        adamw_(std::move(groups), settings.adamw), identity_(settings.identity ? *settings.identity : Json::object()) {
    SLMC_CHECK(settings.batch > 0 && settings.micro_batch > 0 && settings.batch % communicator.size() == 0);
  }

  TrainResult run() {
    TrainResult result;
    if (!settings_.folder.empty()) {
      if (auto found = load_checkpoint(settings_.folder, tensors(), identity_, events_)) {
        state_ = std::move(*found);
        restore_companions();
        saved_ = state_.step;
        result.resumed = true;
        events_.note(fmt::format("goes on from the checkpoint of step {} in {}", state_.step, settings_.folder.string()));
      }
    }
    before_ = state_.seconds;
    begin_ = std::chrono::steady_clock::now();
    while (state_.step < settings_.schedule.steps) {
      stop_if_asked();
      if (!begin_step()) break;
      const double rate = rate_at(settings_.schedule, state_.step);
      const StepLoss loss = accumulate();
      const double norm = require_finite(loss, adamw_.gradient_norm());
      adamw_.update(state_.step, rate, clip_factor(norm, settings_.clip));
      advance(loss, rate);
      report(loss, rate, norm);
      if (settings_.save_every > 0 && state_.step % settings_.save_every == 0) save();
    }
    guarded([&] {
      for (Companion* companion : settings_.companions) companion->end(state_.step);
      return true;
    });
    result.state = state_;
    result.peak_bytes = peak_bytes();
    return result;
  }

 private:
  // What companions do takes time; asked to stop within it, the run saves.
  bool guarded(const std::function<bool()>& work) {
    try {
      return work();
    } catch (const Error& e) {
      if (e.kind() == ErrorKind::Interrupted) stop_if_asked();
      throw;
    }
  }

  // Whether the run goes on.
  bool begin_step() {
    task_.begin_step(state_.step, settings_.schedule.steps);
    return guarded([&] {
      bool on = true;
      for (Companion* companion : settings_.companions) on &= companion->begin_step(state_.step, state_.windows);
      return on;
    });
  }

  std::vector<Parameter> tensors() const {
    std::vector<Parameter> all = adamw_.state();
    for (const Companion* companion : settings_.companions) {
      for (Parameter& p : companion->tensors()) all.push_back(std::move(p));
    }
    return all;
  }

  void restore_companions() {
    const std::size_t n = settings_.companions.size();
    if (n == 0) return;
    if (!state_.companion || !state_.companion->is_array() || state_.companion->size() != n) {
      throw Error(ErrorKind::Model, Place{settings_.folder.string(), 0, 0, 1, {}}, "the checkpoint must hold what goes along with this run, but does not");
    }
    for (std::size_t i = 0; i < n; ++i) settings_.companions[i]->restore((*state_.companion)[i]);
  }

  // Gradients of one step over all micro-batches and ranks, divided by the number of predictions that count.
  StepLoss accumulate() {
    const std::int64_t share = settings_.batch / communicator_.size(), first = state_.windows + communicator_.rank() * share;
    std::vector<Batch> parts;
    double counted = 0;
    for (std::int64_t at = 0; at < share; at += settings_.micro_batch) {
      parts.push_back(batches_.at(first + at, std::min(settings_.micro_batch, share - at)));
      counted += static_cast<double>(task_.count(parts.back()));
    }
    communicator_.sum({&counted, 1});
    StepLoss loss{std::vector<double>(task_.terms().size(), 0.0), static_cast<std::int64_t>(counted)};
    if (loss.counted == 0) {
      throw Error(ErrorKind::Data, fmt::format("a training step must predict at least one token, but step {} has none", state_.step + 1));
    }
    const double progress = static_cast<double>(state_.step) / static_cast<double>(settings_.schedule.steps);
    for (const Batch& part : parts) {
      stop_if_asked();                                     // gradients of a step that is not whole are dropped
      try {
        add(task_.add_gradients(part, 1.0 / counted, progress), loss.sums);
      } catch (const Error& e) {
        if (e.kind() == ErrorKind::Numeric) fail_numeric(e.message());
        throw;
      }
    }
    communicator_.sum(loss.sums);
    if (communicator_.size() > 1) communicator_.sum(gradients());
    return loss;
  }

  static void add(const std::vector<double>& from, std::vector<double>& to) {
    SLMC_CHECK(from.size() == to.size());
    for (std::size_t i = 0; i < to.size(); ++i) to[i] += from[i];
  }

  std::vector<at::Tensor> gradients() const {
    std::vector<at::Tensor> out;
    for (const ParameterGroup& group : adamw_.groups()) {
      for (const Parameter& p : group.parameters) {
        if (p.value.grad().defined()) out.push_back(p.value.grad());
      }
    }
    return out;
  }

  double require_finite(const StepLoss& loss, double norm) const {
    if (!std::isfinite(loss.mean())) fail_numeric(fmt::format("the loss must be finite, but is {}", loss.mean()));
    if (!std::isfinite(norm)) fail_numeric(fmt::format("the norm of the gradient must be finite, but is {}", norm));
    return norm;
  }

  [[noreturn]] void fail_numeric(const std::string& what) const {
    throw Error(ErrorKind::Numeric, fmt::format("{} at step {} of {}", what, state_.step + 1, settings_.schedule.steps),
                fmt::format("lower lr (now {}) or lengthen warmup; {}", format_number(rate_at(settings_.schedule, state_.step)), saved_text()));
  }

  void advance(const StepLoss& loss, double rate) {
    ++state_.step;
    state_.windows += settings_.batch;
    state_.tokens += settings_.batch * window_tokens();
    state_.counted += loss.counted;
    state_.seconds = before_ + sitting();
    if (state_.open_sums.empty()) state_.open_sums.resize(loss.sums.size());
    add(loss.sums, state_.open_sums);
    state_.open_counted += loss.counted;
    const std::int64_t steps = settings_.schedule.steps, every = std::max<std::int64_t>(1, steps / kCurvePoints);
    if (state_.step % every != 0 && state_.step != steps) return;
    CurvePoint point{state_.step, rate, state_.open_sums};
    for (double& mean : point.means) mean /= static_cast<double>(state_.open_counted);
    state_.curve.push_back(std::move(point));
    state_.open_sums.clear();
    state_.open_counted = 0;
  }

  std::int64_t window_tokens() {
    if (tokens_ == 0) tokens_ = batches_.at(0, 1).ids.size(1);
    return tokens_;
  }

  double sitting() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count(); }

  void report(const StepLoss& loss, double rate, double norm) {
    if (communicator_.rank() != 0) return;
    const std::int64_t steps = settings_.schedule.steps;
    const double speed = static_cast<double>(++done_here_ * settings_.batch * window_tokens()) / std::max(sitting(), 1e-9);
    Json event = {{"event", "progress"}, {"what", "train"}, {"done", state_.step}, {"of", steps}};
    const std::vector<std::string> terms = task_.terms();
    for (std::size_t i = 0; i < terms.size(); ++i) event[terms[i]] = loss.sums[i] / static_cast<double>(loss.counted);
    event["lr"] = rate;
    event["gradient_norm"] = norm;
    event["tokens_per_s"] = speed;
    event["seconds_left"] = static_cast<double>((steps - state_.step) * settings_.batch * window_tokens()) / speed;
    event["peak_bytes"] = peak_bytes();
    events_.emit(event);
  }

  void save() {
    if (settings_.folder.empty() || communicator_.rank() != 0 || saved_ == state_.step) return;
    Json states = Json::array();
    for (const Companion* companion : settings_.companions) states.push_back(companion->state());
    if (!states.empty()) state_.companion = std::make_shared<const Json>(std::move(states));
    save_checkpoint(settings_.folder, state_, tensors(), identity_);
    saved_ = state_.step;
  }

  void stop_if_asked() {
    if (cancel_requested() == 0) return;
    save();
    cancel_point(saved_text());
  }

  std::string saved_text() const {
    if (saved_ < 0) return "nothing is saved";
    return fmt::format("step {} of {} is saved in {}", saved_, settings_.schedule.steps, settings_.folder.string());
  }

  Task& task_;
  const Batches& batches_;
  const TrainSettings& settings_;
  Communicator& communicator_;
  stage::Events& events_;
  AdamW adamw_;
  Json identity_;
  TrainState state_;
  std::int64_t saved_ = -1, tokens_ = 0, done_here_ = 0;
  double before_ = 0;
  std::chrono::steady_clock::time_point begin_;
};

}  // namespace

void Companion::end(std::int64_t) {}
std::vector<Parameter> Companion::tensors() const { return {}; }

TrainResult train(Task& task, std::vector<ParameterGroup> groups, const Batches& batches, const TrainSettings& settings,
                  Communicator& communicator, stage::Events& events) {
  return Run(task, std::move(groups), batches, settings, communicator, events).run();
}

Json to_json(const TrainResult& result, const std::vector<std::string>& terms) {
  const TrainState& s = result.state;
  Json curve = Json::array();
  for (const CurvePoint& p : s.curve) {
    Json point = {{"step", p.step}, {"rate", p.rate}};
    for (std::size_t i = 0; i < terms.size(); ++i) point[terms[i]] = p.means[i];
    curve.push_back(std::move(point));
  }
  return {{"steps", s.step},       {"tokens", s.tokens},
          {"counted", s.counted},  {"seconds", s.seconds},
          {"tokens_per_s", s.seconds > 0 ? static_cast<double>(s.tokens) / s.seconds : 0.0},
          {"peak_bytes", result.peak_bytes}, {"resumed", result.resumed},
          {"curve", std::move(curve)}};
}

}  // namespace slmc::engine
