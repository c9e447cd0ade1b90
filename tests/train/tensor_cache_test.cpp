#include "train/tensor_cache.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "support/golden.h"

namespace calotype::train {
namespace {

namespace fs = std::filesystem;

TEST(TensorCache, KeepsEveryTypeAcrossRuns) {
  const test::TemporaryFolder folder;
  const at::Tensor mean = at::arange(6).to(at::kHalf).reshape({2, 3}), ids = at::arange(4), text = at::rand({3});
  {
    TensorCache cache(folder.path());
    EXPECT_FALSE(cache.has("a"));
    cache.put("a", {{"mean", mean}, {"ids", ids}});
    cache.flush();
    cache.put("b", {{"text", text.to(at::kBFloat16)}});
    cache.flush();
  }
  const TensorCache cache(folder.path());
  EXPECT_TRUE(at::equal(cache.get("a", "mean"), mean));
  EXPECT_TRUE(at::equal(cache.get("a", "ids"), ids));
  EXPECT_TRUE(at::equal(cache.get("b", "text"), text.to(at::kBFloat16)));
  EXPECT_THROW(cache.get("b", "mean"), base::Error);
}

// What was put and not yet written when an error or Ctrl-C unwinds.
TEST(TensorCache, WritesTheRestWhenItGoes) {
  const test::TemporaryFolder folder;
  { TensorCache(folder.path()).put("a", {{"mean", at::ones({5})}}); }
  EXPECT_TRUE(TensorCache(folder.path()).has("a"));
}

TEST(TensorCache, DamagedShardsAreComputedAgain) {
  const test::TemporaryFolder folder;
  for (const char* key : {"a", "b", "c"}) TensorCache(folder.path()).put(key, {{"mean", at::ones({5})}});
  fs::resize_file(folder / "000001.safetensors", 20);
  TensorCache cache(folder.path());
  EXPECT_TRUE(cache.has("a"));
  EXPECT_FALSE(cache.has("b"));
  EXPECT_TRUE(cache.has("c"));
  EXPECT_FALSE(fs::exists(folder / "000001.safetensors"));
  cache.put("b", {{"mean", at::zeros({5})}});
  cache.flush();
  EXPECT_TRUE(at::equal(TensorCache(folder.path()).get("b", "mean"), at::zeros({5})));
}

}  // namespace
}  // namespace calotype::train
