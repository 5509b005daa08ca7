#include "ir/target.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/file.h"
#include "core/units.h"
#include "io/ggml_types.h"
#include "ir/cost.h"
#include "ir/plan.h"

namespace slmc::ir {
namespace {

constexpr std::int64_t kPadding = 32;          // of tensors in a GGUF
constexpr std::int64_t kHiddenStep = 8;
constexpr std::uint64_t kMostTableBytes = 1 << 20;

double ffn_ms(const LatencyTable& table, std::int64_t width) {
  const auto above = table.ffn.lower_bound(width);
  if (width == 0) return 0;
  if (above != table.ffn.end() && above->first == width) return above->second;
  if (above == table.ffn.begin() || above == table.ffn.end())
    throw Error(ErrorKind::Recipe, Place{table.file, 0, 0, 1, {}},
                fmt::format("the table must hold feed-forward widths on both sides of {}, but does not", width), "measure a smaller or a larger one");
  const auto below = std::prev(above);
  const double share = static_cast<double>(width - below->first) / static_cast<double>(above->first - below->first);
  return below->second + share * (above->second - below->second);
}

double attention_ms(const LatencyTable& table, const BlockSizes& block) {
  if (block.heads() == 0) return 0;
  const auto it = table.attention.find({block.kv, block.q});
  if (it != table.attention.end()) return it->second;
  throw Error(ErrorKind::Recipe, Place{table.file, 0, 0, 1, {}},
              fmt::format("the table must hold attention of {} groups of {} heads, but does not", block.kv, block.q),
              fmt::format("add a line attn,{}x{},MS", block.kv, block.q));
}

std::int64_t microseconds(double ms) { return std::llround(ms * 1000); }

const LatencyTable& table_of(const Meter& meter) {
  if (meter.latency) return *meter.latency;
  throw Error(ErrorKind::Recipe, "a target in latency must have a table of measured times, but has none", "latency_table: FILE.csv");
}

std::int64_t elements(const TensorSpec& spec) {
  return std::accumulate(spec.shape.begin(), spec.shape.end(), std::int64_t{1}, std::multiplies<>());
}

std::int64_t padded_bytes(const TensorSpec& spec, const std::string& type) {
  const io::GgmlTypeInfo& info = *io::ggml_type(std::string_view(type));
  const std::int64_t bytes = elements(spec) / info.block * info.bytes;
  return (bytes + kPadding - 1) / kPadding * kPadding;
}

std::vector<std::int64_t> last(std::int64_t count, std::int64_t of) {
  std::vector<std::int64_t> out(static_cast<std::size_t>(count));
  std::iota(out.begin(), out.end(), of - count);
  return out;
}

std::int64_t present(const Sizes& sizes, const std::string& axis) {
  if (axis == "hidden") return sizes.hidden;
  std::int64_t most = 0;
  for (std::size_t b = 0; b < sizes.blocks.size(); ++b) most = std::max(most, sizes.of(axis, static_cast<std::int64_t>(b)));
  return most;
}

std::optional<std::int64_t> amount(Measure measure, std::string_view text) {
  if (measure == Measure::Latency) {
    const std::optional<double> s = parse_seconds(text);
    return s && *s > 0 ? std::optional<std::int64_t>(std::llround(*s * 1e6)) : std::nullopt;
  }
  const bool bytes = measure == Measure::FileBytes || measure == Measure::KvBytes;
  const std::optional<std::uint64_t> n = bytes ? parse_bytes(text) : parse_count(text);
  return n && *n > 0 && *n < (std::uint64_t{1} << 62) ? std::optional<std::int64_t>(static_cast<std::int64_t>(*n)) : std::nullopt;
}

std::string shown(Measure measure, std::int64_t value) {
  switch (measure) {
    case Measure::FileBytes:
    case Measure::KvBytes: return fmt::format("{} bytes", value);
    case Measure::Latency: return fmt::format("{:.3f} ms", static_cast<double>(value) / 1000);
    default: return std::to_string(value);
  }
}

}  // namespace

LatencyTable read_latency_table(const std::filesystem::path& file) {
  const std::string text = read_text(file, kMostTableBytes);
  LatencyTable out{.file = file.string()};
  int line = 0;
  const auto fail = [&](const std::string& what, const std::string& row) {
    throw Error(ErrorKind::Recipe, Place{out.file, line, 1, 1, row}, what, "lines are like ffn,1280,0.35 and attn,3x2,0.21 and rest,,4.1");
  };
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    std::string row = text.substr(at, end - at);
    at = end + 1, ++line;
    while (!row.empty() && (row.back() == '\r' || row.back() == ' ')) row.pop_back();
    if (row.empty()) continue;
    if (line == 1) {
      if (row != "part,size,ms") fail("the first line must be part,size,ms, but is another", row);
      continue;
    }
    const std::size_t first = row.find(','), second = first == std::string::npos ? first : row.find(',', first + 1);
    if (second == std::string::npos || row.find(',', second + 1) != std::string::npos) fail("a line must have three fields, but has not", row);
    const std::string part = row.substr(0, first), size = row.substr(first + 1, second - first - 1);
    const std::optional<double> ms = parse_number(row.substr(second + 1));
    if (!ms || !(*ms >= 0) || *ms > 1e9) fail("a time must be a number of milliseconds, but is not", row);
    const std::size_t x = size.find('x');
    const std::optional<std::uint64_t> a = parse_count(size.substr(0, x));
    const std::uint64_t b = x == std::string::npos ? 0 : parse_count(size.substr(x + 1)).value_or(0);
    bool fresh = true;
    if (part == "ffn" && a && *a < (1u << 24) && x == std::string::npos) {
      fresh = out.ffn.emplace(static_cast<std::int64_t>(*a), *ms).second;
    } else if (part == "attn" && a && b > 0 && *a < (1u << 16) && b < (1u << 16)) {
      fresh = out.attention.emplace(std::pair(static_cast<std::int64_t>(*a), static_cast<std::int64_t>(b)), *ms).second;
    } else if (part == "rest" && size.empty()) {
      out.rest += *ms;
    } else {
      fail("a line must be a time of ffn, attn or rest, but is not", row);
    }
    if (!fresh) fail("a shape must be measured once, but stands twice", row);
  }
  return out;
}

std::int64_t cost_in(Measure measure, const Model& model, const Meter& meter) {
  switch (measure) {
    case Measure::Parameters: return cost(model).parameters;
    case Measure::Flops: return std::llround(cost(model).flops_per_token);
    case Measure::KvBytes: return cost(model).kv_bytes_per_token;
    case Measure::FileBytes: {
      const std::map<std::string, std::string> types = gguf_types(model, meter.file_type);
      return gguf_bytes(model, {types.begin(), types.end()});
    }
    case Measure::Latency: break;
  }
  std::int64_t sum = microseconds(table_of(meter).rest);
  for (const std::int64_t b : cost_by_block(Measure::Latency, model, meter)) sum += b;
  return sum;
}

std::vector<std::int64_t> cost_by_block(Measure measure, const Model& model, const Meter& meter) {
  std::vector<std::int64_t> out(static_cast<std::size_t>(model.blocks()), 0);
  const auto sum = [&](const auto& of) {
    for (const TensorSpec& spec : model.tensors())
      if (spec.block >= 0 && !spec.derived) out[static_cast<std::size_t>(spec.block)] += of(spec);
  };
  if (measure == Measure::Parameters) sum(elements);
  if (measure == Measure::Flops) sum([](const TensorSpec& s) { return s.shape.size() == 2 ? 2 * elements(s) : 0; });
  if (measure == Measure::FileBytes) {
    const std::map<std::string, std::string> types = gguf_types(model, meter.file_type);
    sum([&](const TensorSpec& s) { return padded_bytes(s, types.at(s.name)); });
  }
  for (std::size_t b = 0; b < out.size(); ++b) {
    const BlockSizes& s = model.sizes().blocks[b];
    if (measure == Measure::KvBytes) out[b] = 2 * s.kv * (s.head_dim() + s.vd);
    if (measure == Measure::Flops) out[b] += 2 * s.heads() * (s.head_dim() + s.vd) * 512;
    if (measure == Measure::Latency) out[b] = microseconds(attention_ms(table_of(meter), s)) + microseconds(ffn_ms(table_of(meter), s.ffn));
  }
  return out;
}

const std::vector<std::pair<std::string, Measure>>& target_settings() {
  static const std::vector<std::pair<std::string, Measure>> all = {{"params", Measure::Parameters}, {"file_bytes", Measure::FileBytes},
                                                                   {"flops", Measure::Flops}, {"kv_bytes", Measure::KvBytes},
                                                                   {"latency", Measure::Latency}};
  return all;
}

Target target_from(const std::string& setting, const std::string& text, const Model& base, const Meter& meter) {
  const auto it = std::find_if(target_settings().begin(), target_settings().end(), [&](const auto& t) { return t.first == setting; });
  SLMC_CHECK(it != target_settings().end());
  Target out{.measure = it->second, .text = setting + " " + text};
  if (text.ends_with('%')) {
    const std::optional<double> share = parse_number(text.substr(0, text.size() - 1));
    const double kept = !share ? 0 : *share < 0 || text.front() == '-' ? 100 + *share : *share;
    if (share && kept > 0 && kept <= 100) {
      out.most = static_cast<std::int64_t>(std::floor(kept / 100 * static_cast<double>(cost_in(out.measure, base, meter)) + 1e-6));
      return out;
    }
  } else if (const std::optional<std::int64_t> n = amount(out.measure, text)) {
    out.most = *n;
    return out;
  }
  static const std::map<Measure, std::string> kExamples = {{Measure::Parameters, "108M"}, {Measure::FileBytes, "80MB"}, {Measure::Flops, "200M"},
                                                           {Measure::KvBytes, "16kB"}, {Measure::Latency, "5ms"}};
  throw Error(ErrorKind::Recipe, fmt::format("the setting '{}' must be a share such as -20% or 80%, or a value such as {}, but is {}", setting,
                                             kExamples.at(out.measure), text));
}

bool keeps(const Model& model, const std::vector<Target>& targets, const Meter& meter) {
  return std::all_of(targets.begin(), targets.end(), [&](const Target& t) { return cost_in(t.measure, model, meter) <= t.most; });
}

Model resized(const Model& model, const Sizes& sizes) {
  Plan plan(model);
  const Sizes& now = model.sizes();
  if (sizes.hidden < now.hidden) plan.take["hidden"] = last(sizes.hidden, now.hidden);
  for (std::size_t b = 0; b < now.blocks.size(); ++b) {
    const BlockSizes &to = sizes.blocks[b], &from = now.blocks[b];
    const std::string block = "block." + std::to_string(b);
    if (to.ffn < from.ffn) plan.take[block + ".ffn"] = last(to.ffn, from.ffn);
    if (to.kv < from.kv) plan.take[block + ".kv"] = last(to.kv, from.kv);
    for (std::int64_t g = 0; to.q < from.q && g < from.kv; ++g) plan.take[fmt::format("{}.kv.{}.q", block, g)] = last(to.q, from.q);
  }
  return apply(plan, model);
}

Sizes at_most(Sizes sizes, const std::string& axis, std::int64_t size) {
  if (axis == "hidden") sizes.hidden = std::min(sizes.hidden, size);
  for (BlockSizes& b : sizes.blocks) {
    if (axis == "ffn") b.ffn = std::min(b.ffn, size);
    if (axis == "kv") b.kv = std::min(b.kv, size);
    if (axis == "q") b.q = std::min(b.q, size);
  }
  return sizes;
}

std::vector<std::int64_t> legal_sizes(const Model& model, const std::string& axis, std::int64_t align, const std::string& container) {
  const std::int64_t now = present(model.sizes(), axis), step = axis == "ffn" ? align : axis == "hidden" ? kHiddenStep : 1;
  std::vector<std::int64_t> out;
  for (std::int64_t n = step; n < now; n += step) {
    if (axis != "ffn") {                       // a width has no law of its own
      Plan plan(model);
      const Sizes sizes = at_most(model.sizes(), axis, n);
      const Model cut = resized(model, sizes);
      if (!check(Plan(cut), cut).fits(container)) continue;
    }
    out.push_back(n);
  }
  out.push_back(now);
  return out;
}

std::optional<std::int64_t> largest_size(const Model& model, const Sizes& sizes, const std::string& axis, const std::vector<std::int64_t>& legal,
                                         const std::vector<Target>& targets, const Meter& meter) {
  // Downwards and not by halves: rows that fall back to a wider type make files grow where widths shrink.
  for (auto it = legal.rbegin(); it != legal.rend(); ++it)
    if (keeps(resized(model, at_most(sizes, axis, *it)), targets, meter)) return *it;
  return std::nullopt;
}

void refuse_targets(const Model& model, const Sizes& sizes, const std::map<std::string, std::vector<std::int64_t>>& axes,
                    const std::vector<Target>& targets, const Meter& meter) {
  Sizes least = sizes;
  std::string what;
  for (const auto& [axis, legal] : axes) {
    least = at_most(least, axis, legal.front());
    what += (what.empty() ? "" : ", ") + fmt::format("{} {}", axis == "q" ? "heads" : axis, legal.front());
  }
  const Model smallest = resized(model, least);
  for (const Target& t : targets) {
    const std::int64_t left = cost_in(t.measure, smallest, meter);
    if (left <= t.most) continue;
    throw Error(ErrorKind::Recipe, fmt::format("the target {} must be within reach, at most {}, but with {} there are still {}", t.text,
                                               shown(t.measure, t.most), what, shown(t.measure, left)),
                "nearest: " + shown(t.measure, left) + "; or let another axis be auto, or drop blocks first");
  }
  throw Error(ErrorKind::Recipe, "the targets must be within reach together, but no legal sizes meet all of them", "give up one of them");
}

}  // namespace slmc::ir
