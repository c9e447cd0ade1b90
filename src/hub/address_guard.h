// Keeps requests to URLs of strangers (webhooks, pictures and weights by URL) away from the inside of the network.
//
//   const AddressGuard guard({.allow_private = settings.private_targets});
//   send({.method = "POST", .url = webhook.url, .body = json, .guard = &guard});
//
// A host is resolved once, every address it has is checked, and the request may connect to those addresses only: a name
// that answers differently a moment later (DNS rebinding) gains nothing. Hosts written as 2130706433, 0x7f.1 or
// 0177.0.0.1 count as the address they mean. IPv6 addresses that carry an IPv4 address are judged by it as well.
// Immutable and thread-safe, as far as the resolver is. Registries: IANA special-purpose addresses (RFC 6890 and
// updates).
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace calotype::hub {

/// IPv6, or IPv4 in its mapped form ::ffff:a.b.c.d.
struct IpAddress {
  std::array<uint8_t, 16> bytes{};

  /// From "192.0.2.1" or "2001:db8::1"; nothing for anything else (no zone, no brackets).
  static std::optional<IpAddress> parse(const std::string& text);
  bool is_v4() const;
  std::string text() const;
  bool operator==(const IpAddress&) const = default;
};

struct AddressPolicy {
  bool allow_private = false;  ///< loopback, private, shared (CGNAT) and unique local addresses as well
};

/// Why an address is refused ("a loopback address"), or nothing. Link-local and the metadata services of clouds,
/// multicast and reserved addresses are refused under every policy.
std::optional<std::string> refusal(const IpAddress& address, const AddressPolicy& policy);

/// All addresses of a host name or numeric host; empty when there are none. May block as long as the system's resolver.
using Resolver = std::function<std::vector<IpAddress>(const std::string& host)>;
std::vector<IpAddress> resolve_with_system(const std::string& host);

/// What a checked URL may connect to.
struct PinnedTarget {
  std::string host;  ///< as curl normalised it, IPv6 without brackets
  int port = 0;
  std::vector<IpAddress> addresses;  ///< at least one
};

class AddressGuard {
 public:
  explicit AddressGuard(AddressPolicy policy = {}, Resolver resolver = resolve_with_system);

  /// Errors: bad_input for what is not an absolute http or https URL, or has a refused address (its reason is named,
  /// the address of a name is not, or the message would map the network); not_found for an unknown host.
  PinnedTarget check(const std::string& url) const;
  const AddressPolicy& policy() const { return policy_; }

 private:
  AddressPolicy policy_;
  Resolver resolver_;
};

}  // namespace calotype::hub
