#pragma once
// Quantizes the linear maps of all blocks in one forward pass over calibration windows: each map is solved on the inputs that the
// already quantized maps before it give, and the stream goes on through the quantized weights. In memory at once: one block's
// weights, its inputs for all windows, and the codes found so far.
#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "ir/model.h"
#include "quantization/solvers/gptq.h"
#include "stage/job.h"

namespace slmc::quantization {

// Scheme of each linear map that becomes quantized, by logical name; maps that are not named stay as they are.
using Schemes = std::map<std::string, io::QuantScheme>;

struct BlockSettings {
  GptqSettings gptq;
  bool signed_scales = true;
  at::Device device = at::kCPU;              // of the forward pass; solving is on the CPU
};

struct QuantizedBlocks {
  std::map<std::string, io::TensorData> values;          // by logical name, quantized
  std::map<std::string, double> error;                   // (E|ΔW x|² + damping) / E|W x|² of each map
  std::vector<std::string> escalated;                    // maps whose Gram matrix needed more damping than asked for
  std::int64_t dead = 0;                                 // inputs that were zero in every window, over all maps
};

// windows [n, seq] int64. Maps that are stored in their scheme already keep their codes. Error(Interrupted) between blocks when asked to stop.
QuantizedBlocks quantize_blocks(const ir::Model& model, const at::Tensor& windows, const Schemes& schemes, const BlockSettings& settings,
                                stage::Events& events);

}  // namespace slmc::quantization
