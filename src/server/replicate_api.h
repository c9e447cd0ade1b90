// Replicate's HTTP API, one function per resource; each returns the resource's routes.
//
//   router.add(prediction_routes(site), kApiMounts);
//
// Reference: replicate.com/docs/reference/http and the clients replicate-python 1.0.7, replicate-javascript 1.4.0. The
// site must outlive the routes.
#pragma once

#include <vector>

#include "server/router.h"
#include "server/site.h"

namespace calotype::server {

std::vector<Route> account_routes(Site& site);     ///< account, hardware, webhook secret
std::vector<Route> collection_routes(Site& site);  ///< collections, search
std::vector<Route> model_routes(Site& site);
std::vector<Route> version_routes(Site& site);
std::vector<Route> prediction_routes(Site& site);
std::vector<Route> training_routes(Site& site);
std::vector<Route> file_routes(Site& site);
std::vector<Route> deployment_routes(Site& site);

/// Everything above and what is not Replicate's: outputs, events, health, metrics, descriptions, the other APIs.
Router all_routes(Site& site, std::vector<Route> further);

/// Page size and cursor of a request: `limit` is ours, 1 to 100. Problem 422.
store::PageQuery page_query(const Request& request);

}  // namespace calotype::server
