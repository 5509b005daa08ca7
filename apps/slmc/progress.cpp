#include "apps/slmc/progress.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/text.h"
#include "core/units.h"

namespace slmc::cli {
namespace {

constexpr double kBarEvery = 0.1, kLineEvery = 30;    // seconds
constexpr int kBarCells = 20;

std::string metric_text(const std::string& name, double value) {
  if (name == "tokens_per_s") return format_count(static_cast<std::uint64_t>(std::max(value, 0.0))) + " tokens/s";
  if (name == "bytes_per_s") return format_bytes(static_cast<std::uint64_t>(std::max(value, 0.0))) + "/s";
  std::string words = name;
  std::replace(words.begin(), words.end(), '_', ' ');
  return fmt::format("{} {:.4g}", words, value);
}

std::string amount_text(const Progress& progress, std::int64_t n) {
  return progress.bytes ? format_bytes(static_cast<std::uint64_t>(std::max<std::int64_t>(n, 0))) : std::to_string(n);
}

std::string speed_text(const Progress& progress, double items_per_s) {
  if (progress.bytes) return metric_text("bytes_per_s", items_per_s);
  return items_per_s >= 1 ? fmt::format("{:.3g}/s", items_per_s) : fmt::format("{} each", format_seconds(1 / items_per_s));
}

std::string bar_text(double share) {
  const int full = static_cast<int>(share * kBarCells);
  return "[" + std::string(static_cast<std::size_t>(full), '#') + std::string(static_cast<std::size_t>(kBarCells - full), '-') + "]";
}

}  // namespace

std::optional<std::string> ProgressLine::update(const Progress& progress, double now) {
  const bool fresh = progress.what != what_ || progress.done < last_done_;
  if (fresh) {
    what_ = progress.what;
    began_ = now;
    began_done_ = progress.done;
  }
  last_done_ = progress.done;
  const bool last = progress.of > 0 && progress.done >= progress.of;
  const double wait = bar_ ? kBarEvery : kLineEvery;
  if (!shown_) shown_ = bar_ ? now - wait : now;          // a bar at once, a plain line after the first wait
  if (!(bar_ && (fresh || last)) && now - *shown_ < wait) return std::nullopt;
  shown_ = now;
  return render(progress, now);
}

std::string ProgressLine::render(const Progress& progress, double now) const {
  const bool known = progress.of > 0;
  const double share = known ? std::clamp(static_cast<double>(progress.done) / static_cast<double>(progress.of), 0.0, 1.0) : 0;
  std::string out = progress.what;
  if (known && bar_) out += " " + bar_text(share);
  out += known ? fmt::format(" {:3.0f} %  {}/{}", share * 100, amount_text(progress, progress.done), amount_text(progress, progress.of))
               : "  " + amount_text(progress, progress.done);
  bool speed_given = false;
  for (const auto& [name, value] : progress.metrics) {
    if (name == "seconds_left" || name == "peak_bytes") continue;        // the line has an estimate of its own, the table the memory
    if (name.find('.') != name.npos) continue;                           // details: "ffn.lambda" is for the events and the result
    out += "  " + metric_text(name, value);
    speed_given = speed_given || name.ends_with("_per_s");
  }
  const double took = now - began_;
  const std::int64_t made = progress.done - began_done_;
  if (made > 0 && took > 0) {
    const double per_s = static_cast<double>(made) / took;
    if (!speed_given) out += "  " + speed_text(progress, per_s);
    if (known && progress.done < progress.of) {
      out += fmt::format("  {} left", format_seconds(static_cast<double>(progress.of - progress.done) / per_s));
    }
  }
  return bar_ ? cut_to(out, width_ - 1) : out;
}

}  // namespace slmc::cli
