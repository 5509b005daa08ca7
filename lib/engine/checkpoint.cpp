#include "engine/checkpoint.h"

#include <ATen/ThreadLocalState.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

namespace slmc::engine {
namespace {

using torch::autograd::variable_list;
using Body = std::function<at::Tensor(const std::vector<at::Tensor>&)>;

struct Recorded : torch::CustomClassHolder {        // what backward needs besides tensors
  Body body;
  at::ThreadLocalState state;                       // grad mode and autocast as they were in forward
};

struct Recompute : torch::autograd::Function<Recompute> {
  // `anchor` is a scalar that requires a gradient, so that a node exists even when only the body's own leaves do.
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& anchor, at::TensorList inputs,
                            const c10::intrusive_ptr<Recorded>& recorded) {
    (void)anchor;
    ctx->save_for_backward(inputs.vec());
    ctx->saved_data["recorded"] = c10::IValue::make_capsule(recorded);
    const at::NoGradGuard no_grad;
    return recorded->body(inputs.vec());
  }

  static variable_list backward(torch::autograd::AutogradContext* ctx, variable_list gradient) {
    const auto recorded = c10::static_intrusive_pointer_cast<Recorded>(ctx->saved_data["recorded"].toCapsule());
    variable_list inputs;
    for (const at::Tensor& saved : ctx->get_saved_variables()) inputs.push_back(saved.detach().requires_grad_(saved.requires_grad()));
    {
      const at::ThreadLocalStateGuard as_in_forward(recorded->state);
      const at::AutoGradMode record(true);
      const at::Tensor value = recorded->body(inputs);
      if (value.requires_grad()) torch::autograd::backward({value}, {gradient[0]});
    }
    variable_list out = {at::Tensor()};                                  // of the anchor
    for (const at::Tensor& input : inputs) out.push_back(input.grad());
    out.emplace_back();                                                  // of `recorded`
    return out;
  }
};

}  // namespace

at::Tensor checkpoint(Body body, const std::vector<at::Tensor>& inputs) {
  auto recorded = c10::make_intrusive<Recorded>();
  recorded->body = std::move(body);
  const at::Tensor anchor = at::zeros({}, inputs.front().options().dtype(at::kFloat)).requires_grad_();
  return Recompute::apply(anchor, at::TensorList(inputs), recorded);
}

}  // namespace slmc::engine
