#include "quantization/quantize_info.h"

namespace slmc::quantization {

using stage::Type;

const stage::StageInfo& quantize_info() {
  static const stage::StageInfo info = {
      .name = "quantize",
      .summary = "store the weights of every block in few bits",
      .needs = {},
      .output = "",
      .settings =
          {
              {.name = "method", .type = Type::Choice, .fallback = "gptq", .help = "How codes are chosen.", .choices = {"rtn", "gptq"}},
              {.name = "to", .type = Type::Choice, .fallback = "gguf",
               .help = "Container: gguf (llama.cpp), or packed (compressed-tensors, for transformers and vLLM).", .choices = {"gguf", "packed"}},
              {.name = "type", .type = Type::Choice, .fallback = "q4_0", .help = "GGUF type of the blocks' matrices.",
               .choices = {"q4_0", "q4_1", "q5_0", "q5_1", "q8_0"}, .only_beside = "to", .only_values = {"gguf"}},
              {.name = "bits", .type = Type::Choice, .fallback = "4", .help = "Bits per code of packed matrices, those that every reader agrees on.",
               .choices = {"4", "8"}, .only_beside = "to", .only_values = {"packed"}},
              {.name = "group", .type = Type::Integer, .fallback = "auto",
               .help = "Columns of packed matrices that share a scale; auto: the largest of 128, 64, 32, 16 that divides every width.",
               .least = 1, .most = 1 << 20, .unit = "columns", .may_be_auto = true, .only_beside = "to", .only_values = {"packed"}},
              {.name = "symmetric", .type = Type::Boolean, .fallback = "true", .help = "Packed matrices without zero points.",
               .only_beside = "to", .only_values = {"packed"}},
              {.name = "embedding", .type = Type::Choice, .fallback = "auto",
               .help = "Type of the embedding and the head; auto: q8_0 in gguf, 16-bit floats in packed.",
               .choices = {"q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "f16", "bf16", "f32"}, .may_be_auto = true},
              {.name = "windows", .type = Type::Integer, .fallback = "32",
               .help = "gptq: how many calibration windows to use, at most; more changes little, and each block's inputs of all are in memory.",
               .least = 1, .most = 1 << 20, .unit = "windows", .only_beside = "method", .only_values = {"gptq"}},
              {.name = "damping", .type = Type::Number, .fallback = "0.01",
               .help = "gptq: added to the diagonal of each Gram matrix, as a share of its mean.", .least = 0, .most = 1,
               .only_beside = "method", .only_values = {"gptq"}},
              {.name = "order", .type = Type::Boolean, .fallback = "true",
               .help = "gptq: round the columns with the largest inputs first; groups keep their places, readers see no difference.",
               .only_beside = "method", .only_values = {"gptq"}},
          },
      .methods =
          {
              {.setting = "method", .name = "rtn", .summary = "round to nearest, each container's own reference fit", .paper = "", .needs = {}},
              {.setting = "method", .name = "gptq", .summary = "scales by importance, then rounding with error feedback, block by block",
               .paper = "Frantar et al. 2022, arXiv:2210.17323", .needs = {.calib = true, .passes = 1.2}},
          },
      .quantizes = true,
      .folder = "quantization",
  };
  return info;
}

}  // namespace slmc::quantization
