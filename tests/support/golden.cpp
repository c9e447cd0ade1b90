#include "support/golden.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <limits>

#include "base/atomic_file.h"
#include "weights/unpack.h"

namespace calotype::test {
namespace fs = std::filesystem;

fs::path golden_path(const std::string& name) { return fs::path(CALOTYPE_SOURCE_DIR) / "tests" / "golden" / name; }

Golden::Golden(const std::string& name) : name_(name) {
  files::TensorFile file = files::open_tensor_file(golden_path(name + ".safetensors"));
  for (const files::StoredTensor& tensor : file.tensors) tensors_[tensor.name] = tensor;
  if (file.metadata.contains("settings")) settings_ = nlohmann::json::parse(file.metadata["settings"]);
}

at::Tensor Golden::at(const std::string& key) const {
  const auto found = tensors_.find(key);
  if (found == tensors_.end()) {
    ADD_FAILURE() << name_ << " has no reference " << key;
    return at::empty({0});
  }
  const files::StoredTensor& stored = found->second;
  if (files::is_real(stored.type)) return weights::unpack({.parts = {{.tensor = stored}}}, at::kFloat).clone();
  const at::ScalarType type = stored.type == files::TensorType::i32  ? at::kInt
                              : stored.type == files::TensorType::u8 ? at::kByte
                                                                     : at::kLong;
  auto* address = const_cast<std::byte*>(stored.bytes.data());
  return at::from_blob(address, stored.shape, at::TensorOptions().dtype(type)).to(at::kLong).clone();
}

double relative_error(const at::Tensor& got, const at::Tensor& want) {
  if (got.sizes() != want.sizes()) return std::numeric_limits<double>::infinity();
  const at::Tensor a = got.to(at::kCPU, at::kDouble), b = want.to(at::kDouble);
  const double error = ((a - b).norm() / b.norm().clamp_min(1e-30)).item<double>();
  return std::isfinite(error) ? error : std::numeric_limits<double>::infinity();
}

void expect_close(const at::Tensor& got, const at::Tensor& want, Tolerance tolerance, const std::string& what) {
  EXPECT_EQ(got.sizes(), want.sizes()) << what;
  EXPECT_LE(relative_error(got, want), tolerance.relative) << what;
}

double psnr(const at::Tensor& got, const at::Tensor& want) {
  const double error = (got.to(at::kDouble) - want.to(at::kDouble)).square().mean().item<double>();
  return error == 0 ? std::numeric_limits<double>::infinity() : -10 * std::log10(error);
}

TemporaryFolder::TemporaryFolder() {
  std::string name = (fs::temp_directory_path() / "calotype-test-XXXXXX").string();
  if (!::mkdtemp(name.data())) throw std::runtime_error("cannot make a temporary folder");
  path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

ProgramResult run_calotype(const std::vector<std::string>& arguments) {
  const TemporaryFolder folder;
  const fs::path out = folder / "out", error = folder / "error";
  const pid_t child = ::fork();
  if (child == 0) {
    const auto redirect = [](const fs::path& path, int descriptor) {
      ::dup2(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), descriptor);
    };
    redirect(out, STDOUT_FILENO);
    redirect(error, STDERR_FILENO);
    std::vector<char*> argv = {const_cast<char*>(CALOTYPE_BINARY)};
    for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    ::execv(CALOTYPE_BINARY, argv.data());
    ::_exit(127);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return {.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
          .out = base::read_file(out, 1 << 26),
          .error = base::read_file(error, 1 << 26)};
}

std::string python_with(const std::string& module) {
  const char* named = std::getenv("CALOTYPE_PYTHON");
  for (const std::string& python :
       {std::string(named ? named : ""), std::string(CALOTYPE_SOURCE_DIR "/build/clients/python/bin/python"),
        std::string("python3")})
    if (!python.empty() && std::system((python + " -c 'import " + module + "' >/dev/null 2>&1").c_str()) == 0)
      return python;
  return "";
}

}  // namespace calotype::test
