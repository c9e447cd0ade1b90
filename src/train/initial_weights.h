// Weights to begin with, for a model of which only the configuration exists: training from scratch.
//
//   if (lacks_weights(model)) model = with_initial_weights(model, work / "initial", options.seed);
//
// Not thread-safe on one target folder.
#pragma once

#include <cstdint>
#include <filesystem>

namespace calotype::train {

/// True for a diffusers folder in which a part has its config.json but no weights.
bool lacks_weights(const std::filesystem::path& model);

/// The folder again at `target`, with the weights that it lacks: matrices Xavier-uniform (T5's queries divided by the
/// root of the head width), convolutions as PyTorch begins them, modulation and last layer zero (so that training
/// begins at the identity), embeddings normal (0.02; T5's 1), norms 1, biases 0. The same seed makes the same weights.
/// Returns `target`. Sources: Peebles & Xie 2212.09748 (adaLN-zero); BFL model.py, transformers modeling_t5.py,
/// modeling_clip.py. Errors, before `target` is touched: corrupt_file for configurations that lack a size, have one
/// beyond all published models, or contradict themselves; out_of_memory when their product does not fit.
std::filesystem::path with_initial_weights(const std::filesystem::path& model, const std::filesystem::path& target,
                                           uint64_t seed);

}  // namespace calotype::train
