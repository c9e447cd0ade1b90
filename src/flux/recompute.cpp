#include "flux/recompute.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

namespace calotype::flux {
namespace {

namespace autograd = torch::autograd;

struct Held : torch::CustomClassHolder {
  Piece piece;
};

struct Recomputed : autograd::Function<Recomputed> {
  static autograd::variable_list forward(autograd::AutogradContext* context, const at::TensorList& inputs,
                                         const c10::intrusive_ptr<Held>& held) {
    context->saved_data["piece"] = c10::IValue::make_capsule(held);
    context->save_for_backward(inputs.vec());
    return held->piece(inputs.vec());  // not recorded: the engine calls this without gradients
  }

  static autograd::variable_list backward(autograd::AutogradContext* context, const autograd::variable_list& grads) {
    const auto held = c10::static_intrusive_pointer_cast<Held>(context->saved_data["piece"].toCapsule());
    autograd::variable_list inputs;
    for (const at::Tensor& saved : context->get_saved_variables())
      inputs.push_back(saved.detach().set_requires_grad(saved.requires_grad()));
    autograd::variable_list outputs;
    {
      const at::AutoGradMode recorded(true);
      outputs = held->piece(inputs);
    }
    autograd::variable_list roots, root_grads;
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (!grads[i].defined() || !outputs[i].requires_grad()) continue;
      roots.push_back(outputs[i]);
      root_grads.push_back(grads[i]);
    }
    if (!roots.empty()) autograd::backward(roots, root_grads);
    autograd::variable_list result;
    for (const at::Tensor& input : inputs) result.push_back(input.grad());
    result.emplace_back();  // the piece itself
    return result;
  }
};

}  // namespace

std::vector<at::Tensor> recomputed(const std::vector<at::Tensor>& inputs, const Piece& piece) {
  auto held = c10::make_intrusive<Held>();
  held->piece = piece;
  autograd::variable_list recorded = inputs;
  // Frozen weights in front leave the first piece's input without a gradient, and then nothing would be recorded.
  bool any = false;
  for (const at::Tensor& input : recorded) any = any || input.requires_grad();
  if (!any) recorded[0] = recorded[0].detach().set_requires_grad(true);
  return Recomputed::apply(at::TensorList(recorded), held);  // of a vector the engine would not see the tensors
}

}  // namespace calotype::flux
