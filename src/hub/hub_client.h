// A model hub that speaks huggingface.co's protocol: what a repository holds, its files, and files for it.
//
//   const HubClient hub(hub_access());
//   const Repository repo = hub.look_up("black-forest-labs/FLUX.1-schnell", "main");
//   for (const RepoFile& file : repo.files) hub.fetch(repo, file, folder / file.path);
//
// pull.h and push.h are what most callers want. Everything that a hub answers is foreign and checked: names, sizes,
// counts, checksums. The token goes to the endpoint only, never to the stores that it redirects to. Error kinds:
// not_found for repositories, revisions and files that are not there, and for a hub that cannot be reached or is busy;
// bad_input for a missing or insufficient token and for gated repositories, with what to do; corrupt_file for answers
// that make no sense and bytes that do not have their checksum; others as in http_client.h. Immutable and thread-safe.
// Source of the protocol: huggingface_hub (hf_api.py, file_download.py, _commit_api.py, lfs.py), git-lfs' batch API.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/cancel.h"
#include "hub/http_client.h"

namespace calotype::hub {

struct HubAccess {
  std::string endpoint = "https://huggingface.co";
  std::string token = {};  ///< "" asks as a stranger
  const base::CancelToken* cancel = nullptr;
  const AddressGuard* guard = nullptr;
};

/// As huggingface_hub finds them: endpoint from HF_ENDPOINT; token from HF_TOKEN, else from the file that `hf auth
/// login` writes (HF_TOKEN_PATH, HF_HOME/token, ~/.cache/huggingface/token).
HubAccess hub_access();

struct RepoFile {
  std::string path;
  std::optional<uint64_t> size;
  std::string sha256;  ///< 64 hexadecimal digits for large files (LFS), else ""
  std::string git_id;  ///< 40 hexadecimal digits for small ones, "" when the hub does not say
};

struct Repository {
  std::string name;    ///< OWNER/NAME, the present one where a repository was renamed
  std::string commit;  ///< 40 hexadecimal digits
  bool gated = false;
  std::vector<RepoFile> files;  ///< at most 10,000, every name checked by file_name_problem()
};

/// A file on this disk and its name in a repository.
struct UploadFile {
  std::filesystem::path source;
  std::string path;
  uint64_t size = 0;
  std::string sha256 = {};  ///< of large files, filled in by upload()
};

class HubClient {
 public:
  explicit HubClient(HubAccess access);

  Repository look_up(const std::string& repo, const std::string& revision) const;
  /// Size and checksum of a file where look_up() found none (mirrors do not list them).
  RepoFile complete(const Repository& repo, const RepoFile& file) const;
  /// Writes the file to `target`, whose folder exists; large files resume (see download()).
  void fetch(const Repository& repo, const RepoFile& file, const std::filesystem::path& target,
             const TransferProgress& on_progress = {}) const;
  /// A small file's bytes.
  std::string read(const Repository& repo, const RepoFile& file, uint64_t limit) const;

  /// False when it was there already. Whether that one is private stays as it is.
  enum class Visibility { open, hidden };
  bool create(const std::string& repo, Visibility visibility) const;
  /// Sends what the hub does not have yet and commits it to `main`; returns the last commit's URL, "" when the hub
  /// ignored all files. Several commits only above 32 MiB of small files. `on_progress` counts bytes of all files.
  std::string upload(const std::string& repo, std::vector<UploadFile> files, const std::string& message,
                     const TransferProgress& on_progress = {}) const;

  const HubAccess& access() const { return access_; }
  /// The page that people look at.
  std::string page(const std::string& repo) const { return access_.endpoint + "/" + repo; }

 private:
  HttpRequest request(const std::string& method, const std::string& url) const;
  /// How often a request is made, and what is waited for before the next time.
  struct Patience {
    int attempts;
    bool after_429;  ///< "too many requests" is a reason to ask again, as servers that are busy or away are
    std::chrono::milliseconds (*pause)(int attempt);
  };
  /// An answer of 2xx; any other is refused in the name of `about`.
  HttpResponse patiently(const HttpRequest& request, const std::string& about, const Patience& patience) const;
  /// Small requests that may be repeated.
  HttpResponse ask(const HttpRequest& request, const std::string& repo) const;
  [[noreturn]] void refuse(const HttpResponse& answer, const std::string& repo) const;
  std::string file_url(const Repository& repo, const RepoFile& file) const;

  enum class Mode { small, large, ignored };
  std::vector<Mode> choose_modes(const std::string& repo, const std::vector<UploadFile>& files) const;
  void send_large(const std::string& repo, const std::vector<UploadFile*>& files,
                  const TransferProgress& progress) const;
  void send_object(const nlohmann::json& object, const UploadFile& file, const TransferProgress& progress) const;
  void send_parts(const nlohmann::json& action, const UploadFile& file, const TransferProgress& progress) const;
  HttpResponse put(HttpRequest request, const UploadFile& file) const;
  std::string commit(const std::string& repo, const std::string& message, const std::string& lines) const;

  HubAccess access_;
};

}  // namespace calotype::hub
