#include "hub/address_guard.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "base/error.h"
#include "hub/http_client.h"
#include "hub/url.h"

namespace calotype::hub {

using base::ErrorKind;

namespace {

enum class Refused { always, unless_private };

struct Range {
  const char* network;
  int bits;
  Refused when;
  const char* reason;
};

// The more specific range stands first.
constexpr Range kV4Ranges[] = {
    {"169.254.0.0", 16, Refused::always, "a link-local address, where clouds keep credentials"},
    {"100.100.100.200", 32, Refused::always, "a cloud's metadata service"},  // Alibaba
    {"168.63.129.16", 32, Refused::always, "a cloud's metadata service"},    // Azure
    {"192.0.0.192", 32, Refused::always, "a cloud's metadata service"},      // Oracle
    {"127.0.0.0", 8, Refused::unless_private, "a loopback address"},
    {"0.0.0.0", 8, Refused::unless_private, "an address of this machine"},
    {"10.0.0.0", 8, Refused::unless_private, "a private address"},
    {"172.16.0.0", 12, Refused::unless_private, "a private address"},
    {"192.168.0.0", 16, Refused::unless_private, "a private address"},
    {"100.64.0.0", 10, Refused::unless_private, "a shared address (carrier-grade NAT)"},
    {"198.18.0.0", 15, Refused::unless_private, "an address for network tests"},
    {"192.0.0.0", 24, Refused::always, "a reserved address"},
    {"192.0.2.0", 24, Refused::always, "an address for documentation"},
    {"198.51.100.0", 24, Refused::always, "an address for documentation"},
    {"203.0.113.0", 24, Refused::always, "an address for documentation"},
    {"192.88.99.0", 24, Refused::always, "a reserved address"},
    {"224.0.0.0", 4, Refused::always, "a multicast address"},
    {"240.0.0.0", 4, Refused::always, "a reserved address"},
};

constexpr Range kV6Ranges[] = {
    {"::1", 128, Refused::unless_private, "a loopback address"},
    {"::", 128, Refused::unless_private, "an address of this machine"},
    {"fd00:ec2::", 32, Refused::always, "a cloud's metadata service"},           // Amazon
    {"fd20:ce::254", 128, Refused::always, "a cloud's metadata service"},        // Google
    {"fd00:c1::a9fe:a9fe", 128, Refused::always, "a cloud's metadata service"},  // Oracle
    {"fc00::", 7, Refused::unless_private, "a unique local address"},
    {"fec0::", 10, Refused::unless_private, "a site-local address"},
    {"fe80::", 10, Refused::always, "a link-local address"},
    {"ff00::", 8, Refused::always, "a multicast address"},
    {"64:ff9b:1::", 48, Refused::always, "an address translated inside a network (NAT64)"},
    {"2001::", 32, Refused::always, "a Teredo address"},
    {"2001:db8::", 32, Refused::always, "an address for documentation"},
    {"3fff::", 20, Refused::always, "an address for documentation"},
    {"2001::", 23, Refused::always, "a reserved address"},
};

constexpr uint8_t kNat64[12] = {0x00, 0x64, 0xff, 0x9b};  // RFC 6052, 96 bits

bool same_bits(const uint8_t* a, const uint8_t* b, int bits) {
  if (std::memcmp(a, b, static_cast<size_t>(bits / 8)) != 0) return false;
  const int rest = bits % 8;
  return rest == 0 || (a[bits / 8] ^ b[bits / 8]) >> (8 - rest) == 0;
}

template <size_t N>
const Range* find_range(const Range (&ranges)[N], int family, const uint8_t* address) {
  for (const Range& range : ranges) {
    uint8_t network[16] = {};
    inet_pton(family, range.network, network);
    if (same_bits(address, network, range.bits)) return &range;
  }
  return nullptr;
}

std::optional<std::string> judged(const Range* range, const AddressPolicy& policy) {
  if (!range || (range->when == Refused::unless_private && policy.allow_private)) return std::nullopt;
  return range->reason;
}

std::optional<std::string> refusal_v4(const uint8_t* address, const AddressPolicy& policy) {
  return judged(find_range(kV4Ranges, AF_INET, address), policy);
}

IpAddress mapped(const uint8_t* v4) {
  IpAddress address;
  address.bytes[10] = address.bytes[11] = 0xFF;
  std::copy(v4, v4 + 4, address.bytes.begin() + 12);
  return address;
}

/// Where an IPv6 address carries an IPv4 address that traffic is sent on to, or null.
const uint8_t* embedded_v4(const IpAddress& address) {
  const uint8_t* bytes = address.bytes.data();
  static constexpr uint8_t k6to4[2] = {0x20, 0x02};                                               // RFC 3056
  static constexpr uint8_t kIsatap[2][4] = {{0x00, 0x00, 0x5e, 0xfe}, {0x02, 0x00, 0x5e, 0xfe}};  // RFC 5214
  static constexpr uint8_t kZero[12] = {};
  if (address.is_v4() || same_bits(bytes, kNat64, 96)) return bytes + 12;
  if (same_bits(bytes, k6to4, 16)) return bytes + 2;
  if (same_bits(bytes + 8, kIsatap[0], 32) || same_bits(bytes + 8, kIsatap[1], 32)) return bytes + 12;
  // IPv4-compatible (RFC 4291 §2.5.5.1), but not :: and ::1; ::ffff:0:a.b.c.d (RFC 2765) is outside 2000::/3 anyway.
  if (same_bits(bytes, kZero, 96) && (bytes[12] || bytes[13] || bytes[14] || bytes[15] > 1)) return bytes + 12;
  return nullptr;
}

}  // namespace

std::optional<IpAddress> IpAddress::parse(const std::string& text) {
  uint8_t v4[4];
  if (inet_pton(AF_INET, text.c_str(), v4) == 1) return mapped(v4);
  IpAddress address;
  if (inet_pton(AF_INET6, text.c_str(), address.bytes.data()) == 1) return address;
  return std::nullopt;
}

bool IpAddress::is_v4() const {
  static constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};
  return same_bits(bytes.data(), kMapped, 96);
}

std::string IpAddress::text() const {
  char buffer[INET6_ADDRSTRLEN] = {};
  if (is_v4())
    inet_ntop(AF_INET, bytes.data() + 12, buffer, sizeof buffer);
  else
    inet_ntop(AF_INET6, bytes.data(), buffer, sizeof buffer);
  return buffer;
}

std::optional<std::string> refusal(const IpAddress& address, const AddressPolicy& policy) {
  if (const uint8_t* v4 = embedded_v4(address)) {
    if (auto reason = refusal_v4(v4, policy)) return reason;
    // An outer prefix may still be a private one (ISATAP); the others have no entry in the table.
    if (address.is_v4()) return std::nullopt;
  }
  if (const Range* range = find_range(kV6Ranges, AF_INET6, address.bytes.data())) return judged(range, policy);
  const bool global = address.bytes[0] >> 5 == 1 || same_bits(address.bytes.data(), kNat64, 96);  // 2000::/3
  return global ? std::nullopt : std::optional<std::string>("a reserved address");
}

std::vector<IpAddress> resolve_with_system(const std::string& host) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), nullptr, &hints, &found) != 0) return {};
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, freeaddrinfo);
  std::vector<IpAddress> addresses;
  for (const addrinfo* entry = found; entry; entry = entry->ai_next) {
    IpAddress address;
    if (entry->ai_family == AF_INET) {
      address =
          mapped(reinterpret_cast<const uint8_t*>(&reinterpret_cast<const sockaddr_in*>(entry->ai_addr)->sin_addr));
    } else if (entry->ai_family == AF_INET6) {
      const auto* v6 = reinterpret_cast<const sockaddr_in6*>(entry->ai_addr);
      std::memcpy(address.bytes.data(), &v6->sin6_addr, 16);
    } else {
      continue;
    }
    if (std::find(addresses.begin(), addresses.end(), address) == addresses.end()) addresses.push_back(address);
  }
  return addresses;
}

AddressGuard::AddressGuard(AddressPolicy policy, Resolver resolver) : policy_(policy), resolver_(std::move(resolver)) {}

PinnedTarget AddressGuard::check(const std::string& text) const {
  const Url url = Url::parse(text);
  PinnedTarget target{.host = url.host, .port = url.port};
  const std::optional<IpAddress> literal = IpAddress::parse(url.host);
  target.addresses = literal ? std::vector{*literal} : resolver_(url.host);
  base::check(!target.addresses.empty(), ErrorKind::not_found, "{}: the host {} is unknown", shown_url(text),
              base::printable(url.host));
  for (const IpAddress& address : target.addresses) {
    const auto reason = refusal(address, policy_);
    if (!reason) continue;
    const bool never = refusal(address, {.allow_private = true}).has_value();
    base::fail(ErrorKind::bad_input, "{}: the host {} has {}; requests to it are not made{}", shown_url(text),
               base::printable(url.host), *reason, never ? "" : " unless private targets are allowed");
  }
  return target;
}

}  // namespace calotype::hub
