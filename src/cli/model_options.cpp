#include "cli/model_options.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>

#include "base/data_folder.h"
#include "base/error.h"
#include "cli/terminal.h"
#include "hub/pull.h"

namespace calotype::cli {

using base::ErrorKind;

namespace {

at::Device parse_device(const std::string& text) {
  if (text == "auto") return at::hasCUDA() ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
  if (text == "cpu") return at::kCPU;
  int index = 0;
  const bool cuda = text == "cuda" || (text.starts_with("cuda:") && text.size() > 5 && text.size() < 8 &&
                                       std::sscanf(text.c_str() + 5, "%d", &index) == 1);
  base::check(cuda, ErrorKind::bad_input, "--device is {}, expected cpu, cuda or cuda:N", base::printable(text));
  const int count = static_cast<int>(at::detail::getCUDAHooks().deviceCount());
  base::check(at::hasCUDA() && index < count, ErrorKind::unsupported,
              "--device is {}, but there {} {} CUDA device{}; use --device cpu, or build against LibTorch's CUDA wheel",
              text, count == 1 ? "is" : "are", count, count == 1 ? "" : "s");
  return {at::kCUDA, static_cast<at::DeviceIndex>(index)};
}

std::optional<at::ScalarType> parse_dtype(const std::string& text) {
  if (text == "auto") return std::nullopt;
  if (text == "f32") return at::kFloat;
  if (text == "bf16") return at::kBFloat16;
  if (text == "f16") return at::kHalf;
  base::fail(ErrorKind::bad_input, "--dtype is {}, expected auto, f32, bf16 or f16", base::printable(text));
}

}  // namespace

void add_model_options(CLI::App& command, ModelOptions& options) {
  command.add_option(
      "--model", options.paths.model,
      "folder or file with a FLUX.1 model, in any layout, or OWNER/NAME after `calotype pull OWNER/NAME`");
  command.add_option("--transformer", options.paths.transformer, "file or folder whose transformer to use instead");
  command.add_option("--vae", options.paths.vae, "file or folder whose VAE to use instead");
  command.add_option("--clip", options.paths.clip, "file or folder whose CLIP text encoder to use instead");
  command.add_option("--t5", options.paths.t5, "file or folder whose T5 text encoder to use instead");
  command
      .add_option("--dtype", options.dtype,
                  "compute in f32, bf16 or f16; auto: f32 for small models, bf16 for large ones")
      ->capture_default_str();
  command.add_option("--device", options.device, "cpu, cuda or cuda:N; auto: CUDA when there")->capture_default_str();
  command.add_option("--threads", options.threads, "CPU threads, 0 = all cores")->capture_default_str();
}

pipeline::RuntimeOptions runtime_options(const ModelOptions& options) {
  base::check(options.threads >= 0 && options.threads <= 1024, ErrorKind::bad_input,
              "--threads is {}, expected 0 to 1024", options.threads);
  if (options.threads > 0) at::set_num_threads(options.threads);
  return {.dtype = parse_dtype(options.dtype), .device = parse_device(options.device)};
}

void use_pulled_model(ModelOptions& options) {
  std::filesystem::path& model = options.paths.model;
  std::error_code error;  // what is there but may not be looked at is told where it is opened
  if (model.empty() || std::filesystem::exists(model, error) || error) return;
  const auto pulled = hub::find_pulled_model(model.string());
  base::check(pulled.has_value(), ErrorKind::not_found,
              "--model {}: no such file or folder, and no model of that name was pulled with `calotype pull`",
              base::printable(model.string()));
  model = *pulled;
}

void choose_model(ModelOptions& options) {
  use_pulled_model(options);
  const pipeline::ModelPaths& p = options.paths;
  if (!p.model.empty() || !p.transformer.empty() || !p.vae.empty() || !p.clip.empty() || !p.t5.empty()) return;
  const std::filesystem::path box = base::model_in_the_box();
  base::check(!box.empty(), ErrorKind::bad_input,
              "no model was named; give --model a folder or file, for example --model models/FLUX.1-dev");
  options.paths.model = box;
  print_note(
      "no --model was named: this is the small model in the box, which draws icons; README tells how to use "
      "FLUX.1");
}

}  // namespace calotype::cli
