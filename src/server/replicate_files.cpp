// Files: uploads streamed to the store, their descriptions, signed downloads, and outputs at URLs that nobody can
// guess.
#include <fmt/format.h>

#include "base/base64.h"
#include "base/sha256.h"
#include "hub/signature.h"
#include "server/multipart.h"
#include "server/problem.h"
#include "server/replicate_api.h"
#include "server/replicate_objects.h"
#include "server/stored_file_response.h"

namespace calotype::server {
using store::FilePurpose;
using store::StoredFile;

namespace {

/// Passes bytes on until there are too many.
class LimitedBuffer : public std::streambuf {
 public:
  LimitedBuffer(std::istream& in, uint64_t limit) : in_(in), limit_(limit), left_(limit), block_(64 << 10) {}

 protected:
  int_type underflow() override {
    const std::streamsize count = in_.rdbuf()->sgetn(block_.data(), static_cast<std::streamsize>(block_.size()));
    if (count <= 0) return traits_type::eof();
    if (static_cast<uint64_t>(count) > left_)
      throw Problem(413, "Request too large", fmt::format("Files must be less than {} in size", size_text(limit_)));
    left_ -= static_cast<uint64_t>(count);
    setg(block_.data(), block_.data(), block_.data() + count);
    return traits_type::to_int_type(block_[0]);
  }

 private:
  static std::string size_text(uint64_t bytes) {
    return bytes >= 10'000'000 ? fmt::format("{}MB", bytes / 1'000'000) : fmt::format("{} bytes", bytes);
  }

  std::istream& in_;
  uint64_t limit_, left_;
  std::vector<char> block_;
};

/// What the fields of the form say; the file's own headers are the fallback.
struct UploadFields {
  std::string name, type;
  Json metadata = Json::object();

  bool empty() const { return name.empty() && type.empty() && metadata.empty(); }

  void take(const MultipartPart& part) {
    const std::string text = field_text(part);
    if (part.name == "filename") name = text;
    if (part.name == "type") type = text;
    if (part.name.starts_with("metadata[")) take_member(part.name, text);
    if (part.name != "metadata") return;
    const Json value = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!value.is_object()) throw invalid_field("metadata", "Must be a JSON object.", "invalid_type");
    metadata = value;
  }

 private:
  /// "metadata[camera][lens]", "metadata[tags][]": an object as the beta of replicate-python writes it into a form, all
  /// values as text.
  void take_member(std::string_view path, const std::string& text) {
    constexpr int kMostLevels = 16;
    Json* place = &metadata;
    path.remove_prefix(path.find('['));
    for (int level = 0; !path.empty(); ++level) {
      const size_t end = path.find(']');
      if (path.front() != '[' || end == std::string_view::npos || level == kMostLevels)
        throw invalid_field("metadata", "Names of its fields are like metadata[a][b].");
      const std::string key = store::clean_text(path.substr(1, end - 1));
      const bool list = key.empty();
      if (!place->is_null() && (list ? !place->is_array() : !place->is_object()))
        throw invalid_field("metadata", "One of its fields is both a value and something with fields.", "invalid_type");
      if (list) place->push_back(nullptr);
      place = list ? &place->back() : &(*place)[key];
      path.remove_prefix(end + 1);
    }
    *place = store::clean_text(text);
  }
};

store::NewFile about(const Site& site, const UploadFields& fields, const std::string& name, const std::string& type) {
  store::NewFile file{.name = fields.name.empty() ? name : fields.name,
                      .content_type = fields.type.empty() ? type : fields.type,
                      .purpose = FilePurpose::upload};
  if (file.name.empty()) file.name = "upload";
  if (file.content_type.empty()) file.content_type = "application/octet-stream";
  file.metadata = fields.metadata;
  if (site.options.upload_lifetime.count() > 0)
    file.expires_at = store::now() + site.options.upload_lifetime.count() * store::kSecond;
  return file;
}

StoredFile stored_content(Site& site, const MultipartPart& part, const UploadFields& fields) {
  LimitedBuffer limited(*part.body, site.options.upload_bytes);
  std::istream stream(&limited);
  stream.exceptions(std::ios::badbit);
  return site.store.files->put(about(site, fields, part.filename, part.content_type), stream);
}

Response create(Site& site, Request& request) {
  MultipartReader reader(*request.body, boundary_of(request.header("content-type")));
  std::optional<StoredFile> file;
  UploadFields before, after;
  while (const auto part = reader.next()) {
    if (part->name != "content") {
      (file ? after : before).take(*part);
    } else if (!file) {
      site.store.files->check_room();
      file = stored_content(site, *part, before);
    }
  }
  if (!file) throw invalid_field("content", "A part named content with the file is missing.", "required");
  if (!after.empty()) {
    // replicate-js sends the metadata last, nearly always "{}"; only others pay for a second copy.
    if (after.name.empty()) after.name = before.name;
    if (after.type.empty()) after.type = before.type;
    const StoredFile first = *file;
    file = site.store.files->put_file(about(site, after, first.name, first.content_type),
                                      site.store.files->local_path(first.id));
    site.store.files->remove(first.id);
  }
  Json body = file_json(*file, request.base_url);
  Response response = json_response(body, 201);
  return response.with("Location", body["urls"]["get"]);
}

StoredFile upload_of(Site& site, const Request& request) {
  auto file = site.store.files->find(request.parameter("id"));
  if (!file || file->purpose == FilePurpose::preview) throw not_found("File not found");
  return *file;
}

Response list(Site& site, Request& request) {
  const auto page = site.store.files->list(FilePurpose::upload, page_query(request));
  Json results = Json::array();
  for (const StoredFile& each : page.items) results.push_back(file_json(each, request.base_url));
  return json_response(page_json(request, std::move(results), page.next, page.previous));
}

Response get(Site& site, Request& request) {
  return json_response(file_json(upload_of(site, request), request.base_url));
}

Response remove(Site& site, Request& request) {
  const StoredFile file = upload_of(site, request);
  if (file.purpose != FilePurpose::upload)
    throw Problem(403, "Forbidden", "Files that belong to a job go away with the job.");
  site.store.files->remove(file.id);
  return empty_response();
}

/// base64(HMAC-SHA256("OWNER ID EXPIRY")) with the key of GET /v1/webhooks/default/secret, as its text or decoded.
bool is_signed(Site& site, const Request& request) {
  const auto owner = request.query_value("owner"), expiry = request.query_value("expiry"),
             signature = request.query_value("signature");
  if (!owner || !expiry || !signature) return false;
  if (expiry->empty() || expiry->size() > 12 || expiry->find_first_not_of("0123456789") != std::string::npos ||
      std::stoll(*expiry) * store::kSecond < store::now())
    return false;
  const std::string message = fmt::format("{} {} {}", *owner, request.parameter("id"), *expiry);
  const std::string secret = site.store.settings->webhook_secret();
  const std::string decoded = base::base64_decoded(secret.substr(secret.find('_') + 1)).value_or("");
  bool valid = false;
  for (const std::string& key : {secret, decoded, site.store.settings->signing_key()}) {
    const hub::Digest digest = hub::hmac_sha256(key, message);
    valid |= hub::constant_time_equal(base::base64({reinterpret_cast<const char*>(digest.data()), digest.size()}),
                                      *signature);
  }
  return valid;
}

Response download(Site& site, Request& request) {
  const bool has_signature = request.query_value("signature").has_value();
  if (has_signature && !is_signed(site, request))
    throw Problem(403, "Forbidden", "The signature is wrong or has expired.");
  if (!has_signature) site.auth.check(request);
  return stored_file_response(site, request, upload_of(site, request));
}

Response output(Site& site, Request& request) {
  const auto file = site.store.files->find_by_token(request.parameter("token"));
  if (!file) throw not_found("File not found");
  return stored_file_response(site, request, *file);
}

Handler with(Site& site, Response (*function)(Site&, Request&)) {
  return [&site, function](Request& request) { return function(site, request); };
}

}  // namespace

std::vector<Route> file_routes(Site& site) {
  return {
      {"POST", "/files", with(site, create), Access::token, Cost::create},
      {"GET", "/files", with(site, list)},
      {"GET", "/files/{id}", with(site, get)},
      {"DELETE", "/files/{id}", with(site, remove)},
      {"GET", "/files/{id}/download", with(site, download), Access::open},
      {"GET", "/out/{token}/{name}", with(site, output), Access::open},
  };
}

}  // namespace calotype::server
