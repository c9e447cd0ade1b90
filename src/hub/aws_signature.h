// AWS Signature Version 4 as S3-compatible stores want it (libcurl 7.88 signs without x-amz-content-sha256, which S3
// refuses). Source: docs.aws.amazon.com, "Signature Calculations for the Authorization Header: Transferring Payload in
// a Single Chunk".
#pragma once

#include <cstdint>
#include <string>

#include "hub/http_client.h"
#include "hub/url.h"

namespace calotype::hub {

/// What is signed beside the headers.
struct SignedRequest {
  std::string method;
  Url url;                                          ///< path and query percent-encoded as url_encoded() does
  std::string payload_sha256 = "UNSIGNED-PAYLOAD";  ///< or 64 hexadecimal digits
  int64_t time = 0;                                 ///< seconds since 1970
};

/// Headers to send along: x-amz-date, x-amz-content-sha256, x-amz-security-token where there is one, Authorization.
/// Host and those of `headers` that begin with "x-amz-" are signed; an x-amz-content-sha256 among them replaces
/// payload_sha256.
Headers aws_signature(const AwsKey& key, const SignedRequest& request, const Headers& headers);

}  // namespace calotype::hub
