// A trained adapter to a repository of a hub, with a card that says what it is.
//
//   const hub::PushResult pushed = push_adapter(
//       {.adapter = "lora.safetensors", .trigger = "TOK", .base = "FLUX.1-dev", .variant = "dev"},
//       {.access = {.token = token}, .repository = "me/flux-mine", .folder = scratch});
//
// Thread-safe with different folders. No LibTorch: servers include this.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "hub/push.h"

namespace calotype::worker {

using Json = nlohmann::json;

struct TrainedAdapter {
  std::filesystem::path adapter;  ///< .safetensors
  std::filesystem::path tar;      ///< laid out as hosted trainers do
  std::string trigger;
  std::string base;             ///< name of the weights it was trained on
  std::string variant;          ///< "dev" or "schnell", for the licence
  Json about = Json::object();  ///< steps, rank, loss
};

struct SamplePicture {
  std::filesystem::path file;  ///< WebP
  std::string prompt;
};

/// README.md of the hub repository: licence, base model, trigger word, sample pictures beside it.
std::string model_card(const std::string& repository, const TrainedAdapter& trained,
                       const std::vector<SamplePicture>& samples);

struct AdapterPush {
  hub::HubAccess access;
  std::string repository;              ///< OWNER/NAME
  std::vector<SamplePicture> samples;  ///< for the card
  std::filesystem::path folder;        ///< made anew for what is sent, and removed
  hub::HubClient::Visibility visibility = hub::HubClient::Visibility::open;
  base::Progress progress = {};
};

/// Errors: as hub::push().
hub::PushResult push_adapter(const TrainedAdapter& trained, const AdapterPush& push);

}  // namespace calotype::worker
