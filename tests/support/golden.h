// Reference values made by other programs (tests/golden/README.md), and how far from them we may be.
//
//   const Golden g("m1_dev");
//   expect_close(vae.decode(g.at("vae.decode.input")), g.at("vae.decode.output"), {.relative = 1e-4});
#pragma once

#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "files/tensor_file.h"

namespace calotype::test {

/// Path of a file under tests/golden.
std::filesystem::path golden_path(const std::string& name);

class Golden {
 public:
  /// `name` without ".safetensors".
  explicit Golden(const std::string& name);
  bool has(const std::string& key) const { return tensors_.contains(key); }
  /// Real numbers as f32, integers as i64; a test failure and an empty tensor when there is no such key.
  at::Tensor at(const std::string& key) const;
  const nlohmann::json& settings() const { return settings_; }

 private:
  std::string name_;
  std::map<std::string, files::StoredTensor> tensors_;
  nlohmann::json settings_;
};

struct Tolerance {
  double relative = 1e-4;  ///< ‖got − want‖ / ‖want‖
};

/// ‖got − want‖ / ‖want‖ over all numbers, infinite when shapes differ or something is not finite.
double relative_error(const at::Tensor& got, const at::Tensor& want);
void expect_close(const at::Tensor& got, const at::Tensor& want, Tolerance tolerance, const std::string& what = "");

/// Peak signal-to-noise ratio in dB of values in 0 … 1.
double psnr(const at::Tensor& got, const at::Tensor& want);

/// A folder below the system's temporary folder that goes away with the object.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

struct ProgramResult {
  int exit_code = -1;
  std::string out, error;
};
/// Runs the built program with these arguments (no shell) and waits.
ProgramResult run_calotype(const std::vector<std::string>& arguments);

/// A Python that has this module: $CALOTYPE_PYTHON, what tools/test_clients made, or python3; "" when none has.
std::string python_with(const std::string& module);

}  // namespace calotype::test
