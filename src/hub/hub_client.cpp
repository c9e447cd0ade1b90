#include "hub/hub_client.h"

#include <openssl/evp.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <thread>

#include "base/atomic_file.h"
#include "base/error.h"
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

constexpr size_t kMaxFiles = 10'000;
constexpr uint64_t kMaxFileBytes = 1ull << 40, kMaxListingBytes = 64u << 20, kMaxTokenBytes = 4096;
// Smaller files are checked against their git id in memory; larger ones without a SHA-256 do not exist on the real hub.
constexpr uint64_t kMaxSmallBytes = 32u << 20;
constexpr int kAttempts = 4;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

std::string stripped(std::string text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.pop_back();
  const size_t begin = text.find_first_not_of(" \t\r\n");
  return begin == std::string::npos ? "" : text.substr(begin);
}

std::string stored_token() {
  fs::path file = environment("HF_TOKEN_PATH");
  if (file.empty()) {
    fs::path home = environment("HF_HOME");
    if (home.empty() && !environment("HOME").empty()) home = fs::path(environment("HOME")) / ".cache" / "huggingface";
    if (home.empty()) return "";
    file = home / "token";
  }
  std::error_code ignored;
  return fs::is_regular_file(file, ignored) ? stripped(base::read_file(file, kMaxTokenBytes)) : "";
}

/// What git calls a file of these bytes.
std::string git_id(const std::string& bytes) {
  const std::string blob = fmt::format("blob {}", bytes.size()) + '\0' + bytes;
  std::array<uint8_t, 20> digest;
  unsigned size = 0;
  const int done = EVP_Digest(blob.data(), blob.size(), digest.data(), &size, EVP_sha1(), nullptr);
  base::check(done == 1 && size == digest.size(), ErrorKind::internal, "OpenSSL cannot compute SHA-1");
  return hex(digest);
}

RepoFile checked_file(const json& sibling, const std::string& repo) {
  RepoFile file{.path = text_field(sibling, "rfilename"), .size = number_field(sibling, "size")};
  const std::string_view problem = file_name_problem(file.path);
  base::check(problem.empty(), ErrorKind::corrupt_file, "{} lists a file named {}, which is not accepted: {}", repo,
              base::printable(file.path), problem);
  const json& large = field(sibling, "lfs");
  file.sha256 = text_field(large, "sha256");
  if (file.sha256.empty()) file.sha256 = text_field(large, "oid");
  if (const auto size = number_field(large, "size")) file.size = size;
  if (file.sha256.empty()) file.git_id = text_field(sibling, "blobId");
  const bool sane = (file.sha256.empty() || is_hex(file.sha256, 64)) &&
                    (file.git_id.empty() || is_hex(file.git_id, 40)) && file.size.value_or(0) <= kMaxFileBytes;
  base::check(sane, ErrorKind::corrupt_file, "{}: the hub's checksum or size of {} makes no sense", repo,
              base::printable(file.path));
  return file;
}

std::string unquoted(std::string_view etag) {
  if (etag.starts_with("W/")) etag.remove_prefix(2);
  if (etag.size() >= 2 && etag.front() == '"' && etag.back() == '"') etag = etag.substr(1, etag.size() - 2);
  return std::string(etag);
}

}  // namespace

HubAccess hub_access() {
  HubAccess access;
  if (const std::string endpoint = environment("HF_ENDPOINT"); !endpoint.empty()) access.endpoint = endpoint;
  access.token = stripped(environment("HF_TOKEN"));
  if (access.token.empty()) access.token = stored_token();
  return access;
}

HubClient::HubClient(HubAccess access) : access_(std::move(access)) {
  while (access_.endpoint.ends_with('/')) access_.endpoint.pop_back();
  const Url url = Url::parse(access_.endpoint);
  base::check(url.query.empty(), ErrorKind::bad_input,
              "{} is no hub's address, expected one like https://huggingface.co", shown_url(access_.endpoint));
  const bool plain =
      std::all_of(access_.token.begin(), access_.token.end(), [](unsigned char c) { return c > 0x20 && c < 0x7F; });
  base::check(plain && access_.token.size() <= kMaxTokenBytes, ErrorKind::bad_input,
              "the hub's token holds characters that a token does not have; see HF_TOKEN");
}

HttpRequest HubClient::request(const std::string& method, const std::string& url) const {
  HttpRequest request{
      .method = method, .url = url, .follow_redirects = 3, .guard = access_.guard, .cancel = access_.cancel};
  if (!access_.token.empty() && Url::parse(url).same_origin(Url::parse(access_.endpoint)))
    request.headers.emplace_back("Authorization", "Bearer " + access_.token);
  return request;
}

void HubClient::refuse(const HttpResponse& answer, const std::string& repo) const {
  const std::string code(answer.header("x-error-code").value_or(""));
  std::string said(answer.header("x-error-message").value_or(""));
  if (const json body = json::parse(answer.body, nullptr, /*allow_exceptions=*/false); said.empty())
    said = text_field(body, "error");
  said = base::printable(said, 300);
  const char* token = access_.token.empty() ? "no token was given" : "a token was given";
  if (code == "GatedRepo")
    base::fail(
        ErrorKind::bad_input,
        "{} is gated ({}): accept its licence at {} with your account, and set HF_TOKEN to a token of that account",
        repo, token, page(repo));
  if (answer.status == 401)
    base::fail(ErrorKind::bad_input,
               "{} refuses {} ({}): the repository does not exist, or needs a valid token in HF_TOKEN; it said: {}",
               access_.endpoint, repo, token, said);
  if (answer.status == 403)
    base::fail(ErrorKind::bad_input,
               "{} forbids this for {} ({}): the token in HF_TOKEN needs the right to it; it said: {}",
               access_.endpoint, repo, token, said);
  if (answer.status == 404)
    base::fail(ErrorKind::not_found, "{}: {} at {}", repo, said.empty() ? "there is no such thing" : said,
               shown_url(answer.url));
  const bool busy = answer.status == 429 || answer.status >= 500;
  base::fail(busy ? ErrorKind::not_found : ErrorKind::bad_input, "{} answered {} for {}{}{}", shown_url(answer.url),
             answer.status, repo, busy ? "; try again later" : "", said.empty() ? "" : "; it said: " + said);
}

HttpResponse HubClient::patiently(const HttpRequest& request, const std::string& about,
                                  const Patience& patience) const {
  for (int attempt = 1;; ++attempt) {
    const bool last = attempt == patience.attempts;
    std::optional<HttpResponse> answer;
    try {
      answer = send(request);
    } catch (const base::Error& error) {
      if (last || error.kind() != ErrorKind::not_found) throw;
    }
    if (answer && answer->ok()) return *std::move(answer);
    const bool busy = answer && (answer->status >= 500 || (answer->status == 429 && patience.after_429));
    if (answer && (last || !busy)) refuse(*answer, about);
    const auto until = std::chrono::steady_clock::now() + patience.pause(attempt);
    while (std::chrono::steady_clock::now() < until) {
      if (request.cancel) request.cancel->throw_if_requested();
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }
}

HttpResponse HubClient::ask(const HttpRequest& request, const std::string& repo) const {
  return patiently(request, repo,
                   {.attempts = kAttempts, .after_429 = true, .pause = [](int attempt) { return attempt * 500ms; }});
}

Repository HubClient::look_up(const std::string& repo, const std::string& revision) const {
  check_repo_name(repo);
  base::check(!revision.empty() && revision.size() <= 200, ErrorKind::bad_input,
              "the revision is {}, expected a branch, a tag or a commit", base::printable(revision));
  HttpRequest listing = request(
      "GET", fmt::format("{}/api/models/{}/revision/{}?blobs=true", access_.endpoint, repo, url_encoded(revision)));
  listing.max_bytes = kMaxListingBytes;
  const json answer = parsed(ask(listing, repo));
  Repository found{.name = text_field(answer, "id"), .commit = text_field(answer, "sha")};
  if (found.name.empty()) found.name = repo;
  check_repo_name(found.name);
  base::check(is_hex(found.commit, 40), ErrorKind::corrupt_file, "{}: the hub names no commit for revision {}", repo,
              base::printable(revision));
  const json& gated = field(answer, "gated");
  found.gated = gated.is_string() || gated == true;
  const json& siblings = field(answer, "siblings");
  base::check(siblings.is_array() && siblings.size() <= kMaxFiles, ErrorKind::corrupt_file,
              "{}: the hub lists {} files, expected a list of at most {}", repo, siblings.size(), kMaxFiles);
  std::set<std::string> names;
  for (const json& sibling : siblings) {
    found.files.push_back(checked_file(sibling, repo));
    const std::string& path = found.files.back().path;
    base::check(names.insert(path).second, ErrorKind::corrupt_file, "{} lists {} twice", repo, base::printable(path));
  }
  return found;
}

std::string HubClient::file_url(const Repository& repo, const RepoFile& file) const {
  return fmt::format("{}/{}/resolve/{}/{}", access_.endpoint, repo.name, repo.commit, url_encoded(file.path, "/"));
}

RepoFile HubClient::complete(const Repository& repo, const RepoFile& file) const {
  HttpRequest head = request("HEAD", file_url(repo, file));
  head.follow_redirects = 0;  // the hub's own headers are wanted, not those of the store behind it
  const HttpResponse answer = send(head);
  const bool found = answer.ok() || (answer.status >= 300 && answer.status < 400);
  if (!found) refuse(answer, repo.name);
  RepoFile full = file;
  const auto tag = answer.header("x-linked-etag");
  const std::string etag = unquoted(tag ? *tag : answer.ok() ? answer.header("etag").value_or("") : "");
  if (is_hex(etag, 64)) full.sha256 = etag;
  if (is_hex(etag, 40)) full.git_id = etag;
  const auto linked = answer.header("x-linked-size");
  const std::string size(linked ? *linked : answer.ok() ? answer.header("content-length").value_or("") : "");
  const bool digits = !size.empty() && size.size() < 16 && size.find_first_not_of("0123456789") == std::string::npos;
  if (digits) full.size = std::stoull(size);
  return full;
}

std::string HubClient::read(const Repository& repo, const RepoFile& file, uint64_t limit) const {
  HttpRequest get = request("GET", file_url(repo, file));
  get.max_bytes = limit;
  get.timeout = std::chrono::minutes(10);
  HttpResponse answer = ask(get, repo.name);
  const bool right_size = !file.size || *file.size == answer.body.size();
  const bool right = right_size && (file.git_id.empty() || git_id(answer.body) == file.git_id);
  base::check(right, ErrorKind::corrupt_file,
              "{}/{}: {} bytes arrived that are not what the hub announced ({} bytes); try again", repo.name,
              base::printable(file.path), answer.body.size(), file.size.value_or(answer.body.size()));
  return std::move(answer.body);
}

void HubClient::fetch(const Repository& repo, const RepoFile& file, const fs::path& target,
                      const TransferProgress& on_progress) const {
  if (file.sha256.empty() && file.size && *file.size <= kMaxSmallBytes) {
    base::write_file(target, read(repo, file, kMaxSmallBytes));
    if (on_progress) on_progress(*file.size, *file.size);
    return;
  }
  HttpRequest get = request("GET", file_url(repo, file));
  get.timeout = {};
  get.follow_redirects = 5;
  get.max_bytes = file.size.value_or(kMaxFileBytes);
  const HttpResponse answer =
      download(get, target, {.sha256 = file.sha256, .size = file.size, .on_progress = on_progress});
  if (!answer.ok()) refuse(answer, repo.name);
}

}  // namespace calotype::hub
