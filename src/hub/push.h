// Sends a folder or a file to a repository of a hub, making the repository where there is none.
//
//   push("out/my-lora", "me/flux-mine", {.message = "Trained on 14 pictures"});
//
// Files that the hub has already are not sent again; files that are only on the hub stay there. Thread-safe.
#pragma once

#include <filesystem>
#include <string>

#include "base/progress.h"
#include "hub/hub_client.h"

namespace calotype::hub {

struct PushOptions {
  HubClient::Visibility visibility = HubClient::Visibility::open;  ///< of a repository that is made now
  std::string message = "Upload with Calotype";
  HubAccess access = hub_access();
  base::Progress progress = {};  ///< stage "push", bytes
};

struct PushResult {
  std::string page;    ///< where people look at the repository
  std::string commit;  ///< URL; "" when the hub ignored every file
  bool created = false;
  int files = 0;
  uint64_t bytes = 0;
};

/// `source`: a file, or a folder with everything below it but hidden files, folders' links and unfinished files
/// (*.part, *.partial-*). Errors: as HubClient; bad_input when there is nothing to send.
PushResult push(const std::filesystem::path& source, const std::string& repo, PushOptions options = {});

}  // namespace calotype::hub
