#include "web/web_files.h"

#include "web/embedded_file.h"

namespace calotype::web {

namespace {

std::string_view content_type_of(std::string_view name) {
  if (name.ends_with(".html")) return "text/html; charset=utf-8";
  if (name.ends_with(".css")) return "text/css; charset=utf-8";
  if (name.ends_with(".js")) return "text/javascript; charset=utf-8";
  if (name.ends_with(".svg")) return "image/svg+xml";
  return "application/octet-stream";
}

}  // namespace

std::optional<WebFile> web_file(std::string_view name) {
  for (const EmbeddedFile& file : embedded_files())
    if (name == file.name)
      return WebFile{.content = {reinterpret_cast<const char*>(file.bytes), file.size},
                     .content_type = content_type_of(name),
                     .tag = file.tag};
  return std::nullopt;
}

}  // namespace calotype::web
