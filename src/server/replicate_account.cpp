// What describes the installation itself: account, hardware, collections, deployments, the webhook secret.
#include <charconv>

#include "server/json_fields.h"
#include "server/problem.h"
#include "server/replicate_api.h"
#include "server/replicate_objects.h"

namespace calotype::server {

namespace {

// Scripts name Replicate's hardware when they make a model; any name is accepted, this machine runs it.
const Json kHardware = Json::array({{{"sku", "cpu"}, {"name", "CPU"}},
                                    {{"sku", "gpu-t4"}, {"name", "Nvidia T4 GPU"}},
                                    {{"sku", "gpu-l40s"}, {"name", "Nvidia L40S GPU"}},
                                    {{"sku", "gpu-a100-large"}, {"name", "Nvidia A100 (80GB) GPU"}},
                                    {{"sku", "gpu-h100"}, {"name", "Nvidia H100 GPU"}}});

Response collections(Site&, Request& request) {
  Json results = Json::array();
  for (const store::Collection& each : store::collections())
    results.push_back({{"name", each.name}, {"slug", each.slug}, {"description", each.description}});
  return json_response(page_json(request, std::move(results), "", ""));
}

Response collection(Site& site, Request& request) {
  for (const store::Collection& each : store::collections()) {
    if (each.slug != request.parameter("slug")) continue;
    Json models = Json::array();
    for (const std::string& full_name : each.models) {
      const auto names = owner_and_name(full_name);
      if (const auto* official = worker::find_model(full_name)) {
        models.push_back(model_json(*official, request.base_url));
      } else if (const auto model = names ? site.store.models->find(names->first, names->second) : std::nullopt) {
        models.push_back(model_json(site, *model, request.base_url));
      }
    }
    return json_response({{"name", each.name},
                          {"slug", each.slug},
                          {"description", each.description},
                          {"full_description", each.description},
                          {"models", models}});
  }
  throw not_found("The requested resource could not be found.");
}

// ---- deployments

int instances(const Json& body, const std::string& name, int otherwise) {
  return whole_number(body, name, 0, 100, otherwise);
}

std::string text_field(const Json& body, const std::string& name) {
  return store::clean_text(required_string(body, name));
}

/// A model and a version that exist, in whatever form the version is given.
Target deployed(Site& site, const std::string& model, const std::string& version) {
  const size_t colon = version.find(':');
  return target_of_reference(site, model + ":" + (colon == std::string::npos ? version : version.substr(colon + 1)));
}

Response create_deployment(Site& site, Request& request) {
  const Json body = request.read_json_object();
  const Target target = deployed(site, text_field(body, "model"), text_field(body, "version"));
  store::Deployment deployment{.owner = site.store.settings->username(),
                               .name = text_field(body, "name"),
                               .model = target.full_name(),
                               .version = target.version,
                               .hardware = text_field(body, "hardware")};
  deployment.min_instances = instances(body, "min_instances", 0);
  deployment.max_instances = instances(body, "max_instances", 1);
  return json_response(deployment_json(site, site.store.models->create_deployment(deployment)), 201);
}

store::Deployment deployment_of(Site& site, const Request& request) {
  auto found = site.store.models->find_deployment(request.parameter("owner"), request.parameter("name"));
  if (!found) throw not_found("The requested resource could not be found.");
  return *found;
}

Response list_deployments(Site& site, Request& request) {
  const auto page = site.store.models->deployments(page_query(request));
  Json results = Json::array();
  for (const store::Deployment& each : page.items) results.push_back(deployment_json(site, each));
  return json_response(page_json(request, std::move(results), page.next, page.previous));
}

Response get_deployment(Site& site, Request& request) {
  return json_response(deployment_json(site, deployment_of(site, request)));
}

Response update_deployment(Site& site, Request& request) {
  const Json body = request.read_json_object();
  const store::Deployment present = deployment_of(site, request);
  store::DeploymentChange change;
  if (given(body, "version")) change.version = deployed(site, present.model, text_field(body, "version")).version;
  if (given(body, "hardware")) change.hardware = text_field(body, "hardware");
  if (given(body, "min_instances")) change.min_instances = instances(body, "min_instances", 0);
  if (given(body, "max_instances")) change.max_instances = instances(body, "max_instances", 1);
  return json_response(
      deployment_json(site, site.store.models->update_deployment(present.owner, present.name, change)));
}

Response remove_deployment(Site& site, Request& request) {
  const store::Deployment present = deployment_of(site, request);
  site.store.models->remove_deployment(present.owner, present.name);
  return empty_response();
}

Handler with(Site& site, Response (*function)(Site&, Request&)) {
  return [&site, function](Request& request) { return function(site, request); };
}

}  // namespace

store::PageQuery page_query(const Request& request) {
  store::PageQuery query{.cursor = request.query_value("cursor").value_or(""), .limit = 100};
  if (const auto text = request.query_value("limit")) {
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), query.limit);
    if (error != std::errc() || end != text->data() + text->size() || query.limit < 1 || query.limit > 100)
      throw invalid_field("limit", "Must be a whole number from 1 to 100.", "number_lte");
  }
  return query;
}

std::vector<Route> account_routes(Site& site) {
  return {
      {"GET", "/account", [&site](Request&) { return json_response(account_json(site)); }},
      {"GET", "/hardware", [](Request&) { return json_response(kHardware); }},
      {"GET", "/webhooks/default/secret",
       [&site](Request&) {
         return json_response({{"key", site.store.settings->webhook_secret()}});
       }},
  };
}

std::vector<Route> collection_routes(Site& site) {
  return {{"GET", "/collections", with(site, collections)}, {"GET", "/collections/{slug}", with(site, collection)}};
}

std::vector<Route> deployment_routes(Site& site) {
  return {
      {"GET", "/deployments", with(site, list_deployments)},
      {"POST", "/deployments", with(site, create_deployment), Access::token, Cost::create},
      {"GET", "/deployments/{owner}/{name}", with(site, get_deployment)},
      {"PATCH", "/deployments/{owner}/{name}", with(site, update_deployment)},
      {"DELETE", "/deployments/{owner}/{name}", with(site, remove_deployment)},
  };
}

}  // namespace calotype::server
