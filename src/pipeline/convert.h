// Writes a model in another layout, container or number type, tensor by tensor.
//
//   convert("FLUX.1-dev", "flux1-dev-q4_k.gguf", {.type = TensorType::q4_k});          // the transformer alone
//   convert("flux.safetensors", "FLUX.1-dev", {.layout = Layout::diffusers});          // a folder with all parts
//
// Needs less than 1 GB whatever the size of the model, and all cores. One call at a time per output; nothing
// half-written is ever seen under the output's name.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/cancel.h"
#include "base/progress.h"
#include "pipeline/convert_plan.h"

namespace calotype::pipeline {

/// What `--type` takes, for messages.
inline constexpr std::string_view kConvertTypes =
    "f32, f16, bf16, f8_e4m3, f8_e5m2, q8_0, q6_k, q5_k, q5_1, q5_0, q4_k, q4_1, q4_0, q3_k, q2_k";

struct ConvertOptions {
  std::optional<files::TensorType> type;  ///< f32, f16, bf16, f8 or a block type; absent: every tensor keeps its own
  Layout layout = Layout::bfl;
  std::optional<weights::Component> part;  ///< absent: all for a folder, the transformer or the only part for a file
  enum class Existing { refuse, replace } existing = Existing::refuse;
  base::Progress progress;  ///< stages "measure" and "convert", in tensors
  const base::CancelToken* cancel = nullptr;
};

struct WrittenFile {
  std::filesystem::path path;
  weights::Component component = weights::Component::transformer;
  uint64_t bytes = 0;
  std::map<files::TensorType, int64_t> types;  ///< how many tensors have each type
};

struct ConvertResult {
  std::vector<WrittenFile> files;
  std::vector<std::string> notes;  ///< what was left out or is missing, one sentence each
};

/// `in`: whatever open_files() reads. `out`: a file when it ends in .safetensors, .sft or .gguf, else a folder:
/// - bfl: flux1, ae, clip_l and t5xxl, each .safetensors or, where types need it, .gguf;
/// - diffusers: what FluxPipeline.from_pretrained() loads, with the tokenizers.
///
/// A folder that exists is refused or, with Existing::replace, its files are replaced one by one; others stay.
/// Errors: those of open_files() and plan_file(); bad_input for an output that exists, is part of the input or cannot
/// hold the type, for too little disk space, and for numbers that the type cannot hold; corrupt_file for NaN and
/// infinity.
ConvertResult convert(const std::filesystem::path& in, const std::filesystem::path& out,
                      const ConvertOptions& options = {});

}  // namespace calotype::pipeline
