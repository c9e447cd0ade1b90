// SHA-256 (FIPS 180-4): a name for content that nobody can make two contents share.
//
//   Sha256 hash;
//   hash.update(block);                 // as often as needed
//   std::string digits = hash.hex();    // 64 lower-case hexadecimal digits
//
// About 170 MB/s on one core; pictures take longer to decode. One thread at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace calotype::base {

class Sha256 {
 public:
  void update(std::span<const std::byte> bytes);
  void update(std::string_view text) { update(std::as_bytes(std::span(text))); }
  /// The digest of everything so far; more may follow.
  std::array<uint8_t, 32> digest() const;
  std::string hex() const;

 private:
  void compress(const uint8_t* block);

  std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<uint8_t, 64> pending_{};  // the first size_ % 64 bytes count
  uint64_t size_ = 0;
};

std::string sha256_hex(std::string_view bytes);

}  // namespace calotype::base
