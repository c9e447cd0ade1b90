#include "pipeline/processor.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include "base/cpu_features.h"

namespace calotype::pipeline {
at::ScalarType default_dtype(int64_t parameters, at::Device device) {
  if (parameters <= 1'000'000'000) return at::kFloat;
  return device.is_cuda() || base::cpu_multiplies_bf16() ? at::kBFloat16 : at::kFloat;
}

std::string dtype_name(at::ScalarType dtype) {
  if (dtype == at::kBFloat16) return "bf16";
  return dtype == at::kHalf ? "f16" : "f32";
}

std::string device_text(at::Device device) {
  if (!device.is_cpu()) return device.str();
  return fmt::format("cpu ({}{} thread{})", base::cpu_multiplies_bf16() ? "native bf16, " : "", at::get_num_threads(),
                     at::get_num_threads() == 1 ? "" : "s");
}

}  // namespace calotype::pipeline
