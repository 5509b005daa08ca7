#include "pruning/prune_info.h"

namespace slmc::pruning {

using stage::Effect;
using stage::Type;

namespace {

const char* const kFfn = "ffn, params, file_bytes, flops, kv_bytes, latency";
const char* const kNarrowed = "ffn, kv, heads, hidden, params, file_bytes, flops, kv_bytes, latency";

}  // namespace

const stage::StageInfo& prune_info() {
  static const stage::StageInfo info = {
      .name = "prune",
      .summary = "make a model narrower: feed-forward channels, query heads, key/value groups, hidden width, vocabulary",
      .needs = {},
      .output = "",
      .settings =
          {
              {.name = "ffn", .type = Type::Integer, .help = "Feed-forward channels that each block keeps; unset keeps all; auto: as a target allows.",
               .least = 1, .most = 1 << 24, .unit = "channels", .may_be_auto = true},
              {.name = "kv", .type = Type::Integer, .help = "Key/value groups, with their query heads, that each block keeps; unset keeps all.",
               .least = 1, .most = 1 << 16, .unit = "groups", .may_be_auto = true},
              {.name = "kv_mode", .type = Type::Choice, .fallback = "drop",
               .help = "How groups go: drop removes them with their query heads; merge averages the keys and values of neighbours, and all query heads stay.",
               .choices = {"drop", "merge"}, .only_beside = "kv"},
              {.name = "heads", .type = Type::Integer, .help = "Query heads that each key/value group keeps; unset keeps all.", .least = 1,
               .most = 1 << 16, .unit = "heads of a group", .may_be_auto = true},
              {.name = "hidden", .type = Type::Integer, .help = "Channels of the residual stream that stay, the same in all blocks; unset keeps all.",
               .least = 1, .most = 1 << 24, .unit = "channels", .may_be_auto = true},
              {.name = "params", .type = Type::Text,
               .help = "Target: at most so many parameters, 108M, or a share of the model's, -20% or 80%. The widths that are auto, else ffn, become as "
                       "large as all targets allow."},
              {.name = "file_bytes", .type = Type::Text, .help = "Target: at most so many bytes of a GGUF in 'file_type', 80MB, or a share."},
              {.name = "flops", .type = Type::Text, .help = "Target: at most so many FLOPs per token at 512 tokens of context, 200M, or a share."},
              {.name = "kv_bytes", .type = Type::Text, .help = "Target: at most so many bytes of keys and values per token in 16 bits, 16kB, or a share."},
              {.name = "latency", .type = Type::Text, .help = "Target: at most so much time per token by 'latency_table', 5ms, or a share."},
              {.name = "file_type", .type = Type::Choice, .fallback = "auto",
               .help = "Type whose file 'file_bytes' means; auto: that of the next stage that quantizes to a GGUF, else f16.",
               .choices = {"f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"}, .may_be_auto = true, .only_beside = "file_bytes"},
              {.name = "latency_table", .type = Type::Path,
               .help = "CSV of measured times, part,size,ms: ffn,1280,0.35 and attn,3x2,0.21 (groups x heads of a group) and rest,,4.1.", .only_beside = "latency"},
              {.name = "allocate", .type = Type::Choice, .fallback = "uniform",
               .help = "uniform: every block alike, which loads everywhere; per-layer: feed-forward widths of equal total cost where they matter most, "
                       "as a GGUF that llama.cpp opens (deci).",
               .choices = {"uniform", "per-layer"}, .only_beside = kFfn},
              {.name = "criterion", .type = Type::Choice, .fallback = "wanda", .help = "Which channels and groups matter.",
               .choices = {"random", "magnitude", "l1", "l2", "maw", "minitron", "wanda", "flap", "obs", "taylor-vector", "taylor-element1",
                           "taylor-element2", "taylor-mixed", "taylor-kl", "auto"},
               .only_beside = kNarrowed},
              {.name = "aggregate", .type = Type::Choice, .fallback = "sum",
               .help = "How the scores of the tensors that a structure runs through become one; first and last in the order gate up down and q k v o.",
               .choices = {"sum", "prod", "max", "mean", "first", "last"}, .only_beside = "criterion",
               .only_values = {"l1", "l2", "taylor-vector", "taylor-element1", "taylor-element2", "taylor-mixed"}},
              {.name = "stability", .type = Type::Integer, .fallback = "0",
               .help = "Decide again on so many resamples of the calibration windows and say how much of the choice stays the same; no further pass.",
               .least = 0, .most = 1000, .unit = "resamples", .only_beside = "criterion", .only_values = {"minitron", "wanda", "flap"}},
              {.name = "refit", .type = Type::Choice, .fallback = "dense",
               .help = "Let what is kept take over what the removed did, by least squares on calibration text.",
               .choices = {"none", "bias", "dense", "sequential"}, .only_beside = kNarrowed},
              {.name = "vocab", .type = Type::Integer, .help = "Tokens that the vocabulary keeps, a multiple of 64; unset keeps all.", .least = 1,
               .most = 1 << 24, .unit = "tokens"},
              {.name = "keep", .type = Type::Choice, .fallback = "expected", .help = "Which tokens stay, beside special ones, bytes and what they are merged from.",
               .choices = {"rank", "count", "expected"}, .only_beside = "vocab"},
              {.name = "align", .type = Type::Integer, .fallback = "auto",
               .help = "The feed-forward width must be a multiple of this; auto: 32, the block of the 4-, 5- and 8-bit containers.", .least = 1,
               .most = 4096, .unit = "channels", .may_be_auto = true, .only_beside = kFfn},
              {.name = "to", .type = Type::Choice, .fallback = "hf",
               .help = "What to write: a Hugging Face folder with the plan in it, or a GGUF file, which can hold some shapes that a folder can't.",
               .choices = {"hf", "gguf"}},
          },
      .methods =
          {
              {.setting = "criterion", .name = "random", .summary = "a seeded draw: the control that every criterion must beat", .paper = "", .needs = {}},
              {.setting = "criterion", .name = "magnitude", .summary = "norms of a channel's weights",
               .paper = "Li et al. 2017, arXiv:1608.08710", .needs = {}},
              {.setting = "criterion", .name = "wanda", .summary = "norms of the weights times the size of what flows through them",
               .paper = "Sun et al. 2023, arXiv:2306.11695, for whole channels as in An et al. 2023, arXiv:2312.11983", .needs = {.calib = true, .passes = 1}},
              {.setting = "criterion", .name = "l1", .summary = "sums of the magnitudes of a structure's weights",
               .paper = "Li et al. 2017, arXiv:1608.08710", .needs = {}},
              {.setting = "criterion", .name = "l2", .summary = "sums of the squares of a structure's weights",
               .paper = "Ma et al. 2023, arXiv:2305.11627, the control of sec. 4", .needs = {}},
              {.setting = "criterion", .name = "maw", .summary = "largest and smallest weights of gate and up, for gated feed-forward parts",
               .paper = "the neuron selection of OptiPFair", .needs = {}},
              {.setting = "criterion", .name = "minitron", .summary = "how large a structure's activations are",
               .paper = "Muralidharan et al. 2024, arXiv:2407.14679", .needs = {.calib = true, .passes = 1}},
              {.setting = "criterion", .name = "flap", .summary = "how much a structure's activations vary, times its weights",
               .paper = "An et al. 2023, arXiv:2312.11983", .needs = {.calib = true, .passes = 1}},
              {.setting = "criterion", .name = "obs", .summary = "greedy: what the others can stand in for best goes first",
               .paper = "Hassibi & Stork 1993; Kurtic et al. 2023, arXiv:2302.04089", .needs = {.calib = true, .passes = 1}},
              {.setting = "criterion", .name = "taylor-vector", .summary = "LLM-Pruner: |sum of weight times gradient|",
               .paper = "Ma et al. 2023, arXiv:2305.11627, eq. 3", .needs = {.calib = true, .passes = 4}},
              {.setting = "criterion", .name = "taylor-element1", .summary = "LLM-Pruner: sum of |weight times gradient|",
               .paper = "Ma et al. 2023, arXiv:2305.11627, eq. 5, first order", .needs = {.calib = true, .passes = 4}},
              {.setting = "criterion", .name = "taylor-element2", .summary = "LLM-Pruner: squares of weights times squares of gradients",
               .paper = "Ma et al. 2023, arXiv:2305.11627, eq. 5, second order", .needs = {.calib = true, .passes = 4}},
              {.setting = "criterion", .name = "taylor-mixed", .summary = "LLM-Pruner: both orders",
               .paper = "Ma et al. 2023, arXiv:2305.11627, eq. 5", .needs = {.calib = true, .passes = 4}},
              {.setting = "criterion", .name = "taylor-kl", .summary = "how fast the predictions move away from the whole model's",
               .paper = "after Theis et al. 2018, arXiv:1801.05787, eq. 6", .needs = {.calib = true, .passes = 4}},
              {.setting = "criterion", .name = "auto", .summary = "tries wanda, minitron, flap, obs and taylor-element1 on held-out calibration text",
               .paper = "", .needs = {.calib = true, .whole = true, .passes = 12}},
              {.setting = "refit", .name = "none", .summary = "cut only", .paper = "", .needs = {}},
              {.setting = "refit", .name = "bias", .summary = "biases take the mean of what was removed; for families that have them",
               .paper = "An et al. 2023, arXiv:2312.11983, sec. 3.3", .needs = {.calib = true, .passes = 1.2}},
              {.setting = "refit", .name = "dense", .summary = "maps that lose inputs, for what they read in the whole model, from cached statistics",
               .paper = "after He et al. 2017, arXiv:1707.06168, sec. 3.1", .needs = {.calib = true, .passes = 1.2}},
              {.setting = "refit", .name = "sequential", .summary = "then block after block, for what the repaired blocks before it let through",
               .paper = "after He et al. 2017, arXiv:1707.06168, sec. 3.1", .needs = {.calib = true, .passes = 3}},
              {.setting = "allocate", .name = "uniform", .summary = "one width for all blocks", .paper = "", .needs = {}},
              {.setting = "allocate", .name = "per-layer",
               .summary = "marginal losses from OBS errors and the KL of one block cut, dynamic programming, held-out KL against uniform",
               .paper = "after Frantar & Alistarh 2022, arXiv:2208.11580, sec. 5", .needs = {.calib = true, .whole = true, .passes = 4}},
              {.setting = "keep", .name = "rank", .summary = "the first merges, which the tokenizer's makers found the most frequent", .paper = "", .needs = {}},
              {.setting = "keep", .name = "count", .summary = "what the calibration text holds, and what tokens of that rank do on average",
               .paper = "isotonic regression: Ayer et al. 1955", .needs = {.calib = true}},
              {.setting = "keep", .name = "expected", .summary = "what the model expects in text like the calibration windows, by its own probabilities",
               .paper = "after Blackwell 1947", .needs = {.calib = true, .whole = true, .passes = 1}},
          },
      .effects = {{Effect::Kind::Resize, "ffn", "ffn"}, {Effect::Kind::Resize, "kv", "kv", "kv_mode", "drop"}, {Effect::Kind::Resize, "heads", "q"},
                  {.kind = Effect::Kind::Resize, .setting = "hidden", .axis = "hidden", .needs = {.calib = true}}, {Effect::Kind::Resize, "vocab", "vocab"},
                  {Effect::Kind::Merge, "kv", "kv", "kv_mode", "merge"}},
      .folder = "pruning",
  };
  return info;
}

}  // namespace slmc::pruning
