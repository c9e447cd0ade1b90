#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <thread>

#include "base/atomic_file.h"
#include "base/base64.h"
#include "base/error.h"
#include "base/sha256.h"
#include "hub/hub_client.h"
#include "hub/hub_json.h"
#include "hub/hub_names.h"
#include "hub/signature.h"
#include "hub/url.h"

namespace calotype::hub {
namespace fs = std::filesystem;

using base::ErrorKind;
using namespace std::chrono_literals;
using nlohmann::json;

namespace {

constexpr size_t kBatch = 256;                 // files per preupload and LFS batch request, as huggingface_hub has it
constexpr size_t kSampleBytes = 512;           // the hub decides by the first bytes what is large
constexpr size_t kMaxCommitBytes = 32u << 20;  // of one commit's body; small files have at most 10 MB on the real hub
constexpr size_t kMaxSmallBytes = 64u << 20;
constexpr uint64_t kMaxParts = 10'000;
constexpr int kAttempts = 5;

std::string first_bytes(const fs::path& path, size_t count) {
  std::ifstream in(path, std::ios::binary);
  base::check(in.good(), ErrorKind::not_found, "{}: cannot be read", path.string());
  std::string bytes(count, '\0');
  in.read(bytes.data(), static_cast<std::streamsize>(count));
  bytes.resize(static_cast<size_t>(in.gcount()));
  return bytes;
}

std::string sha256_of(const UploadFile& file, const base::CancelToken* cancel) {
  std::ifstream in(file.source, std::ios::binary);
  base::Sha256 hash;
  std::vector<char> block(1 << 20);
  uint64_t bytes = 0;
  while (in.read(block.data(), static_cast<std::streamsize>(block.size())) || in.gcount() > 0) {
    if (cancel) cancel->throw_if_requested();
    hash.update(std::string_view(block.data(), static_cast<size_t>(in.gcount())));
    bytes += static_cast<uint64_t>(in.gcount());
  }
  base::check(bytes == file.size, ErrorKind::conflict, "{}: has {} bytes, had {} a moment ago; somebody is writing it",
              file.source.string(), bytes, file.size);
  return hash.hex();
}

/// Parts of a multipart upload: number → where to put it.
std::map<uint64_t, std::string> part_urls(const json& header) {
  std::map<uint64_t, std::string> urls;
  for (const auto& [key, value] : header.items()) {
    const bool number = !key.empty() && key.size() <= 6 && key.find_first_not_of("0123456789") == std::string::npos;
    if (number && value.is_string()) urls[std::stoull(key)] = value.get<std::string>();
  }
  return urls;
}

std::string line(const char* key, const json& value) { return json{{"key", key}, {"value", value}}.dump() + "\n"; }

}  // namespace

bool HubClient::create(const std::string& repo, Visibility visibility) const {
  check_repo_name(repo);
  base::check(!access_.token.empty(), ErrorKind::bad_input,
              "{} takes files with a token only; set HF_TOKEN to one that may write to {}", access_.endpoint, repo);
  const size_t slash = repo.find('/');
  HttpRequest post = request("POST", access_.endpoint + "/api/repos/create");
  post.headers.emplace_back("Content-Type", "application/json");
  post.body = json{{"type", "model"},
                   {"name", repo.substr(slash + 1)},
                   {"organization", repo.substr(0, slash)},
                   {"private", visibility == Visibility::hidden}}
                  .dump();
  const HttpResponse answer = send(post);
  if (answer.status == 409) return false;
  if (answer.status == 403) {  // a token that may write to this repository only
    try {
      look_up(repo, "main");
      return false;
    } catch (const base::Error&) {
      refuse(answer, repo);
    }
  }
  if (!answer.ok()) refuse(answer, repo);
  return true;
}

std::vector<HubClient::Mode> HubClient::choose_modes(const std::string& repo,
                                                     const std::vector<UploadFile>& files) const {
  std::map<std::string, Mode> modes;
  for (size_t begin = 0; begin < files.size(); begin += kBatch) {
    json items = json::array();
    for (size_t i = begin; i < std::min(begin + kBatch, files.size()); ++i)
      items.push_back({{"path", files[i].path},
                       {"sample", base::base64(first_bytes(files[i].source, kSampleBytes))},
                       {"size", files[i].size}});
    HttpRequest post = request("POST", fmt::format("{}/api/models/{}/preupload/main", access_.endpoint, repo));
    post.headers.emplace_back("Content-Type", "application/json");
    post.body = json{{"files", std::move(items)}}.dump();
    const json answer = parsed(ask(post, repo));
    for (const json& item : field(answer, "files")) {
      const bool large = text_field(item, "uploadMode") == "lfs";
      modes[text_field(item, "path")] = field(item, "shouldIgnore") == true ? Mode::ignored
                                        : large                             ? Mode::large
                                                                            : Mode::small;
    }
  }
  std::vector<Mode> out;
  for (const UploadFile& file : files) {
    const auto found = modes.find(file.path);
    base::check(found != modes.end(), ErrorKind::corrupt_file, "{} does not say how to send {}", access_.endpoint,
                base::printable(file.path));
    // The stores behind the hub take no empty objects.
    out.push_back(file.size == 0 && found->second == Mode::large ? Mode::small : found->second);
  }
  return out;
}

/// A file or part of one to a store, tried again while the store is busy.
HttpResponse HubClient::put(HttpRequest request, const UploadFile& file) const {
  request.timeout = {};
  request.stall_timeout = std::chrono::seconds(60);
  request.follow_redirects = 0;
  return patiently(request, file.path, {.attempts = kAttempts, .after_429 = false, .pause = [](int attempt) {
                                          return (1 << attempt) * 250ms;
                                        }});
}

void HubClient::send_parts(const json& action, const UploadFile& file, const TransferProgress& progress) const {
  const std::string size_text = text_field(field(action, "header"), "chunk_size");
  const uint64_t size = size_text.empty() ? number_field(field(action, "header"), "chunk_size").value_or(0)
                                          : std::strtoull(size_text.c_str(), nullptr, 10);
  const std::map<uint64_t, std::string> urls = part_urls(field(action, "header"));
  const bool sane = size > 0 && urls.size() <= kMaxParts && urls.size() == (file.size + size - 1) / size;
  base::check(sane, ErrorKind::corrupt_file, "{}: the hub offers {} parts of {} bytes for a file of {} bytes",
              base::printable(file.path), urls.size(), size, file.size);
  json parts = json::array();
  uint64_t offset = 0;
  for (const auto& [number, url] : urls) {
    HttpRequest put_part = request("PUT", url);
    put_part.body_file = file.source;
    put_part.body_offset = offset;
    put_part.body_size = std::min(size, file.size - offset);
    if (progress) put_part.on_upload = [&](uint64_t done, uint64_t) { progress(offset + done, file.size); };
    const HttpResponse answer = put(put_part, file);
    const std::string etag(answer.header("etag").value_or(""));
    base::check(!etag.empty(), ErrorKind::corrupt_file, "{}: the store gives no ETag for part {}",
                base::printable(file.path), number);
    parts.push_back({{"partNumber", parts.size() + 1}, {"etag", etag}});
    offset += *put_part.body_size;
  }
  HttpRequest finish = request("POST", text_field(action, "href"));
  finish.headers.emplace_back("Content-Type", "application/vnd.git-lfs+json");
  finish.headers.emplace_back("Accept", "application/vnd.git-lfs+json");
  finish.body = json{{"oid", file.sha256}, {"parts", std::move(parts)}}.dump();
  finish.timeout = std::chrono::minutes(5);  // the store puts the parts together
  ask(finish, file.path);
}

void HubClient::send_object(const json& object, const UploadFile& file, const TransferProgress& progress) const {
  const json& upload = field(field(object, "actions"), "upload");
  if (upload.is_null()) return;  // the store has it
  const json& header = field(upload, "header");
  if (header.is_object() && header.contains("chunk_size")) {
    send_parts(upload, file, progress);
  } else {
    HttpRequest put_all = request("PUT", text_field(upload, "href"));
    put_all.body_file = file.source;
    put_all.body_size = file.size;
    if (progress) put_all.on_upload = progress;
    // git-lfs' rule: the headers of the action are the whole authorization, if there are any.
    if (header.is_object() && !header.empty()) put_all.headers.clear();
    if (header.is_object())
      for (const auto& [name, value] : header.items())
        if (value.is_string()) put_all.headers.emplace_back(name, value.get<std::string>());
    put(put_all, file);
  }
  const json& verify = field(field(object, "actions"), "verify");
  if (verify.is_null()) return;
  HttpRequest post = request("POST", text_field(verify, "href"));
  post.headers.emplace_back("Content-Type", "application/vnd.git-lfs+json");
  post.body = json{{"oid", file.sha256}, {"size", file.size}}.dump();
  ask(post, file.path);
}

void HubClient::send_large(const std::string& repo, const std::vector<UploadFile*>& files,
                           const TransferProgress& progress) const {
  uint64_t done = 0;
  for (size_t begin = 0; begin < files.size(); begin += kBatch) {
    const size_t end = std::min(begin + kBatch, files.size());
    json wanted = json::array();
    std::map<std::string, UploadFile*> by_id;  // equal files are sent once
    for (size_t i = begin; i < end; ++i) {
      files[i]->sha256 = sha256_of(*files[i], access_.cancel);
      if (by_id.emplace(files[i]->sha256, files[i]).second)
        wanted.push_back({{"oid", files[i]->sha256}, {"size", files[i]->size}});
    }
    HttpRequest batch = request("POST", fmt::format("{}/{}.git/info/lfs/objects/batch", access_.endpoint, repo));
    batch.headers.emplace_back("Content-Type", "application/vnd.git-lfs+json");
    batch.headers.emplace_back("Accept", "application/vnd.git-lfs+json");
    batch.body = json{{"operation", "upload"},
                      {"transfers", {"basic", "multipart"}},
                      {"hash_algo", "sha256"},
                      {"ref", {{"name", "main"}}},
                      {"objects", std::move(wanted)}}
                     .dump();
    const json answer = parsed(ask(batch, repo));
    for (const json& object : field(answer, "objects")) {
      const auto file = by_id.find(text_field(object, "oid"));
      base::check(file != by_id.end(), ErrorKind::corrupt_file, "{} answers for files that it was not asked about",
                  repo);
      const json& error = field(object, "error");
      base::check(error.is_null(), ErrorKind::bad_input, "{} refuses {}: {}", access_.endpoint,
                  base::printable(file->second->path), base::printable(text_field(error, "message"), 300));
      send_object(object, *file->second, [&](uint64_t sent, uint64_t) {
        if (progress) progress(done + sent, 0);
      });
      done += file->second->size;
      by_id.erase(file);
    }
    base::check(by_id.empty(), ErrorKind::corrupt_file, "{} does not say where to send {} of the files", repo,
                by_id.size());
  }
}

std::string HubClient::commit(const std::string& repo, const std::string& message, const std::string& lines) const {
  HttpRequest post = request("POST", fmt::format("{}/api/models/{}/commit/main", access_.endpoint, repo));
  post.headers.emplace_back("Content-Type", "application/x-ndjson");
  post.body = line("header", {{"summary", message}, {"description", ""}}) + lines;
  post.timeout = std::chrono::minutes(10);
  const HttpResponse answer = send(post);  // not tried again: it might be done although its answer was lost
  if (!answer.ok()) refuse(answer, repo);
  const std::string url = text_field(parsed(answer), "commitUrl");
  return url.empty() ? page(repo) : base::printable(url, 500);
}

std::string HubClient::upload(const std::string& repo, std::vector<UploadFile> files, const std::string& message,
                              const TransferProgress& on_progress) const {
  check_repo_name(repo);
  uint64_t total = 0;
  for (const UploadFile& file : files) {
    const std::string_view problem = file_name_problem(file.path);
    base::check(problem.empty(), ErrorKind::bad_input, "{} cannot be a file's name on a hub: {}",
                base::printable(file.path), problem);
    total += file.size;
  }
  const std::vector<Mode> modes = choose_modes(repo, files);
  std::vector<UploadFile*> large;
  for (size_t i = 0; i < files.size(); ++i)
    if (modes[i] == Mode::large) large.push_back(&files[i]);
  send_large(repo, large, [&](uint64_t sent, uint64_t) {
    if (on_progress) on_progress(sent, total);
  });
  std::string lines, url;
  for (size_t i = 0; i < files.size(); ++i) {
    const UploadFile& file = files[i];
    if (modes[i] == Mode::large)
      lines += line("lfsFile", {{"path", file.path}, {"algo", "sha256"}, {"oid", file.sha256}, {"size", file.size}});
    if (modes[i] == Mode::small)
      lines += line("file", {{"path", file.path},
                             {"encoding", "base64"},
                             {"content", base::base64(base::read_file(file.source, kMaxSmallBytes))}});
    if (lines.size() >= kMaxCommitBytes || (i + 1 == files.size() && !lines.empty())) {
      url = commit(repo, message, lines);
      lines.clear();
    }
  }
  if (on_progress) on_progress(total, total);
  return url;
}

}  // namespace calotype::hub
