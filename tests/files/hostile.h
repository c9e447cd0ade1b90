// What the tests of hostile files share: little-endian bytes, an expected refusal, and how much memory it took.
//
//   expect_refused(ErrorKind::corrupt_file, {"tensor a", "expected 24", "got 20"}, [&] { parse(bytes); });
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"

namespace calotype::files {

inline std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

template <typename T>
std::string little_endian(T value) {
  std::string out(sizeof(T), '\0');
  std::memcpy(out.data(), &value, sizeof(T));
  return out;
}

inline std::string repeated(std::string_view text, size_t times) {
  std::string out;
  for (size_t i = 0; i < times; ++i) out += text;
  return out;
}

/// The most bytes that lived on the heap at once through `new` in this thread while `work` ran.
int64_t peak_bytes(const std::function<void()>& work);

/// `work` throws a base::Error of this kind whose one-line message has all of these words, and refusing takes less than
/// `limit` bytes.
inline void expect_refused(base::ErrorKind kind, const std::vector<std::string>& words,
                           const std::function<void()>& work, int64_t limit = 1 << 20) {
  std::string message;
  const int64_t peak = peak_bytes([&] {
    try {
      work();
    } catch (const base::Error& error) {
      EXPECT_EQ(base::name(error.kind()), base::name(kind)) << error.what();
      message = error.what();
    }
  });
  ASSERT_FALSE(message.empty()) << "accepted, expected a message with \"" << (words.empty() ? "" : words.back()) << '"';
  for (const std::string& word : words)
    EXPECT_NE(message.find(word), std::string::npos) << message << "\nlacks " << word;
  EXPECT_EQ(base::printable(message, 10'000), message);
  EXPECT_LT(peak, limit) << message;
}

struct HostileCase {
  std::string bytes;
  std::vector<std::string> words;
  base::ErrorKind kind = base::ErrorKind::corrupt_file;
};

}  // namespace calotype::files
