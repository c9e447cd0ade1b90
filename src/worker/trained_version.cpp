#include "worker/trained_version.h"

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/sha256.h"
#include "hub/push.h"

namespace calotype::worker {
namespace fs = std::filesystem;
using base::ErrorKind;

namespace {

constexpr const char* kDevLicence = "https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md";

struct Destination {
  std::string owner, name;
};

Destination destination_of(const store::Job& job) {
  const size_t slash = job.destination.find('/');
  base::check(slash != std::string::npos, ErrorKind::bad_input, "destination is {}, expected OWNER/NAME",
              base::printable(job.destination));
  return {job.destination.substr(0, slash), job.destination.substr(slash + 1)};
}

store::StoredFile stored(store::Store& store, const store::Job& job, const fs::path& path, const std::string& name,
                         const std::string& content_type) {
  return store.files->put_file(
      {.name = name, .content_type = content_type, .purpose = store::FilePurpose::weights, .job = job.id}, path);
}

std::string yaml_text(const std::string& text) { return nlohmann::json(text).dump(); }  // YAML reads JSON's strings

}  // namespace

store::Version register_version(store::Store& store, const store::Job& job, const TrainedAdapter& trained) {
  const Destination to = destination_of(job);
  if (!store.models->find(to.owner, to.name))
    store.models->create({.owner = to.owner, .name = to.name, .description = "Trained with " + job.model});
  const std::string id = version_id(fine_tuned_model(), job.id + "\n" + job.destination);
  if (auto known = store.models->find_version(to.owner, to.name, id)) return *known;
  const store::StoredFile adapter = stored(store, job, trained.adapter, "lora.safetensors", "application/octet-stream");
  const store::StoredFile tar = stored(store, job, trained.tar, "trained_model.tar", "application/x-tar");
  Json about = trained.about;
  about.update({{"base", trained.variant},
                {"base_weights", trained.base},
                {"trigger_word", trained.trigger},
                {"lora_file", adapter.id},
                {"lora_sha256", adapter.sha256},
                {"weights_file", tar.id},
                {"training", job.id}});
  return store.models->add_version({.id = id, .owner = to.owner, .name = to.name, .about = about});
}

std::string model_card(const std::string& repository, const TrainedAdapter& trained,
                       const std::vector<std::string>& samples) {
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
  for (const std::string& sample : samples)
    card += fmt::format("- text: {}\n  output:\n    url: {}\n", yaml_text(trained.trigger), sample);
  card += fmt::format("---\n\n# {}\n\nAn adapter (LoRA) for {}, trained with Calotype.\n", repository, trained.base);
  if (!trained.trigger.empty())
    card += fmt::format("\n## Trigger word\n\nUse `{}` in the prompt to call what was learned.\n", trained.trigger);
  card += fmt::format(
      "\n## Use\n\n```python\nfrom diffusers import FluxPipeline\n\npipe = FluxPipeline.from_pretrained(\"{}\")\n"
      "pipe.load_lora_weights(\"{}\", weight_name=\"lora.safetensors\")\npicture = pipe(\"{}\").images[0]\n```\n",
      published ? "black-forest-labs/" + trained.base : trained.base, repository, trained.trigger);
  if (!samples.empty()) card += "\n## Samples\n\n";
  for (const std::string& sample : samples) card += fmt::format("![sample]({})\n", sample);
  if (dev && published)
    card +=
        "\n## Licence\n\nThe base model is licensed under the FLUX.1 [dev] Non-Commercial License by Black Forest Labs "
        "Inc. This adapter is a derivative of it, modified by fine-tuning, and bound by the same terms.\n";
  return card;
}

std::string push_adapter(const std::string& endpoint, const std::string& repository, const std::string& token,
                         const TrainedAdapter& trained, const std::vector<fs::path>& samples,
                         const base::CancelToken* cancel) {
  const fs::path folder = trained.adapter.parent_path() / "hub";
  fs::remove_all(folder);
  fs::create_directories(folder);
  std::vector<std::string> names;
  for (const fs::path& sample : samples) {
    names.push_back(sample.filename().string());
    fs::copy_file(sample, folder / names.back());
  }
  fs::copy_file(trained.adapter, folder / "lora.safetensors");
  base::write_file(folder / "README.md", model_card(repository, trained, names));
  const hub::PushResult pushed = hub::push(
      folder, repository,
      {.message = "Adapter trained with Calotype", .access = {.endpoint = endpoint, .token = token, .cancel = cancel}});
  fs::remove_all(folder);
  return pushed.page;
}

}  // namespace calotype::worker
