// Adapters by the names that inputs give them, as files on this machine.
//
//   LoraSources loras(store, files, {.hub = "https://huggingface.co"});
//   fs::path path = loras.find("me/flux-mine", secrets, &cancel);
//
//   owner/name, owner/name/VERSION          a model trained here, else a repository on the hub
//   [https://]replicate.com/owner/name[/versions/VERSION]          a model trained here
//   [https://]huggingface.co/owner/repository[/FILE.safetensors]
//   [https://]civitai.com/models/ID[/name], civitai.com/api/download/models/ID
//   http(s)://….safetensors, …/trained_model.tar, files of this server
//   data:…                                  a .safetensors or a tar of one
//
// Content decides between an adapter and an archive, which must hold exactly one .safetensors. What came over the
// network is kept in DATA/cache/loras by its URL; the oldest go first beyond the limit. One thread at a time; several
// processes may share the folder.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "worker/input_files.h"

namespace calotype::worker {

using Secrets = std::map<std::string, std::string>;

struct LoraSourceOptions {
  std::string hub = "https://huggingface.co";  ///< endpoint of the hub
  std::string civitai = "https://civitai.com";
  uint64_t cache_bytes = uint64_t{20} << 30;
};

/// A source as it may stand in a log: without query and data.
std::string shown_source(const std::string& source);

class LoraSources {
 public:
  LoraSources(store::Store& store, InputFiles& files, LoraSourceOptions options);

  /// `secrets`: hf_api_token and civitai_api_token, sent to their hosts only. Errors: not_found, bad_input and those of
  /// InputFiles; each begins with the source.
  std::filesystem::path find(const std::string& source, const Secrets& secrets, const base::CancelToken* cancel);

  /// The adapter of a version that was trained here. Error not_found when its file is gone.
  std::filesystem::path of_version(const store::Version& version);

 private:
  std::optional<std::filesystem::path> trained_here(const std::vector<std::string>& parts);
  std::filesystem::path from_hub(const std::vector<std::string>& parts, const Secrets& secrets,
                                 const base::CancelToken* cancel);
  std::filesystem::path from_url(const std::string& url, const InputFiles::Request& request,
                                 const base::CancelToken* cancel);
  std::filesystem::path place(const std::string& key) const;
  std::filesystem::path unpacked(const std::filesystem::path& file, const std::string& key,
                                 const std::string& source) const;
  void trim() const;

  store::Store& store_;
  InputFiles& files_;
  LoraSourceOptions options_;
  std::filesystem::path folder_;
};

}  // namespace calotype::worker
