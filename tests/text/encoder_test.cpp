// Token ids and text encoders against transformers 5.23 (tools/reference/pipelines.py), f32: ids equal, states to 1e-5
// (sums of at most 100 products in another order, a few layers).
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "files/tensor_file.h"
#include "support/golden.h"
#include "text/clip_encoder.h"
#include "text/prompt.h"
#include "text/t5_encoder.h"
#include "weights/tensor_index.h"

namespace calotype::text {
namespace {

using test::Golden;
using weights::Component;

/// One encoder's files with its configuration, as the model bundle would index them.
weights::TensorIndex index_of(const std::string& folder, Component component) {
  std::vector<files::TensorFile> files;
  for (const auto& entry : std::filesystem::directory_iterator(test::golden_path(folder)))
    if (entry.path().extension() == ".safetensors") files.push_back(files::open_tensor_file(entry.path()));
  weights::TensorIndex index = weights::index_tensors(files).parts.at(component);
  std::ifstream config(test::golden_path(folder) / "config.json");
  index.config = nlohmann::json::parse(config);
  return index;
}

class TextEncoders : public testing::TestWithParam<const char*> {
 protected:
  std::string folder() const { return std::string("models/") + GetParam(); }
  Golden g{GetParam()};
  c10::InferenceMode inference;
};

TEST_P(TextEncoders, TokenIdsAreThoseOfTransformers) {
  const auto clip = ClipTokenizer::load(test::golden_path(folder() + "/tokenizer"));
  const auto t5 = T5Tokenizer::load(test::golden_path(folder() + "/tokenizer_2"));
  const at::Tensor clip_ids = g.at("clip.ids"), t5_ids = g.at("t5.ids");
  for (size_t i = 0; i < g.settings().at("prompts").size(); ++i) {
    const auto tokens = tokenize(g.settings()["prompts"][i].get<std::string>(), clip, t5,
                                 {.clip_tokens = clip_ids.size(1), .t5_tokens = t5_ids.size(1)});
    EXPECT_TRUE(at::tensor(tokens.clip, at::kLong).equal(clip_ids[static_cast<int64_t>(i)]));
    EXPECT_TRUE(at::tensor(tokens.t5, at::kLong).equal(t5_ids[static_cast<int64_t>(i)]));
  }
}

TEST_P(TextEncoders, ClipMatchesTransformers) {
  const ClipEncoder clip(index_of(folder() + "/text_encoder", Component::clip), {.dtype = at::kFloat});
  const ClipEncoder::Output out = clip.encode(g.at("clip.ids"));
  test::expect_close(out.last_hidden_BLD, g.at("clip.last_hidden"), {.relative = 1e-5}, "last hidden state");
  test::expect_close(out.pooled_BD, g.at("clip.pooled"), {.relative = 1e-5}, "pooled");
}

TEST_P(TextEncoders, T5MatchesTransformers) {
  const T5Encoder t5(index_of(folder() + "/text_encoder_2", Component::t5), {.dtype = at::kFloat});
  test::expect_close(t5.encode(g.at("t5.ids")), g.at("t5.out"), {.relative = 1e-5});
}

// Two bf16 runs differ by flipped roundings of 2⁻⁹ ≈ 0.2 % each; transformers evaluates "gelu_new" in several rounded
// steps where we round once, which is most of the 1 % seen.
TEST_P(TextEncoders, Bf16StaysWithinRoundings) {
  const T5Encoder t5(index_of(folder() + "/text_encoder_2", Component::t5), {.dtype = at::kBFloat16});
  const ClipEncoder clip(index_of(folder() + "/text_encoder", Component::clip), {.dtype = at::kBFloat16});
  EXPECT_LT(test::relative_error(t5.encode(g.at("t5.ids")), g.at("t5.out.bf16")), 0.02);
  EXPECT_LT(test::relative_error(clip.encode(g.at("clip.ids")).pooled_BD, g.at("clip.pooled.bf16")), 0.02);
}

INSTANTIATE_TEST_SUITE_P(Models, TextEncoders, testing::Values("m1_dev", "m2_schnell", "m3_schnell", "m4_dev"));

TEST(TextEncoder, TokenizerOfAnotherModelIsRefused) {
  const ClipEncoder clip(index_of("models/m2_schnell/text_encoder", Component::clip), {.dtype = at::kFloat});
  EXPECT_THROW(clip.encode(at::full({1, 8}, 49407, at::kLong)), base::Error);
}

}  // namespace
}  // namespace calotype::text
