#include "worker/adapter_push.h"

#include <fmt/format.h>

#include "base/atomic_file.h"

namespace calotype::worker {
namespace fs = std::filesystem;

namespace {

constexpr const char* kDevLicence = "https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md";

std::string yaml_text(const std::string& text) { return nlohmann::json(text).dump(); }  // YAML reads JSON's strings

/// Removes it in the end, however that comes.
struct Staging {
  explicit Staging(const fs::path& folder) : path(folder) {
    fs::remove_all(path);
    fs::create_directories(path);
  }
  ~Staging() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  const fs::path path;
};

}  // namespace

std::string model_card(const std::string& repository, const TrainedAdapter& trained,
                       const std::vector<SamplePicture>& samples) {
  const bool dev = trained.variant == "dev", published = trained.base.starts_with("FLUX.1-");
  std::string card = "---\n";
  if (dev && published)
    card +=
        fmt::format("license: other\nlicense_name: flux-1-dev-non-commercial-license\nlicense_link: {}\n", kDevLicence);
  else if (published)
    card += "license: apache-2.0\n";
  if (published) card += fmt::format("base_model: black-forest-labs/{}\n", trained.base);
  card += "pipeline_tag: text-to-image\ntags:\n- flux\n- lora\n- text-to-image\n";
  if (!trained.trigger.empty()) card += fmt::format("instance_prompt: {}\n", yaml_text(trained.trigger));
  if (!samples.empty()) card += "widget:\n";
  for (const SamplePicture& sample : samples)
    card += fmt::format("- text: {}\n  output:\n    url: {}\n", yaml_text(sample.prompt),
                        sample.file.filename().string());
  card += fmt::format("---\n\n# {}\n\nAn adapter (LoRA) for {}, trained with Calotype.\n", repository, trained.base);
  if (!trained.trigger.empty())
    card += fmt::format("\n## Trigger word\n\nUse `{}` in the prompt to call what was learned.\n", trained.trigger);
  card += fmt::format(
      "\n## Use\n\n```python\nfrom diffusers import FluxPipeline\n\npipe = FluxPipeline.from_pretrained(\"{}\")\n"
      "pipe.load_lora_weights(\"{}\", weight_name=\"lora.safetensors\")\npicture = pipe(\"{}\").images[0]\n```\n",
      published ? "black-forest-labs/" + trained.base : trained.base, repository, trained.trigger);
  if (!samples.empty()) card += "\n## Samples\n\n";
  for (const SamplePicture& sample : samples)
    card += fmt::format("![sample]({})\n", sample.file.filename().string());
  if (dev && published)
    card +=
        "\n## Licence\n\nThe base model is licensed under the FLUX.1 [dev] Non-Commercial License by Black Forest Labs "
        "Inc. This adapter is a derivative of it, modified by fine-tuning, and bound by the same terms.\n";
  return card;
}

hub::PushResult push_adapter(const TrainedAdapter& trained, const AdapterPush& push) {
  const Staging staging(push.folder);
  std::vector<SamplePicture> samples;
  for (const SamplePicture& each : push.samples) {
    samples.push_back({staging.path / fmt::format("sample-{}.webp", samples.size()), each.prompt});
    fs::copy_file(each.file, samples.back().file);
  }
  fs::copy_file(trained.adapter, staging.path / "lora.safetensors");
  base::write_file(staging.path / "README.md", model_card(push.repository, trained, samples));
  return hub::push(staging.path, push.repository,
                   {.visibility = push.visibility,
                    .message = "Adapter trained with Calotype",
                    .access = push.access,
                    .progress = push.progress});
}

}  // namespace calotype::worker
