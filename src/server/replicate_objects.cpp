#include "server/replicate_objects.h"

#include <fmt/format.h>

#include "base/base64.h"
#include "base/error.h"
#include "hub/http_client.h"
#include "store/file_reference.h"

namespace calotype::server {
using store::Job;
using store::JobKind;
using store::JobStatus;

namespace {

Json text_or_null(const std::string& text) { return text.empty() ? Json() : Json(text); }

Json time_or_null(const std::optional<store::Time>& time) { return time ? Json(time_text(*time)) : Json(); }

std::string data_uri(Site& site, const store::StoredFile& file) {
  const auto stream = site.store.files->open(file.id);
  std::string bytes(file.size, '\0');
  stream->read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  base::check(static_cast<uint64_t>(stream->gcount()) == file.size, base::ErrorKind::corrupt_file,
              "{}: the stored file is shorter than {} bytes", file.name, file.size);
  return fmt::format("data:{};base64,{}", file.content_type, base::base64(bytes));
}

/// replicate-js takes every output in a stream below /v1/files/ for a file, and in others for text.
const char* stream_path(const Job& job) {
  const worker::ServedModel* model = worker::find_model(job.model);
  return model && model->task == worker::Task::text ? "stream/" : "files/stream-";
}

Json urls_json(const Job& job, const std::string& base_url) {
  const std::string resource =
      fmt::format("{}/v1/{}/{}", base_url, job.kind == JobKind::training ? "trainings" : "predictions", job.id);
  return {{"get", resource},
          {"cancel", resource + "/cancel"},
          {"stream", fmt::format("{}/v1/{}{}", base_url, stream_path(job), job.stream_token)},
          {"web", fmt::format("{}/p/{}", base_url, job.id)}};
}

void add_webhook(Json& body, const Job& job) {
  if (!job.webhook) return;
  body["webhook"] = job.webhook->url;
  body["webhook_events_filter"] = job.webhook->events;
}

}  // namespace

std::string time_text(store::Time time) {
  std::string text = store::rfc3339(time);  // "2026-01-05T10:00:00.123456Z"
  return text.substr(0, text.size() - 4) + "Z";
}

std::string file_url(const store::StoredFile& file, const std::string& base_url) {
  return fmt::format("{}/out/{}/{}", base_url, file.token, hub::url_encoded(file.name));
}

Json output_json(Site& site, const Json& output, const std::string& base_url, bool data_uris) {
  if (output.is_string()) {
    const auto id = store::referenced_file(output.get_ref<const std::string&>());
    if (!id) return output;
    const auto file = site.store.files->find(*id);
    if (!file) return nullptr;  // deleted by retention
    return data_uris ? data_uri(site, *file) : file_url(*file, base_url);
  }
  Json result = output;
  if (output.is_structured())
    for (auto& [key, value] : result.items()) value = output_json(site, value, base_url, data_uris);
  return result;
}

Json job_json(Site& site, const Job& job, const std::string& base_url, FileForm form, bool early) {
  const bool training = job.kind == JobKind::training;
  const bool ended = store::is_terminal(job.status);
  const bool show_output = job.status == JobStatus::succeeded || (!training && !ended && !early);
  const bool data_uris = form == FileForm::as_made && job.data_uris && job.status == JobStatus::succeeded;
  Json body = {{"id", job.id},
               {"model", job.model},
               {"version", job.version},
               {"input", job.input},
               {"output", show_output ? output_json(site, job.output, base_url, data_uris) : Json()},
               {"logs", job.logs},
               {"error", job.error ? Json(*job.error) : Json()},
               {"status", early && !ended ? "starting" : store::name(job.status)},
               {"source", job.source},
               {"data_removed", job.data_removed},
               {"created_at", time_text(job.created_at)},
               {"started_at", time_or_null(job.started_at)},
               {"completed_at", time_or_null(job.completed_at)},
               {"metrics", job.metrics.is_object() ? job.metrics : Json::object()},
               {"urls", urls_json(job, base_url)}};
  if (job.deadline) body["deadline"] = time_text(*job.deadline);
  if (!job.deployment.empty()) body["deployment"] = job.deployment;
  add_webhook(body, job);
  return body;
}

Json version_json(const Target& target) {
  // Clients take a model of cog below 0.3.9 for one that yields its output bit by bit.
  return {{"id", target.version},
          {"created_at", time_text(target.created_at)},
          {"cog_version", "0.9.25"},
          {"openapi_schema", worker::openapi_schema(*target.schema)}};
}

Json model_json(Site& site, const store::Model& model, const std::string& base_url) {
  Json body = {{"url", fmt::format("{}/{}/{}", base_url, model.owner, model.name)},
               {"owner", model.owner},
               {"name", model.name},
               {"description", text_or_null(model.description)},
               {"visibility", model.visibility},
               {"is_official", false},
               {"github_url", text_or_null(model.github_url)},
               {"paper_url", text_or_null(model.paper_url)},
               {"license_url", text_or_null(model.license_url)},
               {"cover_image_url", text_or_null(model.cover_image_url)},
               {"run_count", model.run_count},
               {"created_at", time_text(model.created_at)},
               {"default_example", nullptr},
               {"latest_version", nullptr}};
  if (!model.example_job.empty())
    if (const auto job = site.store.jobs->find(model.example_job))
      body["default_example"] = job_json(site, *job, base_url, FileForm::url);
  if (!model.latest_version.empty())
    if (const auto target = find_target(site, model.owner, model.name)) body["latest_version"] = version_json(*target);
  return body;
}

Json model_json(const worker::ServedModel& model, const std::string& base_url) {
  const Target target{.schema = &model,
                      .owner = model.owner,
                      .name = model.name,
                      .version = official_version(model),
                      .created_at = kOfficialSince};
  return {{"url", fmt::format("{}/{}/{}", base_url, model.owner, model.name)},
          {"owner", model.owner},
          {"name", model.name},
          {"description", text_or_null(model.description)},
          {"visibility", "public"},
          {"is_official", true},
          {"github_url", nullptr},
          {"paper_url", nullptr},
          {"license_url", text_or_null(model.license_url)},
          {"cover_image_url", nullptr},
          {"run_count", 0},
          {"created_at", time_text(kOfficialSince)},
          {"default_example", nullptr},
          {"latest_version", version_json(target)}};
}

Json file_json(const store::StoredFile& file, const std::string& base_url) {
  // Clients with strict checking want a time; a file that is kept says "in ten years".
  const store::Time expires = file.expires_at.value_or(file.created_at + 3650ll * 24 * 3600 * store::kSecond);
  return {{"id", file.id},
          {"name", file.name},
          {"content_type", file.content_type},
          {"size", file.size},
          {"etag", file.md5},
          {"checksums", {{"sha256", file.sha256}, {"md5", file.md5}}},
          {"metadata", file.metadata.is_object() ? file.metadata : Json::object()},
          {"created_at", time_text(file.created_at)},
          {"expires_at", time_text(expires)},
          {"urls", {{"get", fmt::format("{}/v1/files/{}", base_url, file.id)}}}};
}

Json account_json(Site& site) {
  const std::string name = site.store.settings->username();
  return {{"type", "user"}, {"username", name}, {"name", name}};
}

Json deployment_json(Site& site, const store::Deployment& deployment) {
  return {{"owner", deployment.owner},
          {"name", deployment.name},
          {"current_release",
           {{"number", deployment.number},
            {"model", deployment.model},
            {"version", deployment.version},
            {"created_at", time_text(deployment.created_at)},
            {"created_by", account_json(site)},
            {"configuration",
             {{"hardware", deployment.hardware},
              {"min_instances", deployment.min_instances},
              {"max_instances", deployment.max_instances}}}}}};
}

Json page_json(const Request& request, Json results, const std::string& next, const std::string& previous) {
  const auto link = [&](const std::string& cursor) -> Json {
    if (cursor.empty()) return nullptr;
    std::string url = request.base_url + request.path + "?cursor=" + hub::url_encoded(cursor);
    for (const auto& [name, value] : request.query)
      if (name != "cursor") url += "&" + hub::url_encoded(name) + "=" + hub::url_encoded(value);
    return url;
  };
  return {{"next", link(next)}, {"previous", link(previous)}, {"results", std::move(results)}};
}

}  // namespace calotype::server
