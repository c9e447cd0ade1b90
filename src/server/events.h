// What happens to a job, as server-sent events: Replicate's stream for its clients, and a richer one for the page.
//
// Replicate's (GET /v1/files/stream-TOKEN, of text models /v1/stream/TOKEN): events output, logs, error, done only,
// each with an id — replicate-python drops those without id and fails at other names. Ours (GET
// /v1/predictions/ID/events, or /v1/events/TOKEN for pages, whose EventSource cannot send a token): also status,
// progress, preview and queue. Both go on after Last-Event-ID. One thread per open stream; it sleeps in the store.
#pragma once

#include <vector>

#include "server/router.h"
#include "server/site.h"

namespace calotype::server {

std::vector<Route> event_routes(Site& site);

/// One frame; `data` may have several lines.
std::string event_frame(std::string_view event, std::string_view id, std::string_view data);

}  // namespace calotype::server
