#include "server/submit.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/base64.h"
#include "hub/address_guard.h"
#include "hub/url.h"
#include "server/json_fields.h"
#include "server/problem.h"
#include "server/replicate_objects.h"

namespace calotype::server {
using namespace std::chrono_literals;
using store::Job;
using store::JobKind;
using worker::Field;
using worker::FieldType;

namespace {

// Longer data: URIs are kept as files: rows that every poll reads should be small.
constexpr size_t kLongDataUri = 16 << 10;

const std::vector<std::string> kEvents = {"start", "output", "logs", "completed"};

std::vector<std::string> webhook_events(const Json& body) {
  const Json* filter = given(body, "webhook_events_filter");
  if (!filter) return {"output", "completed"};
  if (!filter->is_array()) throw invalid_field("webhook_events_filter", "Must be a list.", "invalid_type");
  std::vector<std::string> events;
  for (const Json& event : *filter) {
    if (!event.is_string() || std::ranges::find(kEvents, event.get<std::string>()) == kEvents.end())
      throw invalid_field("webhook_events_filter", "Events are start, output, logs and completed.", "enum");
    events.push_back(event.get<std::string>());
  }
  return events;
}

std::optional<store::Webhook> webhook_of(const Site& site, const Json& body) {
  for (const std::string field : {"webhook", "webhook_completed"}) {
    const std::string url = string_or(body, field, "");
    if (url.empty()) continue;
    check_webhook_url(site, url, field);
    return store::Webhook{.url = url,
                          .events = field == "webhook" ? webhook_events(body) : std::vector<std::string>{"completed"}};
  }
  return std::nullopt;
}

/// "data:image/png;base64,AAAA" → an upload, and its URL.
std::string stored_data_uri(Site& site, const Request& request, const std::string& field, std::string_view uri) {
  const size_t comma = uri.find(',');
  const std::string_view head = uri.substr(5, std::min(comma, uri.size()) - 5);
  if (comma == std::string_view::npos)
    throw invalid_field("input." + field, "A data: URI has a comma before its data.", "format");
  const bool base64 = head.ends_with(";base64");
  const auto bytes = base64 ? base::base64_decoded(uri.substr(comma + 1)) : percent_decoded(uri.substr(comma + 1));
  if (!bytes) throw invalid_field("input." + field, "The data: URI is not base64.", "format");
  const std::string type(base64 ? head.substr(0, head.size() - 7) : head);
  store::NewFile about{.name = field,
                       .content_type = type.empty() ? "application/octet-stream" : type,
                       .purpose = store::FilePurpose::upload};
  about.max_bytes = site.options.upload_bytes;
  if (site.options.upload_lifetime.count() > 0)
    about.expires_at = store::now() + site.options.upload_lifetime.count() * store::kSecond;
  return file_json(site.store.files->put(about, *bytes), request.base_url)["urls"]["get"];
}

void store_data_uris(Site& site, const Request& request, const worker::ServedModel& model, Json& input) {
  for (auto& [name, value] : input.items()) {
    const Field* field = model.find(name);
    if (!field || field->type == FieldType::secret || !value.is_string()) continue;
    const std::string& text = value.get_ref<const std::string&>();
    if (text.size() > kLongDataUri && text.starts_with("data:")) value = stored_data_uri(site, request, name, text);
  }
}

worker::CheckedInput checked_input(const Target& target, const Json& body) {
  const auto found = body.find("input");
  if (found == body.end() || !found->is_object())
    throw invalid_field("input", found == body.end() ? "input is required" : "Must be an object.",
                        found == body.end() ? "required" : "invalid_type");
  worker::CheckedInput checked = worker::check_input(*target.schema, *found);
  if (checked.errors.empty()) return checked;
  Problem problem(422, "Input validation failed", worker::detail_text(checked.errors));
  for (const auto& error : checked.errors)
    problem.invalid_fields.push_back({error.type, error.field, error.description});
  throw problem;
}

}  // namespace

void check_webhook_url(const Site& site, const std::string& url, const std::string& field) {
  try {
    const hub::Url parsed = hub::Url::parse(url);
    const auto address = hub::IpAddress::parse(parsed.host);
    const auto refused =
        address ? hub::refusal(*address, {.allow_private = site.options.private_targets}) : std::nullopt;
    if (refused)
      throw invalid_field(field,
                          fmt::format("Leads to {}; start the server with --private-targets to allow that.", *refused));
  } catch (const base::Error& error) {
    throw invalid_field(field, error.what(), "format");
  }
}

void use_given_size(const worker::ServedModel& model, Json& input) {
  const Field* shape = model.find("aspect_ratio");
  if (!shape || input.contains("aspect_ratio") || !(input.contains("width") || input.contains("height"))) return;
  if (std::ranges::find(shape->values, std::string("custom")) != shape->values.end()) input["aspect_ratio"] = "custom";
}

Job submit(Site& site, const Request& request, const Submission& submission) {
  store::NewJob job;
  job.id = submission.id;
  job.kind = submission.kind;
  job.model = submission.target.full_name();
  job.version = submission.target.version;
  job.webhook = submission.webhook ? submission.webhook : webhook_of(site, submission.body);
  worker::CheckedInput checked = checked_input(submission.target, submission.body);
  if (const auto limit = cancel_after(request)) job.deadline = store::now() + limit->count() * store::kSecond;
  site.store.files->check_room();
  store_data_uris(site, request, *submission.target.schema, checked.input);
  job.input = std::move(checked.input);
  if (submission.pictures > 0) job.input["num_outputs"] = submission.pictures;
  job.secrets = std::move(checked.secrets);
  job.source = request.header("x-calotype-source") == "web" ? "web" : "api";
  job.deployment = submission.deployment;
  job.destination = submission.destination;
  job.data_uris = submission.data_uris;
  job.token_id = request.token_id;
  return site.store.jobs->create(job);
}

Job submit_with_model(Site& site, const Request& request, const store::Model& model, Submission submission) {
  const bool made = !site.store.models->find(model.owner, model.name);
  if (made) site.store.models->create(model);
  submission.kind = JobKind::training;
  submission.destination = model.owner + "/" + model.name;
  try {
    return submit(site, request, submission);
  } catch (...) {
    if (made) site.store.models->remove(model.owner, model.name);
    throw;
  }
}

std::optional<std::chrono::seconds> preferred_wait(const Request& request) {
  std::string_view list = request.header("prefer");
  while (!list.empty()) {
    std::string_view item = list.substr(0, list.find(','));
    list.remove_prefix(std::min(item.size() + 1, list.size()));
    while (item.starts_with(' ')) item.remove_prefix(1);
    while (item.ends_with(' ')) item.remove_suffix(1);
    if (item == "wait") return 60s;
    if (!item.starts_with("wait=")) continue;
    int seconds = 0;
    const auto [end, error] = std::from_chars(item.data() + 5, item.data() + item.size(), seconds);
    if (error != std::errc() || end != item.data() + item.size() || seconds < 1 || seconds > 60)
      throw Problem(400, "Bad request", "Prefer: wait takes 1 to 60 seconds, as in wait=30.");
    return std::chrono::seconds(seconds);
  }
  return std::nullopt;
}

std::optional<std::chrono::seconds> cancel_after(const Request& request) {
  const std::string_view text = request.header("cancel-after");
  if (text.empty()) return std::nullopt;
  int64_t total = 0, number = 0;
  bool digits = false, sound = true;
  for (const char c : text) {
    if (c >= '0' && c <= '9') {
      number = std::min<int64_t>(number * 10 + (c - '0'), 100'000'000);
      digits = true;
      continue;
    }
    const int64_t unit = c == 's' ? 1 : c == 'm' ? 60 : c == 'h' ? 3600 : c == 'd' ? 86400 : 0;
    sound &= digits && unit > 0;
    total = std::min<int64_t>(total + number * unit, 10ll * 366 * 86400);
    number = 0;
    digits = false;
  }
  if (digits) total += number;  // "30" means seconds
  if (!sound || total < 5)
    throw Problem(422, "Invalid input", "Cancel-After takes at least five seconds, as in 30, 30s, 5m or 1h30m45s.");
  return std::chrono::seconds(total);
}

Job wait_for_end(Site& site, Job job, std::chrono::milliseconds patience) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (!store::is_terminal(job.status) && !site.stopping) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
    if (left <= 0ms) break;
    // In slices, so that a server that stops does not wait for its clients.
    if (!site.store.jobs->wait_for_change(job.id, job.change, std::min<std::chrono::milliseconds>(left, 2s))) continue;
    auto now = site.store.jobs->find(job.id);
    if (!now) break;
    job = std::move(*now);
  }
  return job;
}

std::chrono::milliseconds holding_time(std::chrono::seconds asked) {
  // replicate-python reads for 0.5 s longer than asked; its successor gives up after 60 s in all and repeats the POST.
  const std::chrono::milliseconds all = asked;
  return all - std::min<std::chrono::milliseconds>(1500ms, all / 4);
}

Response created_answer(Site& site, const Request& request, const Job& created) {
  const auto wait = preferred_wait(request);
  const Job job =
      wait ? wait_for_end(site, created, holding_time(std::min(*wait, site.options.longest_wait))) : created;
  Json body = job_json(site, job, request.base_url, FileForm::as_made, /*early=*/true);
  Response response = json_response(body, 201);
  response.with("Location", body["urls"]["get"]);
  if (wait) response.with("Preference-Applied", fmt::format("wait={}", wait->count()));
  return response;
}

}  // namespace calotype::server
