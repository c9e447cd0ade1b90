// POST and GET of predictions: by version, by model, by deployment.
#include <fmt/format.h>

#include "server/other_apis.h"
#include "server/problem.h"
#include "server/replicate_api.h"
#include "server/replicate_objects.h"
#include "server/submit.h"

namespace calotype::server {
using store::Job;
using store::JobKind;

namespace {

/// Clients turn only https: and data: strings into files; over http those who wait get data: URIs.
bool wants_data_uris(const Request& request) {
  return preferred_wait(request).has_value() && request.base_url.starts_with("http:");
}

Response create(Site& site, Request& request, Submission submission) {
  if (submission.target.is_trainer())
    throw Problem(422, "Invalid version or not permitted",
                  fmt::format("{} trains models: use POST /v1/models/{}/versions/{}/trainings.",
                              submission.target.full_name(), submission.target.full_name(), submission.target.version));
  submission.data_uris = wants_data_uris(request);
  return created_answer(site, request, submit(site, request, submission));
}

Response create_by_version(Site& site, Request& request) {
  Json body = request.read_json_object();
  const auto version = body.find("version");
  if (version == body.end() && request.path == "/predictions") return cog_predict(site, request, body);
  if (version == body.end() || version->is_null()) throw invalid_field("version", "version is required", "required");
  if (!version->is_string()) throw invalid_field("version", "Must be a string.", "invalid_type");
  Target target = target_of_reference(site, version->get<std::string>());
  return create(site, request, {.target = std::move(target), .body = std::move(body)});
}

Response create_by_model(Site& site, Request& request) {
  const std::string &owner = request.parameter("owner"), &name = request.parameter("name");
  Json body = request.read_json_object();
  auto target = find_target(site, owner, name);
  if (!target) {
    if (site.store.models->find(owner, name))
      throw Problem(422, "Invalid version or not permitted",
                    fmt::format("The model {}/{} has no version yet; train one.", owner, name));
    throw not_found("The requested resource could not be found.");
  }
  return create(site, request, {.target = std::move(*target), .body = std::move(body)});
}

Response create_by_deployment(Site& site, Request& request) {
  const std::string &owner = request.parameter("owner"), &name = request.parameter("name");
  Json body = request.read_json_object();
  const auto deployment = site.store.models->find_deployment(owner, name);
  if (!deployment) throw not_found("The requested resource could not be found.");
  Target target = target_of_reference(site, deployment->model + ":" + deployment->version);
  return create(site, request,
                {.target = std::move(target), .body = std::move(body), .deployment = owner + "/" + name});
}

std::optional<store::Time> time_value(const Request& request, const std::string& name) {
  const auto text = request.query_value(name);
  if (!text) return std::nullopt;
  const auto time = store::parse_rfc3339(*text);
  if (!time) throw invalid_field(name, "Must be a time as in 2026-01-05T10:00:00Z.", "format");
  return time;
}

Response list(Site& site, Request& request, JobKind kind) {
  const store::PageQuery page = page_query(request);
  store::JobQuery query{.kind = kind};
  query.created_after = time_value(request, "created_after");
  query.created_before = time_value(request, "created_before");
  query.source = request.query_value("source").value_or("");
  query.search = request.query_value("search").value_or("");
  query.model = request.query_value("model").value_or("");
  if (const auto status = request.query_value("status")) {
    query.status = store::parse_job_status(*status);
    if (!query.status)
      throw invalid_field("status", "Must be starting, processing, succeeded, failed or canceled.", "enum");
  }
  query.cursor = page.cursor;
  query.limit = page.limit;
  const store::JobPage found = site.store.jobs->list(query);
  Json results = Json::array();
  for (const Job& job : found.jobs) results.push_back(job_json(site, job, request.base_url, FileForm::url));
  return json_response(page_json(request, std::move(results), found.next, found.previous));
}

Job job_of(Site& site, const Request& request) {
  auto job = site.store.jobs->find(request.parameter("id"));
  if (!job) throw not_found("The requested resource could not be found.");
  return std::move(*job);
}

Response get(Site& site, Request& request) {
  return json_response(job_json(site, job_of(site, request), request.base_url));
}

Response cancel(Site& site, Request& request) {
  const Job job = job_of(site, request);
  return json_response(job_json(site, site.store.jobs->cancel(job.id), request.base_url));
}

/// The deliveries of a job's webhook: ours, for people who wonder where their call is.
Response deliveries(Site& site, Request& request) {
  Json results = Json::array();
  for (const store::Delivery& each : site.store.webhooks->of_job(job_of(site, request).id))
    results.push_back({{"id", each.message_id},
                       {"event", each.event},
                       {"url", each.url},
                       {"state", each.state},
                       {"attempts", each.attempts},
                       {"created_at", time_text(each.created_at)},
                       {"next_at", time_text(each.next_at)},
                       {"last_status", each.last_status},
                       {"last_error", each.last_error}});
  return json_response({{"results", results}});
}

// ---- trainings

Response create_training(Site& site, Request& request) {
  const std::string &owner = request.parameter("owner"), &name = request.parameter("name");
  Json body = request.read_json_object();
  auto target = find_target(site, owner, name, request.parameter("version"));
  if (!target || !target->is_trainer())
    throw Problem(
        422, "Invalid version or not permitted",
        target ? fmt::format(
                     "{}/{} is no trainer; trainers are ostris/flux-dev-lora-trainer and replicate/fast-flux-trainer.",
                     owner, name)
               : "The specified version does not exist (or perhaps you don't have permission to use it?)");
  const auto given = body.find("destination");
  if (given == body.end() || !given->is_string())
    throw invalid_field("destination", "destination is required, as owner/name", "required");
  const std::string destination = given->get<std::string>();
  const auto names = owner_and_name(destination);
  if (!names || !site.store.models->find(names->first, names->second))
    throw Problem(404, "Not found", "The specified training destination does not exist");
  const Job job = submit(
      site, request,
      {.target = std::move(*target), .body = std::move(body), .kind = JobKind::training, .destination = destination});
  Json answer = job_json(site, job, request.base_url);
  Response response = json_response(answer, 201);
  return response.with("Location", answer["urls"]["get"]);
}

Handler with(Site& site, Response (*function)(Site&, Request&)) {
  return [&site, function](Request& request) { return function(site, request); };
}

}  // namespace

std::vector<Route> prediction_routes(Site& site) {
  return {
      {"POST", "/predictions", with(site, create_by_version), Access::token, Cost::create},
      {"POST", "/models/{owner}/{name}/predictions", with(site, create_by_model), Access::token, Cost::create},
      {"POST", "/deployments/{owner}/{name}/predictions", with(site, create_by_deployment), Access::token,
       Cost::create},
      {"GET", "/predictions", [&site](Request& request) { return list(site, request, JobKind::prediction); }},
      {"GET", "/predictions/{id}", with(site, get)},
      {"POST", "/predictions/{id}/cancel", with(site, cancel)},
      {"GET", "/predictions/{id}/webhooks", with(site, deliveries)},
  };
}

std::vector<Route> training_routes(Site& site) {
  return {
      {"POST", "/models/{owner}/{name}/versions/{version}/trainings", with(site, create_training), Access::token,
       Cost::create},
      {"GET", "/trainings", [&site](Request& request) { return list(site, request, JobKind::training); }},
      {"GET", "/trainings/{id}", with(site, get)},
      {"POST", "/trainings/{id}/cancel", with(site, cancel)},
      {"GET", "/trainings/{id}/webhooks", with(site, deliveries)},
  };
}

}  // namespace calotype::server
