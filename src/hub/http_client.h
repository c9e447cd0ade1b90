// HTTP requests through libcurl: answers in memory, downloads that resume, uploads streamed from a file.
//
//   HttpResponse answer = send({.url = "https://huggingface.co/api/models/gpt2", .max_bytes = 1 << 20});
//   if (answer.status == 404) …
//   download({.url = url, .timeout = {}}, "model.safetensors", {.sha256 = digits});
//
// A status is never an error here: callers look at it. Error kinds: bad_input for a URL that cannot be used, one that
// the address guard refuses, an answer above max_bytes — asking again will not help; not_found for an unknown or
// unreachable host, a broken connection, a timeout — asking again may help; canceled; disk_full. Messages name host and
// path, never query, headers or password, which may be secrets.
// Only http and https; compression is not asked for; no signals. Thread-safe: each thread keeps its connections.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/cancel.h"

namespace calotype::hub {

class AddressGuard;

using Headers = std::vector<std::pair<std::string, std::string>>;

/// `done` and `total` bytes; total 0 while unknown. Called on the working thread, at most about ten times a second.
using TransferProgress = std::function<void(uint64_t done, uint64_t total)>;

/// Signs a request for an S3-compatible store (aws_signature.h). Bodies in memory are signed too; a body_file is when
/// its digest is given in a header x-amz-content-sha256. Path and query must be encoded as url_encoded() does.
struct AwsKey {
  std::string access_key, secret_key;
  std::string session_token = {};
  std::string region = "us-east-1", service = "s3";
};

struct HttpRequest {
  std::string method = "GET";
  std::string url;
  Headers headers = {};
  std::string body = {};                      ///< sent unless body_file is set
  std::filesystem::path body_file = {};       ///< streamed, never held in memory
  uint64_t body_offset = 0;                   ///< first byte of body_file to send
  std::optional<uint64_t> body_size = {};     ///< bytes of body_file to send, absent: up to its end
  std::chrono::milliseconds timeout{30'000};  ///< for the whole exchange, 0 = no limit
  std::chrono::milliseconds connect_timeout{10'000};
  std::chrono::seconds stall_timeout{30};  ///< gives up when nothing moves for so long, 0 = never
  uint64_t max_bytes = 16u << 20;          ///< largest accepted answer, in memory or on disk
  int follow_redirects = 0;                ///< hops followed; 0 returns the 3xx answer
  const AddressGuard* guard = nullptr;     ///< checks every hop and pins its addresses; also bypasses proxies
  std::optional<AwsKey> aws = {};
  const base::CancelToken* cancel = nullptr;
  TransferProgress on_upload = {};  ///< bytes of the body sent so far
};

struct HttpResponse {
  int status = 0;
  Headers headers;  ///< of the last hop, names in lower case
  std::string body;
  std::string url;  ///< the last hop's

  bool ok() const { return status >= 200 && status < 300; }
  /// First value of a header, or nothing; `name` in lower case.
  std::optional<std::string_view> header(std::string_view name) const;
};

/// Redirects: when scheme, host or port change, only headers that cannot be secrets go along (Accept…, Range, If-…,
/// User-Agent, Content-Type) and nothing is signed; 303 and a POST's 301 or 302 become GET; https never becomes http.
HttpResponse send(const HttpRequest& request);

/// Gives the body away piece by piece instead of keeping it: status, headers and url of the answer are known by then.
/// Bodies of redirects that are followed are not given. What the sink throws ends the transfer and reaches the caller.
using BodySink = std::function<void(const HttpResponse& head, std::string_view piece)>;
HttpResponse send(const HttpRequest& request, const BodySink& sink);

struct DownloadOptions {
  std::string sha256 = {};            ///< 64 hexadecimal digits the file must have, "" = whatever comes
  std::optional<uint64_t> size = {};  ///< bytes the file must have
  int attempts = 5;  ///< tries without any new byte before giving up; broken transfers go on where they stopped
  std::chrono::milliseconds pause{1'000};  ///< before the second try, doubled each time, at most 30 s
  TransferProgress on_progress = {};
};

/// Fetches into PATH.part, checks it, syncs and renames it to `path`. PATH.part of an earlier process is continued when
/// sha256 is given (only then it can be trusted) and begun anew otherwise; after an error it stays for the next time.
/// An answer other than 2xx is returned with at most 64 KiB of its body, and no file is made; 429 and 5xx are tried
/// again first. Errors beside those of send(): corrupt_file when size or sha256 differ (PATH.part is removed), conflict
/// when another process downloads to the same place.
HttpResponse download(const HttpRequest& request, const std::filesystem::path& path,
                      const DownloadOptions& options = {});

/// A URL as it may stand in a message or log: scheme, host, port and path, printable and cut.
std::string shown_url(const std::string& url);

/// Percent-encoding of everything but letters, digits and "-._~"; `keep` names further characters left alone.
std::string url_encoded(std::string_view text, std::string_view keep = "");

}  // namespace calotype::hub
