// What a converted file will hold: names, shapes and number types, and the stored numbers that each tensor is made of.
//
//   const FilePlan plan = plan_file(index, {.container = Container::gguf, .type = TensorType::q4_k});
//
// Nothing but headers is read. A plan points into its index, which must outlive it. Pure functions, thread-safe.
#pragma once

#include <optional>
#include <vector>

#include "weights/tensor_index.h"

namespace calotype::pipeline {

/// Names and row order of Black Forest Labs (and of Hugging Face for the text encoders), or of diffusers.
enum class Layout { bfl, diffusers };

struct Target {
  files::Container container = files::Container::safetensors;
  Layout layout = Layout::bfl;
  std::optional<files::TensorType> type;  ///< absent: every tensor keeps its own
};

/// Numbers begin … end − 1 of a stored tensor, counted in its order.
struct Piece {
  const weights::Source::Part* part = nullptr;
  int64_t begin = 0, end = 0;
};

struct OutputTensor {
  files::TensorEntry entry;
  std::vector<Piece> pieces;  ///< one after another they are the tensor; none for scales and markers
  float scale = 1.0f;         ///< value = scale · written number
  bool measured = false;      ///< the scale follows from the largest number, which is not known yet
  std::string scale_of;       ///< this tensor is the scale of that one
};

struct FilePlan {
  weights::Component component = weights::Component::transformer;
  files::Container container = files::Container::safetensors;
  std::vector<OutputTensor> tensors;  ///< in file order
  std::map<std::string, std::string> metadata;

  /// Size of the file, rounded up by less than 100 bytes a tensor.
  uint64_t bytes() const;
};

/// Plans the file of one part. Packed types go to the matrices of the transformer's and T5's blocks; embeddings, norms,
/// input and output layers stay plain, and CLIP and VAE keep what they have. GGUF stores vectors and tensors of at most
/// 1024 numbers as f32 (as city96/ComfyUI-GGUF tools/convert.py). f8_e4m3 gets a scale per tensor in BFL's layout, in
/// ComfyUI's form; diffusers knows none. Errors: unsupported for types that the container cannot hold, for CLIP and VAE
/// in GGUF; corrupt_file.
FilePlan plan_file(const weights::TensorIndex& index, const Target& target);

/// Largest magnitude that fits in a type without becoming infinite or being cut off.
float largest_number(files::TensorType type);

}  // namespace calotype::pipeline
