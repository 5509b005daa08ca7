#pragma once
// Which tensors of a model are trained, and the trained model as a model again.
#include <string>
#include <vector>

#include "engine/train/adamw.h"
#include "engine/weights.h"
#include "ir/model.h"

namespace slmc::engine {

// Two groups: matrices with decay; norms, biases, embeddings and learned positions without. Tensors that a glob in `frozen` matches are
// in neither. Sets requires_grad on what is trained. Error(Usage) when a glob matches nothing, or nothing is left to train.
std::vector<ParameterGroup> parameter_groups(PlainWeights& weights, double weight_decay, const std::vector<std::string>& frozen);

// `base` with the groups' values in place of its own, as F32. The values are not copied: they must not change while the result is used.
ir::Model with_values(const ir::Model& base, const std::vector<ParameterGroup>& groups);

// Weights to train from scratch, as GPT-2 draws them [Radford et al. 2019, section 2.3]: N(0, 0.02^2), attn.o and ffn.down divided by
// sqrt(2 blocks); gains 1, biases 0. A pure function of seed, name and shape.
io::TensorData drawn_weights(const ir::TensorSpec& spec, std::int64_t blocks, std::uint64_t seed);

}  // namespace slmc::engine
