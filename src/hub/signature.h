// Keyed digests, webhook signatures, secrets drawn from the system's random numbers (OpenSSL).
//
//   headers.emplace_back("webhook-signature", webhook_signature(secret, id, unix_seconds, body));
//   if (!constant_time_equal(sha256_hex(token), stored)) …
//
// Thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace calotype::hub {

using Digest = std::array<uint8_t, 32>;

Digest hmac_sha256(std::string_view key, std::string_view message);

/// "v1,<base64>": HMAC-SHA256 of "ID.TIMESTAMP.BODY" with the decoded secret as the key (Svix scheme, as Replicate
/// sends it in webhook-signature, next to webhook-id and webhook-timestamp). `secret` is "whsec_" and base64; bad_input
/// otherwise.
std::string webhook_signature(std::string_view secret, std::string_view id, int64_t timestamp, std::string_view body);

/// "whsec_" and 24 random bytes.
std::string new_webhook_secret();

/// Takes the same time whatever differs; different lengths are told at once.
bool constant_time_equal(std::string_view a, std::string_view b);

/// Random bytes as letters, digits, "-" and "_" (base64url without padding): 32 bytes give 43 characters.
std::string random_token(size_t bytes = 32);
std::string random_bytes(size_t count);

/// Lower case, two digits per byte.
std::string hex(std::span<const uint8_t> bytes);

}  // namespace calotype::hub
