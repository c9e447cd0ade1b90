// Bytes of a stored file as an answer: Range, HEAD, Content-Length, caching.
#pragma once

#include "server/http_message.h"
#include "server/site.h"

namespace calotype::server {

/// 200, 206 with one range, 304 for a matching If-None-Match, or 416.
Response stored_file_response(Site& site, const Request& request, const store::StoredFile& file);

}  // namespace calotype::server
