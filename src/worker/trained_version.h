// What a finished training leaves in the store and on the hub.
//
//   const store::Version version = register_version(store, job.job(), {.adapter = "lora.safetensors", .tar =
//   "lora.tar"});
//
// One thread at a time.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "worker/services.h"

namespace calotype::worker {

struct TrainedAdapter {
  std::filesystem::path adapter;  ///< .safetensors
  std::filesystem::path tar;      ///< laid out as hosted trainers do
  std::string trigger;
  std::string base;             ///< name of the weights it was trained on
  std::string variant;          ///< "dev" or "schnell", for the licence
  Json about = Json::object();  ///< steps, rank, loss
};

/// Puts both files into the store and a version into the destination model, which is made when it is missing.
store::Version register_version(store::Store& store, const store::Job& job, const TrainedAdapter& trained);

/// README.md of the hub repository: licence, base model, trigger word, sample pictures (file names beside it).
std::string model_card(const std::string& repository, const TrainedAdapter& trained,
                       const std::vector<std::string>& samples);

/// Sends adapter, card and sample pictures to OWNER/NAME. Returns the page's address.
std::string push_adapter(const std::string& endpoint, const std::string& repository, const std::string& token,
                         const TrainedAdapter& trained, const std::vector<std::filesystem::path>& samples,
                         const base::CancelToken* cancel);

}  // namespace calotype::worker
