#pragma once
// What a model may cost at most, in one of several measures, and the widths that keep to it: from shapes alone, no weight is read.
// A result is at most its target, never above; how far below depends on how fine the legal widths are.
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ir/model.h"

namespace slmc::ir {

enum class Measure {
  Parameters,                    // ir::Cost::parameters
  FileBytes,                     // of the GGUF of one type, fallback rules and tokenizer included; without the lineage, some kB
  Flops,                         // ir::Cost::flops_per_token at 512 tokens of context
  KvBytes,                       // ir::Cost::kv_bytes_per_token
  Latency,                       // microseconds per token by a measured table
};

// Measured times of the parts of one machine and hidden width. A CSV file, its header `part,size,ms` first:
//   ffn,1280,0.35                a feed-forward part of so many channels
//   attn,3x2,0.21                attention with 3 groups of 2 query heads
//   rest,,4.1                    everything else, once; may be left out
// Feed-forward widths between two measured ones lie on the line between them; shapes that were not measured are Error(Recipe).
struct LatencyTable {
  std::string file;
  std::map<std::int64_t, double> ffn;                                       // width -> ms
  std::map<std::pair<std::int64_t, std::int64_t>, double> attention;        // groups, heads of a group -> ms
  double rest = 0;                                                          // ms
};
LatencyTable read_latency_table(const std::filesystem::path& file);         // Error(Recipe) with its line

// How the measures that need more than shapes are taken.
struct Meter {
  std::string file_type = "f16";                // FileBytes: base type of the GGUF, see gguf_types
  std::optional<LatencyTable> latency;          // Latency
};
std::int64_t cost_in(Measure measure, const Model& model, const Meter& meter);

// What each block adds. Totals of models that differ only inside blocks differ by the differences of these; for FileBytes up to the text
// of the origin.
std::vector<std::int64_t> cost_by_block(Measure measure, const Model& model, const Meter& meter);

struct Target {
  Measure measure = Measure::Parameters;
  std::int64_t most = 0;
  std::string text;                             // "params -20%"
};
// The settings that are targets: "params", "file_bytes", "flops", "kv_bytes", "latency".
const std::vector<std::pair<std::string, Measure>>& target_settings();
// "-20%" or "80%" of the base, or a value: 108M parameters, 80MB, 200M FLOPs, 18kB, 5ms. Error(Recipe) naming the setting.
Target target_from(const std::string& setting, const std::string& text, const Model& base, const Meter& meter);

bool keeps(const Model& model, const std::vector<Target>& targets, const Meter& meter);

// The model at smaller sizes, the last entries of each axis kept: the longest that the origin's text can be. Blocks stay.
Model resized(const Model& model, const Sizes& sizes);
// No block has more of "kv", "q" or "ffn", nor the stream of "hidden", than `size`.
Sizes at_most(Sizes sizes, const std::string& axis, std::int64_t size);

// Sizes of an axis that a uniform model of `container` can have, ascending, the present one last: multiples of `align` for ffn, of 8 for hidden.
std::vector<std::int64_t> legal_sizes(const Model& model, const std::string& axis, std::int64_t align, const std::string& container);
// The largest of `legal` with which the model, at `sizes` otherwise, keeps all targets. Nothing when none does.
std::optional<std::int64_t> largest_size(const Model& model, const Sizes& sizes, const std::string& axis, const std::vector<std::int64_t>& legal,
                                         const std::vector<Target>& targets, const Meter& meter);
// Error(Recipe) for targets that the smallest legal sizes miss: says what can be reached. `axes`: axis -> legal sizes.
[[noreturn]] void refuse_targets(const Model& model, const Sizes& sizes, const std::map<std::string, std::vector<std::int64_t>>& axes,
                                 const std::vector<Target>& targets, const Meter& meter);

}  // namespace slmc::ir
