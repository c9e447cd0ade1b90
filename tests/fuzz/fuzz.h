// What the fuzz targets share. A target NAME_fuzz.cpp defines fuzz_one(); fuzz_main.cpp hands libFuzzer's inputs to it.
//
//   void fuzz_one(std::string_view input) {
//     if (!accepted([&] { parse(input, kSource); })) return;       // refused with a proper base::Error
//     require(…, "entries lie inside the file");
//   }
//
// A finding is a crash, a sanitizer's report, time or memory beyond run.sh's limits, an exception that is no
// base::Error, or a broken promise.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "files/tensor_file.h"

namespace calotype::fuzz {

/// What targets call their input.
inline constexpr std::string_view kSource = "folder/input";

void fuzz_one(std::string_view input);

/// Ends the program, which libFuzzer reports with the input, unless the promise holds.
void require(bool holds, std::string_view promise);

/// True when `parse` returns. When it throws base::Error, the kind must be one that blames the input, and the message
/// one line of text that starts with `source`.
bool accepted(const std::function<void()>& parse, std::string_view source = kSource);

/// The input cut at NUL bytes into exactly `count` parts, the last of which takes the rest.
std::vector<std::string> split(std::string_view input, size_t count);

inline std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

/// Requires what a TensorTable promises of its entries, in a file of so many bytes.
void check_table(const files::TensorTable& table, uint64_t file_bytes);
/// Requires the same tensors at the same places.
void check_same(const files::TensorTable& a, const files::TensorTable& b);

/// Prompts that take all paths of a tokenizer, and the input itself when it is valid UTF-8.
std::vector<std::string> prompts_for(std::string_view input);

/// Requires ids from 0 to `vocab_size` - 1.
void check_ids(const std::vector<int32_t>& ids, int32_t vocab_size);

}  // namespace calotype::fuzz
