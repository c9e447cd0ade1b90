// Mutations of a PNG file would all end at its checksums; this puts them right after most of them.
#pragma once

#include <zlib.h>

#include <cstddef>
#include <cstdint>

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed) {
  constexpr size_t kSignature = 8, kFrame = 12;  // length, type and checksum around a chunk's data
  size = LLVMFuzzerMutate(data, size, max_size);
  if (seed % 8 == 0) return size;
  for (size_t at = kSignature; at + kFrame <= size;) {
    uint8_t* chunk = data + at;
    const size_t length = size_t{chunk[0]} << 24 | size_t{chunk[1]} << 16 | size_t{chunk[2]} << 8 | chunk[3];
    if (length > size - at - kFrame) break;
    const auto checksum = static_cast<uint32_t>(crc32_z(0, chunk + 4, 4 + length));
    for (size_t i = 0; i < 4; ++i) chunk[8 + length + i] = static_cast<uint8_t>(checksum >> (24 - 8 * i));
    at += kFrame + length;
  }
  return size;
}
