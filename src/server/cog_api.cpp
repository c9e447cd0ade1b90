// Cog's HTTP API: a container with one model, here FLUX.1 [schnell].
#include <fmt/format.h>

#include "server/other_apis.h"
#include "server/problem.h"
#include "server/replicate_objects.h"
#include "server/submit.h"

namespace calotype::server {
using store::Job;

namespace {

constexpr auto kPatience = std::chrono::seconds(3600);  // Cog answers when it is done

Response predict(Site& site, Request& request, const Json& body, const std::string& id) {
  Submission submission{
      .target = *find_target(site, "black-forest-labs", "flux-schnell"), .body = body, .id = id, .data_uris = true};
  if (id.empty() && body.contains("id") && body["id"].is_string()) submission.id = body["id"];
  const Job job = submit(site, request, submission);
  if (request.header("prefer").find("respond-async") != std::string_view::npos)
    return json_response(job_json(site, job, request.base_url), 202);
  return json_response(job_json(site, wait_for_end(site, job, kPatience), request.base_url));
}

Response health_check(Site& site, Request&) {
  const bool ready = !site.store.workers->list(store::now() - 60 * store::kSecond).empty();
  return json_response({{"status", ready ? "READY" : "STARTING"},
                        {"setup", {{"status", "succeeded"}, {"logs", ""}}},
                        {"version", {{"cog", "0.9.25"}}}});
}

}  // namespace

Response cog_predict(Site& site, Request& request, const Json& body, const std::string& id) {
  try {
    return predict(site, request, body, id);
  } catch (const std::exception& error) {  // the same path speaks Replicate's dialect to others
    return problem_response(error, Dialect::cog);
  }
}

std::vector<Route> cog_routes(Site& site) {
  return {
      {"PUT", "/predictions/{id}",
       [&site](Request& request) {
         return cog_predict(site, request, request.read_json_object(), request.parameter("id"));
       },
       Access::token, Cost::create, Dialect::cog},
      {"GET", "/health-check", [&site](Request& request) { return health_check(site, request); }, Access::open,
       Cost::read, Dialect::cog},
  };
}

}  // namespace calotype::server
