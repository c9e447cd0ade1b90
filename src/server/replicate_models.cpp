// Models: those that are served out of the box, and those that users make to train into.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <sstream>

#include "server/json_fields.h"
#include "server/problem.h"
#include "server/replicate_api.h"
#include "server/replicate_objects.h"
#include "server/submit.h"

namespace calotype::server {
using worker::ServedModel;

namespace {

Problem no_such_model() { return not_found("The requested resource could not be found."); }

std::string text_field(const Json& body, const std::string& name, bool required = false) {
  return store::clean_text(required ? required_string(body, name) : string_or(body, name, ""));
}

std::optional<std::string> changed_field(const Json& body, const std::string& name) {
  if (!body.contains(name)) return std::nullopt;
  return text_field(body, name);
}

bool is_official_owner(const std::string& owner) {
  return std::ranges::any_of(worker::official_models(), [&](const ServedModel& model) { return model.owner == owner; });
}

std::string visibility_field(const Json& body, bool required) {
  const std::string visibility = text_field(body, "visibility", required);
  if (!visibility.empty() && visibility != "public" && visibility != "private")
    throw invalid_field("visibility", "Must be public or private.", "enum");
  return visibility;
}

Response create(Site& site, Request& request) {
  const Json body = request.read_json_object();
  store::Model model;
  model.owner = text_field(body, "owner", true);
  model.name = text_field(body, "name", true);
  model.visibility = visibility_field(body, true);
  model.hardware = text_field(body, "hardware", true);
  model.description = text_field(body, "description");
  model.github_url = text_field(body, "github_url");
  model.paper_url = text_field(body, "paper_url");
  model.license_url = text_field(body, "license_url");
  model.cover_image_url = text_field(body, "cover_image_url");
  if (is_official_owner(model.owner))
    throw Problem(403, "Forbidden",
                  fmt::format("{} owns the models that come with the program; choose your own name, for example {}.",
                              model.owner, site.store.settings->username()));
  return json_response(model_json(site, site.store.models->create(model), request.base_url), 201);
}

store::ModelQuery order_of(const Request& request) {
  store::ModelQuery query;
  static_cast<store::PageQuery&>(query) = page_query(request);
  const std::string by = request.query_value("sort_by").value_or("model_created_at");
  if (by != "model_created_at" && by != "latest_version_created_at")
    throw invalid_field("sort_by", "Must be model_created_at or latest_version_created_at.", "enum");
  if (by == "latest_version_created_at") query.order = store::ModelOrder::latest_version_created_at;
  const std::string direction = request.query_value("sort_direction").value_or("desc");
  if (direction != "asc" && direction != "desc") throw invalid_field("sort_direction", "Must be asc or desc.", "enum");
  query.ascending = direction == "asc";
  return query;
}

/// Official models are older than all others: they end the last page, or begin the first one of an ascending list.
Response list(Site& site, Request& request) {
  const store::ModelQuery query = order_of(request);
  const auto page = site.store.models->list(query);
  Json official = Json::array(), results = Json::array();
  for (const ServedModel& model : worker::official_models()) official.push_back(model_json(model, request.base_url));
  if (query.ascending && query.cursor.empty()) results = official;
  for (const store::Model& model : page.items) results.push_back(model_json(site, model, request.base_url));
  if (!query.ascending && page.next.empty()) results.insert(results.end(), official.begin(), official.end());
  Json body = page_json(request, std::move(results), page.next, page.previous);
  // OpenAI's clients read the same path and skip what they do not know.
  body["object"] = "list";
  body["data"] = Json::array();
  for (const Json& model : body["results"])
    body["data"].push_back(
        {{"id", fmt::format("{}/{}", model["owner"].get<std::string>(), model["name"].get<std::string>())},
         {"object", "model"},
         {"created", store::parse_rfc3339(model["created_at"].get<std::string>()).value_or(0) / store::kSecond},
         {"owned_by", model["owner"]}});
  return json_response(body);
}

/// The text of QUERY /models: plain, or in JSON's quotes as replicate-js and the beta of replicate-python send it.
std::string search_text(Request& request) {
  std::string text = request.read_body(64 << 10);
  const Json quoted = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (quoted.is_string()) text = quoted.get<std::string>();
  return store::clean_text(text);
}

Json found_models(Site& site, const std::string& text, int limit, const std::string& base_url) {
  store::ModelQuery query;
  query.search = text;
  query.limit = limit;
  Json results = Json::array();
  for (const store::Model& model : site.store.models->list(query).items)
    results.push_back(model_json(site, model, base_url));
  const auto lower = [](std::string value) {
    std::ranges::transform(value, value.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return value;
  };
  const auto has_all_words = [&](const ServedModel& model) {  // as the store searches
    const std::string about = lower(model.full_name() + " " + model.description);
    std::istringstream words(lower(text));
    return std::all_of(std::istream_iterator<std::string>(words), {},
                       [&](const std::string& word) { return about.find(word) != std::string::npos; });
  };
  for (const ServedModel& model : worker::official_models())
    if (static_cast<int>(results.size()) < limit && has_all_words(model))
      results.push_back(model_json(model, base_url));
  return results;
}

Response query_models(Site& site, Request& request) {
  const std::string text = search_text(request);
  return json_response(page_json(request, found_models(site, text, 100, request.base_url), "", ""));
}

Response search(Site& site, Request& request) {
  const auto text = request.query_value("query");
  if (!text) throw Problem(400, "Bad request", "The parameter query is missing.");
  const int limit = page_query(request).limit;
  Json models = Json::array();
  for (Json& model : found_models(site, *text, std::min(limit, 50), request.base_url)) {
    const Json about = {{"tags", Json::array()}, {"score", 1.0}, {"generated_description", model["description"]}};
    models.push_back({{"model", std::move(model)}, {"metadata", about}});
  }
  Json found = Json::array();
  for (const store::Collection& each : store::collections())
    if (each.name.find(*text) != std::string::npos || each.slug.find(*text) != std::string::npos)
      found.push_back(
          {{"slug", each.slug}, {"name", each.name}, {"description", each.description}, {"models", each.models}});
  return json_response({{"query", *text}, {"models", models}, {"collections", found}, {"pages", Json::array()}});
}

Response get(Site& site, Request& request) {
  const std::string &owner = request.parameter("owner"), &name = request.parameter("name");
  if (const ServedModel* model = worker::find_model(owner + "/" + name))
    return json_response(model_json(*model, request.base_url));
  const auto model = site.store.models->find(owner, name);
  if (!model) throw no_such_model();
  return json_response(model_json(site, *model, request.base_url));
}

void check_not_official(const Request& request) {
  if (worker::find_model(request.parameter("owner") + "/" + request.parameter("name")))
    throw Problem(403, "Forbidden", "Models that come with the program cannot be changed.");
}

Response update(Site& site, Request& request) {
  check_not_official(request);
  const Json body = request.read_json_object();
  store::ModelChange change;
  change.description = changed_field(body, "description");
  change.readme = changed_field(body, "readme");
  change.github_url = changed_field(body, "github_url");
  change.paper_url = changed_field(body, "paper_url");
  change.license_url = changed_field(body, "license_url");
  change.cover_image_url = changed_field(body, "cover_image_url");
  change.hardware = changed_field(body, "hardware");
  if (body.contains("visibility")) change.visibility = visibility_field(body, true);
  return json_response(
      model_json(site, site.store.models->update(request.parameter("owner"), request.parameter("name"), change),
                 request.base_url));
}

Response remove(Site& site, Request& request) {
  check_not_official(request);
  const std::string &owner = request.parameter("owner"), &name = request.parameter("name");
  const auto model = site.store.models->find(owner, name);
  if (!model) throw no_such_model();
  if (model->visibility != "private")
    throw Problem(403, "Forbidden", "Only private models can be deleted; make it private first (PATCH visibility).");
  site.store.models->remove(owner, name);
  return empty_response();
}

Response readme(Site& site, Request& request) {
  const auto model = site.store.models->find(request.parameter("owner"), request.parameter("name"));
  if (!model || model->readme.empty()) throw not_found("This model has no README.");
  return text_response(model->readme, "text/markdown; charset=utf-8");
}

Response examples(Site& site, Request& request) {
  const std::string &owner = request.parameter("owner"), &name = request.parameter("name");
  const auto model = site.store.models->find(owner, name);
  if (!model && !worker::find_model(owner + "/" + name)) throw no_such_model();
  Json results = Json::array();
  if (model && !model->example_job.empty())
    if (const auto job = site.store.jobs->find(model->example_job))
      results.push_back(job_json(site, *job, request.base_url, FileForm::url));
  return json_response(page_json(request, std::move(results), "", ""));
}

// ---- versions

Response list_versions(Site& site, Request& request) {
  const std::string &owner = request.parameter("owner"), &name = request.parameter("name");
  Json results = Json::array();
  if (worker::find_model(owner + "/" + name)) {
    results.push_back(version_json(*find_target(site, owner, name)));
    return json_response(page_json(request, std::move(results), "", ""));
  }
  if (!site.store.models->find(owner, name)) throw no_such_model();
  const auto page = site.store.models->versions(owner, name, page_query(request));
  for (const store::Version& version : page.items)
    results.push_back(version_json({.schema = &worker::fine_tuned_model(),
                                    .owner = owner,
                                    .name = name,
                                    .version = version.id,
                                    .created_at = version.created_at}));
  return json_response(page_json(request, std::move(results), page.next, page.previous));
}

Response get_version(Site& site, Request& request) {
  const auto target =
      find_target(site, request.parameter("owner"), request.parameter("name"), request.parameter("version"));
  if (!target) throw not_found("The requested resource could not be found.");
  return json_response(version_json(*target));
}

Response remove_version(Site& site, Request& request) {
  check_not_official(request);
  site.store.models->remove_version(request.parameter("owner"), request.parameter("name"),
                                    request.parameter("version"));
  return empty_response();  // Replicate says 202; replicate-python reports success for 204 only
}

Handler with(Site& site, Response (*function)(Site&, Request&)) {
  return [&site, function](Request& request) { return function(site, request); };
}

}  // namespace

std::vector<Route> model_routes(Site& site) {
  return {
      {"GET", "/models", with(site, list)},
      {"POST", "/models", with(site, create), Access::token, Cost::create},
      {"QUERY", "/models", with(site, query_models)},
      {"GET", "/search", with(site, search)},
      {"GET", "/models/{owner}/{name}", with(site, get)},
      {"PATCH", "/models/{owner}/{name}", with(site, update)},
      {"DELETE", "/models/{owner}/{name}", with(site, remove)},
      {"GET", "/models/{owner}/{name}/readme", with(site, readme)},
      {"GET", "/models/{owner}/{name}/examples", with(site, examples)},
  };
}

std::vector<Route> version_routes(Site& site) {
  return {
      {"GET", "/models/{owner}/{name}/versions", with(site, list_versions)},
      {"GET", "/models/{owner}/{name}/versions/{version}", with(site, get_version)},
      {"DELETE", "/models/{owner}/{name}/versions/{version}", with(site, remove_version)},
  };
}

}  // namespace calotype::server
