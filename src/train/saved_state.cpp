#include "train/saved_state.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "base/error.h"
#include "files/tensor_file.h"

namespace calotype::train {

using base::ErrorKind;

void copy_state(const OptimizerState& own, const OptimizerState& saved, std::string_view what) {
  const at::NoGradGuard no_grad;
  constexpr std::string_view kAdvice = "resume with the options of the run that saved it, or start a new run";
  const auto text = [](const at::Tensor& t) {
    return std::string(c10::toString(t.scalar_type())) + files::shape_text(t.sizes().vec());
  };
  for (const auto& [key, tensor] : own) {
    const auto found = saved.find(key);
    base::check(found != saved.end(), ErrorKind::conflict, "the saved {} has no tensor {}; {}", what, key, kAdvice);
    base::check(found->second.sizes() == tensor.sizes() && found->second.scalar_type() == tensor.scalar_type(),
                ErrorKind::conflict, "the saved {} has tensor {} as {}, expected {}; {}", what, key,
                text(found->second), text(tensor), kAdvice);
  }
  for (const auto& [key, tensor] : saved)
    base::check(own.contains(key), ErrorKind::conflict, "the saved {} has an unknown tensor {}; {}", what,
                base::printable(key), kAdvice);
  for (const auto& [key, tensor] : own) tensor.copy_(saved.at(key));
}

}  // namespace calotype::train
