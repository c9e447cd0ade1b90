// What the page shows and Replicate's API does not tell: progress, kinds, trigger words, workers, disk.
#include <fmt/format.h>

#include <map>

#include "server/problem.h"
#include "server/replicate_api.h"
#include "server/replicate_objects.h"
#include "server/web_page.h"

namespace calotype::server {
using store::Job;

namespace {

constexpr store::Time kAlive = 60 * store::kSecond;
constexpr size_t kPromptLength = 300;  // characters of a prompt in a list

Json workers_json(Site& site) {
  Json workers = Json::array();
  for (const store::WorkerEntry& each : site.store.workers->list(store::now() - kAlive))
    workers.push_back({{"id", each.id},
                       {"host", each.host},
                       {"pid", each.pid},
                       {"device", each.device},
                       {"model", each.model},
                       {"job", each.job},
                       {"started_at", time_text(each.started_at)},
                       {"heartbeat", time_text(each.heartbeat_at)}});
  return workers;
}

Response about_site(Site& site, const std::string& version) {
  Json counts = Json::array();
  for (const store::JobCount& each : site.store.jobs->counts())
    counts.push_back({{"kind", store::name(each.kind)},
                      {"status", store::name(each.status)},
                      {"claimed", each.claimed},
                      {"count", each.count}});
  const store::FileUsage usage = site.store.files->usage();
  // S3 knows no free space.
  const Json free = usage.free == UINT64_MAX ? Json() : Json(usage.free);
  return json_response(
      {{"version", version},
       {"username", site.store.settings->username()},
       {"note", site.options.weights_note},
       {"token_required", site.auth.required()},
       {"upload_bytes", site.options.upload_bytes},
       {"files", {{"count", usage.files}, {"bytes", usage.bytes}, {"quota", usage.quota}, {"free", free}}},
       {"workers", workers_json(site)},
       {"jobs", counts}});
}

Json progress_json(const store::JobProgress& progress) {
  return {{"stage", progress.stage},
          {"done", progress.done},
          {"total", progress.total},
          {"eta_seconds", progress.eta_seconds}};
}

Json preview_json(Site& site, const Job& job, const std::string& base_url) {
  if (job.preview_file.empty()) return nullptr;
  const auto file = site.store.files->find(job.preview_file);
  return file ? Json(file_url(*file, base_url)) : Json();
}

/// At most kPromptLength characters, cut between two of them.
std::string shortened(const std::string& text) {
  size_t characters = 0;
  for (size_t i = 0; i < text.size(); ++i)
    if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80 && ++characters > kPromptLength)
      return text.substr(0, i) + "…";
  return text;
}

/// What a training drew on its way. A step that was done again after a crash counts once.
Json samples_json(Site& site, const Job& job, const std::string& base_url) {
  std::map<std::pair<int64_t, std::string>, Json> by_step;
  if (job.kind == store::JobKind::training)
    for (const store::StoredFile& file : site.store.files->of_job(job.id, store::FilePurpose::output)) {
      const Json &step = file.metadata.value("step", Json()), &prompt = file.metadata.value("prompt", Json());
      if (step.is_number_integer() && prompt.is_string())
        by_step[{step.get<int64_t>(), prompt.get<std::string>()}] = {
            {"step", step}, {"prompt", prompt}, {"url", file_url(file, base_url)}};
    }
  Json samples = Json::array();
  for (auto& [key, sample] : by_step) samples.push_back(std::move(sample));
  return samples;
}

/// What stands for a job in a list: what forms now, or what a training drew last.
Json list_preview(Site& site, const Job& job, const std::string& base_url) {
  Json preview = preview_json(site, job, base_url);
  if (!preview.is_null() || job.status != store::JobStatus::succeeded) return preview;
  const Json samples = samples_json(site, job, base_url);
  return samples.empty() ? Json() : samples.back()["url"];
}

/// A job in a list: without logs, which may be a megabyte each.
Json short_json(Site& site, const Job& job, const std::string& base_url) {
  const auto prompt = job.input.find("prompt");
  const bool has_prompt = prompt != job.input.end() && prompt->is_string();
  return {{"id", job.id},
          {"kind", store::name(job.kind)},
          {"model", job.model},
          {"destination", job.destination},
          {"status", store::name(job.status)},
          {"prompt", has_prompt ? shortened(prompt->get<std::string>()) : ""},
          {"error", job.error ? Json(*job.error) : Json()},
          {"created_at", time_text(job.created_at)},
          {"output", output_json(site, job.output, base_url, /*data_uris=*/false)},
          {"progress", progress_json(job.progress)},
          {"preview", list_preview(site, job, base_url)}};
}

template <typename T>
std::optional<T> word_of(const Request& request, const std::string& name, std::optional<T> (*parse)(std::string_view)) {
  const auto text = request.query_value(name);
  if (!text) return std::nullopt;
  const auto value = parse(*text);
  if (!value) throw invalid_field(name, fmt::format("{} is no {}.", base::printable(*text), name), "enum");
  return value;
}

Response list_jobs(Site& site, Request& request) {
  const store::PageQuery page = page_query(request);
  store::JobQuery query;
  query.kind = word_of(request, "kind", &store::parse_job_kind);
  query.status = word_of(request, "status", &store::parse_job_status);
  query.search = request.query_value("search").value_or("");
  query.model = request.query_value("model").value_or("");
  query.cursor = page.cursor;
  query.limit = page.limit;
  const store::JobPage found = site.store.jobs->list(query);
  Json jobs = Json::array();
  for (const Job& job : found.jobs) jobs.push_back(short_json(site, job, request.base_url));
  return json_response({{"jobs", jobs}, {"next", found.next.empty() ? Json() : Json(found.next)}});
}

Response get_job(Site& site, Request& request) {
  const auto job = site.store.jobs->find(request.parameter("id"));
  if (!job) throw not_found("The requested resource could not be found.");
  Json body = job_json(site, *job, request.base_url, FileForm::url);
  body["destination"] = job->destination;
  const bool waits = job->status == store::JobStatus::starting;
  return json_response({{"kind", store::name(job->kind)},
                        {"job", std::move(body)},
                        {"progress", progress_json(job->progress)},
                        {"preview", preview_json(site, *job, request.base_url)},
                        {"samples", samples_json(site, *job, request.base_url)},
                        {"place", waits ? Json(site.store.jobs->queue_place(job->id)) : Json()}});
}

Response about_model(Site& site, Request& request) {
  const std::string &owner = request.parameter("owner"), &name = request.parameter("name");
  Json versions = Json::array();
  Json trigger_word = "";
  if (!worker::find_model(owner + "/" + name)) {
    if (!site.store.models->find(owner, name)) throw not_found("The requested resource could not be found.");
    for (const store::Version& each : site.store.models->versions(owner, name).items) {
      if (versions.empty() && each.about.is_object()) trigger_word = each.about.value("trigger_word", Json(""));
      versions.push_back({{"id", each.id}, {"created_at", time_text(each.created_at)}, {"about", each.about}});
    }
  }
  return json_response({{"trigger_word", trigger_word}, {"note", site.options.weights_note}, {"versions", versions}});
}

}  // namespace

std::vector<Route> page_api_routes(Site& site, const PageOptions& options) {
  const auto with = [&site](Response (*function)(Site&, Request&)) {
    return [&site, function](Request& request) { return function(site, request); };
  };
  std::vector<Route> routes = page_training_routes(site, options);
  routes.insert(
      routes.end(),
      {{"GET", "/page/site", [&site, version = options.version](Request&) { return about_site(site, version); }},
       {"GET", "/page/jobs", with(list_jobs)},
       {"GET", "/page/jobs/{id}", with(get_job)},
       {"GET", "/page/models/{owner}/{name}", with(about_model)}});
  return routes;
}

}  // namespace calotype::server
