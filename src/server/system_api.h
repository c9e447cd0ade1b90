// For operators and curious people: /health, /metrics, /openapi.json, /docs, and a greeting at /.
#pragma once

#include <vector>

#include "server/router.h"
#include "server/site.h"

namespace calotype::server {

std::vector<Route> system_routes(Site& site);

}  // namespace calotype::server
