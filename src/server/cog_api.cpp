// Cog's HTTP API: a container with one model, here FLUX.1 [schnell], and its trainer.
#include <fmt/format.h>

#include "base/sha256.h"
#include "server/json_fields.h"
#include "server/other_apis.h"
#include "server/problem.h"
#include "server/replicate_objects.h"
#include "server/submit.h"
#include "store/ids.h"

namespace calotype::server {
using store::Job;

namespace {

constexpr auto kPatience = std::chrono::seconds(3600);  // Cog answers when it is done

/// The id that the URL or the body gives; both give the same. "" = none.
std::string given_id(const std::string& in_url, const Json& body) {
  const std::string in_body = string_or(body, "id", in_url);
  if (!in_url.empty() && in_body != in_url) throw invalid_field("id", "Must match the ID in the URL.");
  return in_body;
}

Response predict(Site& site, Request& request, const Json& body, const std::string& id) {
  const Job job = submit(site, request,
                         {.target = *find_target(site, "black-forest-labs", "flux-schnell"),
                          .body = body,
                          .id = given_id(id, body),
                          .data_uris = true});
  if (request.header("prefer").find("respond-async") != std::string_view::npos)
    return json_response(job_json(site, job, request.base_url), 202);
  return json_response(job_json(site, wait_for_end(site, job, kPatience), request.base_url));
}

/// Cog's trainings leave a file; here they leave a model as well, named after the training.
Response train(Site& site, Request& request, std::string id) {
  const Json body = request.read_json_object();
  if (body.contains("version") || body.contains("destination"))
    throw Problem(
        422, "Invalid input",
        "A training with version and destination is a POST to /v1/models/OWNER/NAME/versions/VERSION/trainings.");
  id = given_id(id, body);
  if (id.empty()) id = store::new_id();
  store::check_id("id", id);
  store::Model model;
  model.owner = site.store.settings->username();
  model.name = "training-" + base::sha256_hex(id).substr(0, 12);  // ids may have capitals
  const Job job = submit_with_model(
      site, request, model, {.target = *find_target(site, "ostris", "flux-dev-lora-trainer"), .body = body, .id = id});
  const bool async = request.header("prefer").find("respond-async") != std::string_view::npos;
  return json_response(job_json(site, async ? job : wait_for_end(site, job, kPatience), request.base_url),
                       async ? 202 : 200);
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
      {"POST", "/trainings", [&site](Request& request) { return train(site, request, ""); }, Access::token,
       Cost::create, Dialect::cog},
      {"PUT", "/trainings/{id}", [&site](Request& request) { return train(site, request, request.parameter("id")); },
       Access::token, Cost::create, Dialect::cog},
      {"GET", "/health-check", [&site](Request& request) { return health_check(site, request); }, Access::open,
       Cost::read, Dialect::cog},
  };
}

}  // namespace calotype::server
