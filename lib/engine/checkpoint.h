#pragma once
// Recomputation: a part of a network whose inner values are not kept for backward but computed again there [Chen et al. 2016,
// arXiv:1604.06174].
#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace slmc::engine {

// body(inputs) with the same value and, bit for bit, the same gradients as calling it directly. Gradients flow to `inputs` and to every
// leaf that the body reads on its own; values that the body captures and that are not leaves get none. The body must give the
// same value each time and outlive backward with everything it refers to.
at::Tensor checkpoint(std::function<at::Tensor(const std::vector<at::Tensor>&)> body, const std::vector<at::Tensor>& inputs);

}  // namespace slmc::engine
