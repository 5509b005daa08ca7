#pragma once
// How often each token is to be expected in text like the calibration text, by the model itself: the probability that it gives the token, summed over
// all positions. A count is one draw from these probabilities; their sum is its mean given the texts so far, so it has less variance (Rao-Blackwell;
// Blackwell 1947, Ann. Math. Stat. 18) and says something of tokens that the text happens not to hold.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "ir/model.h"
#include "stage/job.h"

namespace slmc::pruning {

// windows [n, seq] int64. By id, vocab of them: sum over positions of p(token | those before it in the window), and 1 for each time that it is there.
// The same bytes for any number of threads; softmax in fp32, sums in fp64. Error(Numeric) where the model gives no finite number.
std::vector<double> expected_counts(const ir::Model& model, const at::Tensor& windows, at::Device device, stage::Events& events);

}  // namespace slmc::pruning
