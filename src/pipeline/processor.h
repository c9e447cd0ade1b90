// What the machine computes with: processor features, threads, and the number type that suits them.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace calotype::pipeline {

/// f32 up to 10⁹ parameters; above that bf16 where the device multiplies it natively, else f32.
at::ScalarType default_dtype(int64_t parameters, at::Device device);

/// "f32", "bf16", "f16".
std::string dtype_name(at::ScalarType dtype);

/// "cpu (native bf16, 2 threads)" or "cuda:0".
std::string device_text(at::Device device);

}  // namespace calotype::pipeline
