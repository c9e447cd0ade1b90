// How outputs of jobs name files of the store: "calotype-file:ID" wherever a string may stand. Workers write it into
// Job::output; the server answers with a URL or a data: URI in its place, because the address under which a client
// reaches the server is nobody's before the client asks.
//
//   jobs.output(claim, {file_reference(file.id)});
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace calotype::store {

constexpr std::string_view kFileScheme = "calotype-file:";

inline std::string file_reference(std::string_view id) { return std::string(kFileScheme) + std::string(id); }

/// The file's id, or nothing for any other text.
inline std::optional<std::string> referenced_file(std::string_view text) {
  if (!text.starts_with(kFileScheme)) return std::nullopt;
  return std::string(text.substr(kFileScheme.size()));
}

}  // namespace calotype::store
