// What PEFT knows of an adapter beyond its matrices, as diffusers keeps it in the file: JSON in the metadata entry
// lora_adapter_metadata, with keys "transformer.r", "transformer.lora_alpha", "transformer.rank_pattern", ….
//
//   if (const auto scales = peft_scales(file.metadata, file.path.string()))
//     pair.scale = scales->scale("transformer_blocks.0.attn.to_q", rank);
//
// Source: peft 0.21 LoraConfig, diffusers 0.42 loaders/peft.py. Values are immutable; thread-safe.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace calotype::adapters {

inline constexpr const char* kPeftMetadata = "lora_adapter_metadata";

class PeftScales {
 public:
  /// `source` names the file in messages. Errors: corrupt_file for fields of the wrong type.
  PeftScales(nlohmann::json config, std::string source);

  /// alpha / rank (alpha / √rank with rank-stabilised LoRA) of a module in diffusers' naming. Errors: corrupt_file when
  /// the file says another rank; unsupported for patterns that are true regular expressions.
  double scale(std::string_view module, int64_t rank) const;

 private:
  /// The number that holds for a module: its pattern's, or the general one; nothing when neither is there.
  std::optional<double> number(std::string_view module, const char* general, const char* patterns) const;
  bool matches(std::string_view pattern, std::string_view module) const;

  nlohmann::json config_;
  std::string source_;
};

/// Nothing when the file has no such entry for the transformer. Errors: corrupt_file.
std::optional<PeftScales> peft_scales(const std::map<std::string, std::string>& metadata, const std::string& source);

/// The entry's text for modules to be written.
struct ModuleRank {
  std::string module;  ///< "transformer_blocks.0.attn.to_q"
  int64_t rank = 0;
  double alpha = 0;
};
std::string peft_metadata(const std::vector<ModuleRank>& modules);

}  // namespace calotype::adapters
