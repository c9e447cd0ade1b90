// The server's own API as an OpenAPI document, and a page to read and try it.
#pragma once

#include <string>
#include <string_view>

#include "server/http_message.h"

namespace calotype::server {

/// OpenAPI 3.1 (which has no word for QUERY; POST-like search is described in the text).
Json api_description(const std::string& base_url);

/// One HTML page without outside resources that reads /openapi.json.
std::string_view api_page();

}  // namespace calotype::server
