#include "worker/input_files.h"

#include <algorithm>

#include "base/atomic_file.h"
#include "base/base64.h"
#include "base/error.h"
#include "hub/url.h"
#include "store/file_reference.h"

namespace calotype::worker {
namespace fs = std::filesystem;
using base::ErrorKind;

namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string percent_decoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool escape =
        text[i] == '%' && i + 2 < text.size() && hex_digit(text[i + 1]) >= 0 && hex_digit(text[i + 2]) >= 0;
    out += escape ? static_cast<char>(hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2])) : text[i];
    if (escape) i += 2;
  }
  return out;
}

std::vector<std::string> path_parts(const std::string& path) {
  std::vector<std::string> parts;
  for (size_t at = 0; at < path.size();) {
    const size_t end = std::min(path.find('/', at), path.size());
    if (end > at) parts.push_back(path.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

}  // namespace

std::string data_uri_bytes(std::string_view uri) {
  const size_t comma = uri.find(',');
  base::check(uri.starts_with("data:") && comma != std::string_view::npos, ErrorKind::bad_input,
              "the data: URI has no comma; expected data:MEDIA-TYPE;base64,DATA");
  const std::string_view data = uri.substr(comma + 1);
  if (!uri.substr(0, comma).ends_with(";base64")) return percent_decoded(data);
  auto bytes =
      base::base64_decoded(data.find('%') == std::string_view::npos ? std::string(data) : percent_decoded(data));
  base::check(bytes.has_value(), ErrorKind::bad_input, "the data: URI is not valid base64");
  return std::move(*bytes);
}

InputFiles::InputFiles(store::Store& store, InputFileOptions options)
    : store_(store), options_(options), guard_({.allow_private = options.allow_private}) {}

/// An id or a token that the store knows is proof enough: nobody guesses them, so the host does not matter.
std::optional<store::StoredFile> InputFiles::own_file(const std::string& uri) {
  if (const auto id = store::referenced_file(uri)) return store_.files->find(*id);
  if (!uri.starts_with("http://") && !uri.starts_with("https://")) return std::nullopt;
  const std::vector<std::string> parts = path_parts(hub::Url::parse(uri).path);
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    const std::string& value = parts[i + 1];
    const bool last = i + 2 == parts.size(), download = i + 3 == parts.size() && parts.back() == "download";
    if (parts[i] == "files" && (last || download))
      if (auto file = store_.files->find(value)) return file;
    if (parts[i] == "out" && (last || i + 3 == parts.size()))
      if (auto file = store_.files->find_by_token(value)) return file;
  }
  return std::nullopt;
}

void InputFiles::download(const std::string& url, const fs::path& path, const base::CancelToken* cancel,
                          const Request& request) {
  const hub::HttpResponse answer = hub::download({.url = url,
                                                  .headers = request.headers,
                                                  .timeout = std::chrono::milliseconds(0),
                                                  .max_bytes = std::min(options_.max_bytes, request.max_bytes),
                                                  .follow_redirects = 5,
                                                  .guard = request.guarded ? &guard_ : nullptr,
                                                  .cancel = cancel},
                                                 path, {.attempts = 3});
  base::check(
      answer.ok(), answer.status == 404 || answer.status == 410 ? ErrorKind::not_found : ErrorKind::bad_input,
      "{}: the server answered with status {}{}", hub::shown_url(url), answer.status,
      answer.status == 401 || answer.status == 403 ? "; the file needs a key, or the key has no right to it" : "");
}

fs::path InputFiles::fetch(const std::string& uri, const fs::path& path, const base::CancelToken* cancel,
                           const Request& request) {
  if (uri.starts_with("data:")) {
    fs::create_directories(path.parent_path());
    base::write_file(path, data_uri_bytes(uri));
    return path;
  }
  if (const auto own = own_file(uri)) return store_.files->local_path(own->id);
  base::check(uri.starts_with("http://") || uri.starts_with("https://"), ErrorKind::bad_input,
              "{}: expected an http(s) URL, a data: URI or a file of this server", base::printable(uri));
  fs::create_directories(path.parent_path());
  download(uri, path, cancel, request);
  return path;
}

std::string InputFiles::read(const std::string& uri, const fs::path& scratch, uint64_t most,
                             const base::CancelToken* cancel) {
  const struct Cleanup {
    const fs::path& folder;
    ~Cleanup() {
      std::error_code ignored;
      fs::remove_all(folder, ignored);
    }
  } cleanup{scratch};
  return base::read_file(fetch(uri, scratch / "file", cancel, {.max_bytes = most}), most);
}

}  // namespace calotype::worker
