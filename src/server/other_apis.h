// The same jobs through the HTTP APIs of others: OpenAI's images, Black Forest Labs', Cog's.
//
// The site must outlive the routes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "server/router.h"
#include "server/site.h"

namespace calotype::server {

/// POST images/generations with stream and partial_images; images/edits; models/{id}.
/// Reference: github.com/openai/openai-openapi.
std::vector<Route> openai_routes(Site& site);

/// flux-dev, flux-pro…, get_result, finetune… under /v1. Reference: docs.bfl.ai.
std::vector<Route> bfl_routes(Site& site);
/// Webhook::dialect of jobs whose receivers expect what get_result answers.
constexpr std::string_view kBflWebhook = "bfl";
Json bfl_result(Site& site, const store::Job& job, const std::string& base_url);

/// PUT predictions/{id}, trainings, health-check. Reference: cog, docs/http.md.
std::vector<Route> cog_routes(Site& site);
/// POST predictions without a version: Cog's way to ask the one model that a server has.
Response cog_predict(Site& site, Request& request, const Json& body, const std::string& id = "");

}  // namespace calotype::server
