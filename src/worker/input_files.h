// Files that inputs name by URI, brought to this machine.
//
//   InputFiles files(store, {.cache = "data/cache", .allow_private = false});
//   fs::path zip = files.fetch(input["input_images"], "data/work/ID/images.zip", &cancel);
//
// Three kinds: files of this server's own store, whatever its address looks like from the client (…/v1/files/ID,
// …/out/TOKEN/NAME, calotype-file:ID), data: URIs (RFC 2397), and http(s) URLs, which are fetched under the address
// guard with limits. Errors: bad_input, not_found, canceled, disk_full; messages show no query or data. Thread-safe.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "base/cancel.h"
#include "hub/address_guard.h"
#include "hub/http_client.h"
#include "store/store.h"

namespace calotype::worker {

struct InputFileOptions {
  bool allow_private = false;              ///< URLs may lead to this machine and the local network
  uint64_t max_bytes = uint64_t{8} << 30;  ///< of what is fetched; more is refused as it comes
};

class InputFiles {
 public:
  InputFiles(store::Store& store, InputFileOptions options);

  struct Request {
    hub::Headers headers = {};  ///< go to the named host only
    bool guarded = true;        ///< false for hosts that the operator named
    uint64_t max_bytes = UINT64_MAX;  ///< where less than InputFileOptions allows
  };
  /// The file at `path`, or where the store keeps it.
  std::filesystem::path fetch(const std::string& uri, const std::filesystem::path& path,
                              const base::CancelToken* cancel, const Request& request);
  std::filesystem::path fetch(const std::string& uri, const std::filesystem::path& path,
                              const base::CancelToken* cancel) {
    return fetch(uri, path, cancel, {});
  }

  /// The bytes of a small file; `scratch` is a folder of its own for the time being. Error bad_input beyond `most`.
  std::string read(const std::string& uri, const std::filesystem::path& scratch, uint64_t most,
                   const base::CancelToken* cancel);

  /// The file of our own store that a URI means, if it is one.
  std::optional<store::StoredFile> own_file(const std::string& uri);
  const hub::AddressGuard& guard() const { return guard_; }

 private:
  void download(const std::string& url, const std::filesystem::path& path, const base::CancelToken* cancel,
                const Request& request);

  store::Store& store_;
  InputFileOptions options_;
  hub::AddressGuard guard_;
};

/// The bytes of a data: URI. Error bad_input, which does not repeat it.
std::string data_uri_bytes(std::string_view uri);

}  // namespace calotype::worker
