// Black Forest Labs' API on the models of this server: requests, results, fine-tunes.
#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "hub/signature.h"
#include "server/json_fields.h"
#include "server/other_apis.h"
#include "server/problem.h"
#include "server/replicate_objects.h"
#include "server/submit.h"

namespace calotype::server {
using store::Job;
using store::JobKind;
using store::JobStatus;

namespace {

struct Endpoint {
  const char *path, *model;
};

constexpr Endpoint kEndpoints[] = {
    {"/flux-dev", "black-forest-labs/flux-dev"},
    {"/flux-schnell", "black-forest-labs/flux-schnell"},
    {"/flux-pro", "black-forest-labs/flux-pro"},
    {"/flux-pro-1.1", "black-forest-labs/flux-1.1-pro"},
    {"/flux-pro-1.1-ultra", "black-forest-labs/flux-1.1-pro-ultra"},
};

constexpr const char* kFinetuned[] = {"/flux-pro-finetuned", "/flux-pro-1.1-ultra-finetuned", "/flux-dev-finetuned"};
// Those of models that take a picture, fine-tuned or not.
constexpr const char* kFromPictures[] = {"/flux-pro-1.0-fill",
                                         "/flux-pro-1.0-canny",
                                         "/flux-pro-1.0-depth",
                                         "/flux-pro-1.0-fill-finetuned",
                                         "/flux-pro-1.0-canny-finetuned",
                                         "/flux-pro-1.0-depth-finetuned",
                                         "/flux-pro-1.0-expand",
                                         "/flux-kontext-pro",
                                         "/flux-kontext-max"};
const char* const kFinetunePrefix = "finetune-";

/// Their ids are UUIDs.
std::string uuid() {
  const std::string random = hub::random_bytes(16);
  std::array<uint8_t, 16> b;
  std::copy_n(random.begin(), 16, b.begin());
  b[6] = static_cast<uint8_t>((b[6] & 0x0f) | 0x40);
  b[8] = static_cast<uint8_t>((b[8] & 0x3f) | 0x80);
  const std::string hex = hub::hex(b);
  return fmt::format("{}-{}-{}-{}-{}", hex.substr(0, 8), hex.substr(8, 4), hex.substr(12, 4), hex.substr(16, 4),
                     hex.substr(20));
}

/// Their name of a field → ours; the rest has the same name or no meaning here.
std::string our_name(const std::string& name, const worker::ServedModel& schema) {
  if (name == "steps" && !schema.find("steps")) return "num_inference_steps";
  if (name == "guidance" && !schema.find("guidance")) return "guidance_scale";
  return name == "finetune_strength" ? "lora_scale" : name;
}

/// "input.num_inference_steps" → "steps", if that is how the caller has put it.
std::string their_name(std::string field, const Json& body, const worker::ServedModel& schema) {
  if (field.starts_with("input.")) field.erase(0, std::string_view("input.").size());
  for (const auto& item : body.items())
    if (our_name(item.key(), schema) == field) return item.key();
  return field;
}

Json input_of(const Json& body, const worker::ServedModel& schema) {
  Json input = Json::object();
  for (const auto& [name, value] : body.items()) {
    if (value.is_null() || name == "webhook_url" || name == "webhook_secret" || name == "finetune_id") continue;
    const std::string ours = our_name(name, schema);
    if (!schema.find(ours)) continue;
    input[ours] = value;
    if (name == "image_prompt" && value.is_string())
      input[ours] = "data:application/octet-stream;base64," + value.get<std::string>();
    if (name == "output_format" && value == "jpeg") input[ours] = "jpg";
  }
  if (!input.contains("prompt")) input["prompt"] = "";
  if (!input.contains("output_format")) input["output_format"] = "jpg";
  if (!input.contains("seed")) input["seed"] = std::random_device()();  // results name it, also where nobody asked for one
  use_given_size(schema, input);
  return input;
}

std::optional<store::Webhook> bfl_webhook(Site& site, const Json& body) {
  const std::string url = string_or(body, "webhook_url", ""), secret = string_or(body, "webhook_secret", "");
  if (url.empty()) return std::nullopt;
  check_webhook_url(site, url, "webhook_url");
  return store::Webhook{.url = url, .events = {"completed"}, .dialect = std::string(kBflWebhook), .secret = secret};
}

Response accepted(const Request& request, const Job& job) {
  Json answer = {{"id", job.id}, {"polling_url", fmt::format("{}/v1/get_result?id={}", request.base_url, job.id)}};
  if (job.webhook) answer.update({{"status", "Pending"}, {"webhook_url", job.webhook->url}});
  return json_response(answer);
}

Response draw(Site& site, const Request& request, Target target, const Json& body) {
  const worker::ServedModel& schema = *target.schema;
  try {
    return accepted(request, submit(site, request,
                                    {.target = std::move(target),
                                     .body = {{"input", input_of(body, schema)}},
                                     .id = uuid(),
                                     .webhook = bfl_webhook(site, body)}));
  } catch (Problem& problem) {
    for (InvalidInput& each : problem.invalid_fields) each.field = their_name(each.field, body, schema);
    throw;
  }
}

Response create(Site& site, Request& request, const char* model) {
  const Json body = request.read_json_object();
  const auto names = owner_and_name(model);
  auto target = find_target(site, names->first, names->second);
  if (!target) throw not_found(fmt::format("{} is not served here.", model));
  return draw(site, request, std::move(*target), body);
}

Response refuse_pictures(Site&, Request& request) {
  request.read_json_object();
  throw Problem(
      422, "Not supported",
      fmt::format("{} needs a model for pictures (Fill, Canny, Depth, Kontext), which does not run here; {} does.",
                  request.path.substr(request.path.rfind('/') + 1), kEndpoints[0].path + 1));
}

const char* status_word(const Job& job) {
  switch (job.status) {
    case JobStatus::succeeded: return "Ready";
    case JobStatus::failed:
    case JobStatus::canceled: return "Error";
    default: return "Pending";
  }
}

Json result_of(Site& site, const Job& job, const std::string& base_url) {
  if (job.status != JobStatus::succeeded) return nullptr;
  if (job.kind == JobKind::training) return {{"finetune_id", job.id}};
  const Json output = output_json(site, job.output, base_url, /*data_uris=*/false);
  const double start = static_cast<double>(job.started_at.value_or(job.created_at)) / store::kSecond,
               end = static_cast<double>(job.completed_at.value_or(0)) / store::kSecond;
  Json result = {{"sample", output.is_array() && !output.empty() ? output.front() : output},
                 {"prompt", job.input.value("prompt", Json(""))},
                 {"start_time", start},
                 {"end_time", end},
                 {"duration", end - start}};
  if (job.input.contains("seed")) result["seed"] = job.input["seed"];
  return result;
}

Response get_result(Site& site, Request& request) {
  const auto id = request.query_value("id");
  if (!id) throw invalid_field("id", "id is required", "required");
  const auto job = site.store.jobs->find(*id);
  if (!job)
    return json_response(
        {{"id", *id}, {"status", "Task not found"}, {"result", nullptr}, {"progress", nullptr}, {"details", nullptr}});
  return json_response(bfl_result(site, *job, request.base_url));
}

// ---- fine-tunes: trainings into models of their own, named after the fine-tune

Response finetune(Site& site, Request& request) {
  const Json body = request.read_json_object();
  const std::string id = uuid();
  store::Model model{.owner = site.store.settings->username(), .name = kFinetunePrefix + id};
  model.description = required_string(body, "finetune_comment");
  Json input = {{"input_images", "data:application/zip;base64," + required_string(body, "file_data")},
                {"steps", whole_number(body, "iterations", 100, 1000, 300)},
                {"trigger_word", string_or(body, "trigger_word", "TOK")},
                {"lora_rank", whole_number(body, "lora_rank", 1, 128, 32)},
                {"autocaption", body.value("captioning", Json(true))}};
  if (body.contains("learning_rate") && body["learning_rate"].is_number())
    input["learning_rate"] = body["learning_rate"];
  auto target = find_target(site, "ostris", "flux-dev-lora-trainer");
  base::check(target.has_value(), base::ErrorKind::internal, "the trainer is missing from the catalogue");
  submit_with_model(
      site, request, model,
      {.target = std::move(*target), .body = {{"input", input}}, .id = id, .webhook = bfl_webhook(site, body)});
  return json_response({{"finetune_id", id}});
}

Job finetune_of(Site& site, const std::string& id) {
  const auto job = site.store.jobs->find(id);
  if (!job || job->kind != JobKind::training || !job->destination.ends_with(kFinetunePrefix + id))
    throw not_found("Finetune not found");
  return *job;
}

Response my_finetunes(Site& site, Request&) {
  Json ids = Json::array();
  for (const Job& job : site.store.jobs->list({.kind = JobKind::training, .limit = 1000}).jobs)
    if (job.destination.ends_with(kFinetunePrefix + job.id)) ids.push_back(job.id);
  return json_response({{"finetunes", ids}});
}

Response finetune_details(Site& site, Request& request) {
  const Job job = finetune_of(site, request.query_value("finetune_id").value_or(""));
  const auto names = owner_and_name(job.destination);
  const auto model = site.store.models->find(names->first, names->second);
  return json_response({{"finetune_details",
                         {{"finetune_id", job.id},
                          {"status", status_word(job)},
                          {"comment", model ? model->description : ""},
                          {"trigger_word", job.input.value("trigger_word", Json())},
                          {"iterations", job.input.value("steps", Json())},
                          {"timestamp", time_text(job.created_at)}}}});
}

Response delete_finetune(Site& site, Request& request) {
  const std::string id = required_string(request.read_json_object(), "finetune_id");
  const Job job = finetune_of(site, id);
  site.store.jobs->cancel(id);
  const auto names = owner_and_name(job.destination);
  for (const store::Version& version : site.store.models->versions(names->first, names->second).items)
    site.store.models->remove_version(names->first, names->second, version.id);
  if (site.store.models->find(names->first, names->second)) site.store.models->remove(names->first, names->second);
  return json_response({{"deleted_finetune_id", id}});
}

Response run_finetuned(Site& site, Request& request) {
  const Json body = request.read_json_object();
  const Job training = finetune_of(site, required_string(body, "finetune_id"));
  const auto names = owner_and_name(training.destination);
  auto target = find_target(site, names->first, names->second);
  if (!target) throw Problem(422, "Not ready", "This fine-tune is not finished.");
  return draw(site, request, std::move(*target), body);
}

}  // namespace

Json bfl_result(Site& site, const Job& job, const std::string& base_url) {
  const Json progress = job.progress.total > 0
                            ? Json(static_cast<double>(job.progress.done) / static_cast<double>(job.progress.total))
                            : Json();
  Json details;
  if (job.status == JobStatus::failed) details = {{"error", job.error.value_or("failed")}};
  if (job.status == JobStatus::canceled) details = {{"error", "canceled"}};
  return {{"id", job.id},
          {"status", status_word(job)},
          {"result", result_of(site, job, base_url)},
          {"progress", progress},
          {"details", details}};
}

std::vector<Route> bfl_routes(Site& site) {
  const auto with = [&site](Response (*function)(Site&, Request&)) {
    return [&site, function](Request& request) { return function(site, request); };
  };
  std::vector<Route> routes = {
      {"GET", "/get_result", with(get_result), Access::open, Cost::read, Dialect::bfl},
      {"POST", "/finetune", with(finetune), Access::token, Cost::create, Dialect::bfl},
      {"GET", "/my_finetunes", with(my_finetunes), Access::token, Cost::read, Dialect::bfl},
      {"GET", "/finetune_details", with(finetune_details), Access::token, Cost::read, Dialect::bfl},
      {"POST", "/delete_finetune", with(delete_finetune), Access::token, Cost::read, Dialect::bfl},
  };
  for (const Endpoint& endpoint : kEndpoints)
    routes.push_back({"POST", endpoint.path,
                      [&site, model = endpoint.model](Request& request) { return create(site, request, model); },
                      Access::token, Cost::create, Dialect::bfl});
  for (const char* path : kFromPictures)
    routes.push_back({"POST", path, with(refuse_pictures), Access::token, Cost::read, Dialect::bfl});
  for (const char* path : kFinetuned)
    routes.push_back({"POST", path, with(run_finetuned), Access::token, Cost::create, Dialect::bfl});
  return routes;
}

}  // namespace calotype::server
