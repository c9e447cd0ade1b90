#include "worker/trained_version.h"

#include "base/error.h"
#include "worker/model_catalog.h"

namespace calotype::worker {
namespace fs = std::filesystem;
using base::ErrorKind;

namespace {

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

}  // namespace calotype::worker
