#include "weights/tensor_writer.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <gtest/gtest.h>

#include "base/atomic_file.h"
#include "base/error.h"
#include "support/golden.h"

namespace calotype::weights {
namespace {

TEST(TensorWriter, BringsBackEveryTypeAndLayout) {
  const test::TemporaryFolder folder;
  const at::Tensor numbers = at::arange(-12, 12).reshape({2, 3, 4});
  const std::map<std::string, at::Tensor> written = {
      {"bf16", numbers.to(at::kBFloat16)},
      {"bytes", at::arange(5, at::kByte)},  // an odd number of bytes must not misalign what follows
      {"f16", numbers.to(at::kHalf)},
      {"f32.transposed", numbers.to(at::kFloat).div(7).transpose(0, 2)},
      {"f32.trained", at::ones({3}).requires_grad_()},
      {"f64", numbers.to(at::kDouble).div(3)},
      {"i32", numbers.to(at::kInt)},
      {"i64.scalar", at::scalar_tensor(int64_t{1} << 40, at::kLong)},
      {"nothing", at::empty({0, 4})},
  };
  const std::map<std::string, std::string> metadata = {{"prompt", "a \"quoted\" 漢 word\n"}, {"step", "7"}};
  write_tensors(folder / "t.safetensors", written, metadata);

  std::map<std::string, std::string> read_metadata;
  const auto read = read_tensors(folder / "t.safetensors", &read_metadata);
  EXPECT_EQ(read_metadata, metadata);
  ASSERT_EQ(read.size(), written.size());
  for (const auto& [name, tensor] : written) {
    EXPECT_EQ(read.at(name).scalar_type(), tensor.scalar_type()) << name;
    EXPECT_TRUE(at::equal(read.at(name), tensor.detach())) << name;
  }
  for (const files::StoredTensor& stored : files::open_tensor_file(folder / "t.safetensors").tensors)
    EXPECT_EQ(reinterpret_cast<uintptr_t>(stored.bytes.data()) % files::traits(stored.type).block_bytes, 0u)
        << stored.name;
  read.at("bytes").fill_(1);  // copies: the file's own pages would end the process here
}

// tests/golden/noise.safetensors was written by Python's safetensors (tools/reference/pipelines.py). What we write from
// what we read must hold the same bytes of every tensor.
TEST(TensorWriter, ReadsWhatPythonWrote) {
  const auto tensors = read_tensors(test::golden_path("noise.safetensors"));
  ASSERT_FALSE(tensors.empty());
  const test::TemporaryFolder folder;
  write_tensors(folder / "copy", tensors);
  const files::TensorFile golden = files::open_tensor_file(test::golden_path("noise.safetensors"));
  const files::TensorFile copy = files::open_tensor_file(folder / "copy");
  ASSERT_EQ(golden.tensors.size(), copy.tensors.size());
  for (const files::StoredTensor& want : golden.tensors) {
    const auto got = std::ranges::find(copy.tensors, want.name, &files::StoredTensor::name);
    ASSERT_NE(got, copy.tensors.end()) << want.name;
    EXPECT_EQ(got->type, want.type);
    EXPECT_EQ(got->shape, want.shape);
    EXPECT_TRUE(std::ranges::equal(got->bytes, want.bytes)) << want.name;
  }
}

TEST(TensorWriter, RefusesOtherTypesAndLeavesTheOldFile) {
  const test::TemporaryFolder folder;
  base::write_file(folder / "t", "old");
  const std::map<std::string, at::Tensor> bad = {{"a", at::ones({2})}, {"b", at::ones({2}, at::kBool)}};
  try {
    write_tensors(folder / "t", bad);
    FAIL();
  } catch (const base::Error& error) {
    EXPECT_EQ(error.kind(), base::ErrorKind::unsupported);
    EXPECT_NE(std::string(error.what()).find("tensor b"), std::string::npos) << error.what();
  }
  EXPECT_EQ(base::read_file(folder / "t", 10), "old");
}

}  // namespace
}  // namespace calotype::weights
