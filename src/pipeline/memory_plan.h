// What a job will need in memory, worked out before anything is loaded.
//
//   MemoryPlan plan = plan_memory(bundle, request, available_memory(device));
//   plan.refuse_if_too_large();
//
// Pure functions but available_memory(), which asks the system.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "pipeline/model_bundle.h"

namespace calotype::pipeline {

struct MemoryRequest {
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
  int64_t width = 1024, height = 1024;  ///< pixels
  int64_t text_tokens = 512;
  int64_t batch = 1;
  bool guided_twice = false;  ///< true classifier-free guidance
};

/// Parts that are in memory at the same time.
struct MemoryStage {
  std::string name;         ///< "text encoders", "transformer", "VAE decode"
  uint64_t weights = 0;     ///< bytes resident
  uint64_t work = 0;        ///< activations and unpacked layers
  std::string freed_after;  ///< what leaves memory when the stage ends
  uint64_t total() const { return weights + work; }
};

struct MemoryPlan {
  uint64_t available = 0;  ///< bytes that the job may take
  std::vector<MemoryStage> stages;
  bool convert_once = true;  ///< plain weights of another type are converted at load; else at every use
  bool tiled_decode = false;

  uint64_t peak() const;
  /// out_of_memory with need and have per stage and what would help.
  void refuse_if_too_large() const;
  /// One line per stage.
  std::string text() const;
};

/// Free memory: of the machine within its control group's limit for the CPU, of the card for CUDA.
uint64_t available_memory(at::Device device);

MemoryPlan plan_memory(const ModelBundle& bundle, const MemoryRequest& request, uint64_t available);

/// Largest resident size of this process so far, in bytes.
uint64_t peak_memory();

/// "12.6 GB" with 10⁹ bytes to the GB.
std::string bytes_text(uint64_t bytes);

}  // namespace calotype::pipeline
