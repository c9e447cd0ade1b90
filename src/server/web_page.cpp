#include "server/web_page.h"

#include <fmt/format.h>

#include "server/problem.h"

namespace calotype::server {

namespace {

// Nothing from outside, no inline code, and no way to turn text into markup (trusted-types).
constexpr const char* kPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'";

Response file_response(const PageFiles& files, const Request& request, std::string_view name) {
  const auto file = files(name);
  if (!file) throw not_found(fmt::format("The page has no file {}.", base::printable(name)));
  const std::string tag = fmt::format("\"{}\"", file->tag);
  Response response;
  response.content_type = file->content_type;
  // Asked each time, answered with 304: after an update of the program no old part stays.
  response.with("ETag", tag).with("Cache-Control", "no-cache").with("X-Content-Type-Options", "nosniff");
  response.with("Content-Security-Policy", kPolicy).with("Referrer-Policy", "same-origin");
  if (request.header("if-none-match") == tag) {
    response.status = 304;
    response.content_type.clear();
  } else {
    response.body = file->content;
  }
  return response;
}

}  // namespace

std::vector<Route> page_routes(const PageFiles& files) {
  const Handler page = [files](Request& request) { return file_response(files, request, "index.html"); };
  const Handler file = [files](Request& request) { return file_response(files, request, request.parameter("name")); };
  std::vector<Route> routes = {{"GET", "/-/{name}", file, Access::open}};
  for (const char* pattern : {"/", "/gallery", "/train", "/settings", "/p/{id}"})
    routes.push_back({"GET", pattern, page, Access::open});
  return routes;
}

Route model_page_route(const PageFiles& files) {
  return {"GET", "/{owner}/{name}",
          [files](Request& request) {
            if (request.header("accept").find("text/html") == std::string_view::npos)
              throw not_found(fmt::format("Nothing lives at {}.", base::printable(request.path)));
            return file_response(files, request, "index.html");
          },
          Access::open};
}

}  // namespace calotype::server
