// One request from the door to the answer: origin, route, token, allowance, handler, errors, numbers.
#pragma once

#include "server/http_message.h"
#include "server/router.h"
#include "server/site.h"

namespace calotype::server {

/// Never throws.
Response answer(Site& site, const Router& router, Request& request);

}  // namespace calotype::server
