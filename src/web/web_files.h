// The web page's files, carried in the program.
//
//   if (const auto file = web::web_file("style.css")) send(file->content_type, file->content);
//
// Constants: any thread; the views live as long as the program.
#pragma once

#include <optional>
#include <string_view>

namespace calotype::web {

struct WebFile {
  std::string_view content;
  std::string_view content_type;  ///< with its charset
  std::string_view tag;           ///< changes with the content, for ETag
};

/// By name in src/web ("index.html"); nothing for any other.
std::optional<WebFile> web_file(std::string_view name);

}  // namespace calotype::web
