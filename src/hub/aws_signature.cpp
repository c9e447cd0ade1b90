#include "hub/aws_signature.h"

#include <algorithm>
#include <cctype>
#include <ctime>
#include <map>
#include <vector>

#include "base/sha256.h"
#include "hub/signature.h"

namespace calotype::hub {
namespace {

std::string time_text(int64_t seconds) {
  const std::time_t time = seconds;
  std::tm utc{};
  ::gmtime_r(&time, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y%m%dT%H%M%SZ", &utc);
  return text;
}

/// Fields sorted by name, each with "=".
std::string canonical_query(const std::string& query) {
  std::vector<std::string> fields;
  for (size_t begin = 0; begin < query.size();) {
    const size_t end = std::min(query.find('&', begin), query.size());
    std::string field = query.substr(begin, end - begin);
    if (field.find('=') == std::string::npos) field += '=';
    if (field != "=") fields.push_back(std::move(field));
    begin = end + 1;
  }
  const auto name = [](const std::string& field) { return field.substr(0, field.find('=')); };
  std::sort(fields.begin(), fields.end(),
            [&](const std::string& a, const std::string& b) { return std::pair(name(a), a) < std::pair(name(b), b); });
  std::string out;
  for (const std::string& field : fields) out += (out.empty() ? "" : "&") + field;
  return out;
}

std::string keyed(const std::string& key, const std::string& text) {
  const Digest digest = hmac_sha256(key, text);
  return {digest.begin(), digest.end()};
}

}  // namespace

Headers aws_signature(const AwsKey& key, const SignedRequest& request, const Headers& headers) {
  const std::string time = time_text(request.time), day = time.substr(0, 8);
  std::map<std::string, std::string> added = {{"x-amz-date", time}, {"x-amz-content-sha256", request.payload_sha256}};
  if (!key.session_token.empty()) added["x-amz-security-token"] = key.session_token;
  std::map<std::string, std::string> signed_headers = added;
  signed_headers["host"] = request.url.authority();
  for (const auto& [name, value] : headers) {
    std::string lower(name);
    std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
    if (!lower.starts_with("x-amz-")) continue;
    signed_headers[lower] = value;
    added.erase(lower);
  }
  std::string lines, names;
  for (const auto& [name, value] : signed_headers) {
    lines += name + ":" + value + "\n";
    names += (names.empty() ? "" : ";") + name;
  }
  const std::string canonical = request.method + "\n" + request.url.path + "\n" + canonical_query(request.url.query) +
                                "\n" + lines + "\n" + names + "\n" + signed_headers["x-amz-content-sha256"];
  const std::string scope = day + "/" + key.region + "/" + key.service + "/aws4_request";
  const std::string text = "AWS4-HMAC-SHA256\n" + time + "\n" + scope + "\n" + base::sha256_hex(canonical);
  std::string signing_key = "AWS4" + key.secret_key;
  for (const std::string& word : {day, key.region, key.service, std::string("aws4_request")})
    signing_key = keyed(signing_key, word);
  Headers out(added.begin(), added.end());
  out.emplace_back("Authorization", "AWS4-HMAC-SHA256 Credential=" + key.access_key + "/" + scope + ",SignedHeaders=" +
                                        names + ",Signature=" + hex(hmac_sha256(signing_key, text)));
  return out;
}

}  // namespace calotype::hub
