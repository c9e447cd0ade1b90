// What the page asks about trainings: what one will take, and its adapter to a hub.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <set>

#include "hub/hub_names.h"
#include "server/events.h"
#include "server/problem.h"
#include "server/web_page.h"
#include "worker/adapter_push.h"

namespace calotype::server {
using store::Job;

namespace {

constexpr int kTrainingsLookedAt = 20;
constexpr size_t kSamplesOnCard = 4;

// ---- forecasts

bool same_settings(const Json& a, const Json& b, std::initializer_list<const char*> names) {
  return std::ranges::all_of(names, [&](const char* name) { return a.value(name, Json()) == b.value(name, Json()); });
}

struct Recorded {
  std::optional<double> seconds_per_step;
  std::optional<uint64_t> memory;
};

/// What earlier trainings on the same weights took: seconds where pictures had the same sizes, memory where everything
/// that counts was the same.
Recorded recorded(Site& site, const std::string& weights, const Json& settings) {
  store::JobQuery query;
  query.kind = store::JobKind::training;
  query.status = store::JobStatus::succeeded;
  query.limit = kTrainingsLookedAt;
  Recorded found;
  for (const Job& job : site.store.jobs->list(query).jobs) {
    const worker::ServedModel* trainer = worker::find_model(job.model);
    const Json seconds = job.metrics.value("seconds_per_step", Json());
    if (!trainer || !seconds.is_number() || job.metrics.value("weights", "") != weights) continue;
    const Json then = worker::with_defaults(*trainer, job.input);
    if (!same_settings(then, settings, {"resolution"})) continue;
    const double batches = settings.value("batch_size", 1.0) / then.value("batch_size", 1.0);
    if (!found.seconds_per_step) found.seconds_per_step = seconds.get<double>() * batches;
    const Json bytes = job.metrics.value("peak_memory_bytes", Json());
    if (bytes.is_number_unsigned() && !found.memory &&
        same_settings(then, settings, {"batch_size", "lora_rank", "optimizer", "layers_to_optimize_regex",
                                       "gradient_checkpointing"}))
      found.memory = bytes.get<uint64_t>();
  }
  return found;
}

bool has_gpu(Site& site) {
  constexpr store::Time kRecent = 60 * store::kSecond;
  const auto workers = site.store.workers->list(store::now() - kRecent);
  return std::ranges::any_of(workers, [](const auto& each) { return each.device.starts_with("cuda"); });
}

Json forecast_of(Site& site, const PageOptions& options, const worker::ServedModel& trainer, Json input) {
  Json out = {{"steps", nullptr}, {"seconds", nullptr}, {"memory_bytes", nullptr}, {"memory_measured", false}};
  input["input_images"] = "data:,";  // not yet there
  const worker::CheckedInput checked = worker::check_input(trainer, input);
  if (!checked.errors.empty()) return out;
  const Json settings = worker::with_defaults(trainer, checked.input);
  const auto steps = settings.value(settings.contains("steps") ? "steps" : "training_steps", int64_t{1000});
  out["steps"] = steps;
  try {
    const worker::Backing backing =
        worker::weights_behind(options.models, "black-forest-labs/flux-" + trainer.backend, trainer.backend);
    const Recorded known = recorded(site, backing.weights.shown_name(), settings);
    if (known.seconds_per_step) out["seconds"] = *known.seconds_per_step * static_cast<double>(steps);
    if (known.memory) out.update({{"memory_bytes", *known.memory}, {"memory_measured", true}});
    // A card's memory decides what is computed twice there; the first training will tell.
    if (!known.memory && options.training_memory && !has_gpu(site))
      out["memory_bytes"] = options.training_memory(trainer, checked.input);
  } catch (const base::Error&) {  // settings or weights that the training will complain about in words
  }
  return out;
}

Response forecast(Site& site, const PageOptions& options, Request& request) {
  const Json body = request.read_json_object();
  const Json name = body.value("trainer", Json()), input = body.value("input", Json::object());
  const worker::ServedModel* trainer = name.is_string() ? worker::find_model(name.get<std::string>()) : nullptr;
  if (!trainer || trainer->task != worker::Task::trainer)
    throw invalid_field("trainer", "Names no trainer.", "enum");
  if (!input.is_object()) throw invalid_field("input", "Must be an object.", "invalid_type");
  return json_response(forecast_of(site, options, *trainer, input));
}

// ---- to the hub

/// One at a time for each training: they would share a folder.
class UnderWay {
 public:
  bool begin(const std::string& job) {
    const std::lock_guard lock(mutex_);
    return jobs_.insert(job).second;
  }
  void end(const std::string& job) {
    const std::lock_guard lock(mutex_);
    jobs_.erase(job);
  }

 private:
  std::mutex mutex_;
  std::set<std::string> jobs_;
};

struct PushRequest {
  std::string job, repository, token;
  bool hidden = false;
};

PushRequest push_request(Request& request) {
  const Json body = request.read_json_object();
  const auto text = [&](const char* name) {
    const Json value = body.value(name, Json());
    if (!value.is_string() || value.get_ref<const std::string&>().empty())
      throw invalid_field(name, "This is needed.", "required");
    return value.get<std::string>();
  };
  PushRequest out{.job = request.parameter("id"), .repository = text("repository"), .token = text("token")};
  out.hidden = body.value("private", Json(false)) == true;
  try {
    hub::check_repo_name(out.repository);
  } catch (const base::Error& error) {
    throw invalid_field("repository", error.what(), "format");
  }
  return out;
}

store::Version trained_version(Site& site, const std::string& id) {
  const auto job = site.store.jobs->find(id);
  if (!job || job->kind != store::JobKind::training) throw not_found("The requested resource could not be found.");
  const Json text = job->output.is_object() ? job->output.value("version", Json()) : Json();
  if (job->status != store::JobStatus::succeeded || !text.is_string())
    throw Problem(409, "Conflict", "This training has no adapter that could be sent.");
  const std::string& name = text.get_ref<const std::string&>();
  const auto version = site.store.models->find_version(name.substr(name.find(':') + 1));
  if (!version) throw not_found("The version that this training made was deleted.");
  return *version;
}

worker::TrainedAdapter stored_adapter(Site& site, const store::Version& version) {
  return {.adapter = site.store.files->local_path(version.about.value("lora_file", "")),
          .tar = {},
          .trigger = version.about.value("trigger_word", ""),
          .base = version.about.value("base_weights", ""),
          .variant = version.about.value("base", "")};
}

/// The last ones, as many as there were prompts.
std::vector<worker::SamplePicture> last_samples(Site& site, const std::string& job) {
  std::vector<worker::SamplePicture> samples;
  int64_t step = -1;
  for (const store::StoredFile& file : site.store.files->of_job(job, store::FilePurpose::output)) {
    const int64_t drawn = file.metadata.value("step", int64_t{-1});
    if (drawn < 0) continue;
    if (drawn != step) samples.clear();
    step = drawn;
    if (samples.size() < kSamplesOnCard)
      samples.push_back({site.store.files->local_path(file.id), file.metadata.value("prompt", "")});
  }
  return samples;
}

void send_adapter(Site& site, const std::string& hub, const PushRequest& push, const store::Version& version,
                  std::ostream& out) try {
  using Clock = std::chrono::steady_clock;
  base::CancelToken cancel;
  Clock::time_point told;
  const auto tell = [&](const base::ProgressEvent& event) {
    if (site.stopping) cancel.request();
    if (Clock::now() - told < std::chrono::milliseconds(200) && event.done < event.total) return;
    told = Clock::now();
    // Whoever closes the page has still asked for it.
    out << event_frame("progress", "", dump({{"done", event.done}, {"total", event.total}})) << std::flush;
  };
  worker::AdapterPush sent;
  sent.access.endpoint = hub;
  sent.access.token = push.token;
  sent.access.cancel = &cancel;
  sent.repository = push.repository;
  sent.samples = last_samples(site, push.job);
  sent.folder = site.store.data / "push" / push.job;
  if (push.hidden) sent.visibility = hub::HubClient::Visibility::hidden;
  sent.progress = tell;
  const hub::PushResult result = worker::push_adapter(stored_adapter(site, version), sent);
  out << event_frame("done", "", dump({{"page", result.page}})) << std::flush;
} catch (const base::Error& error) {
  out << event_frame("failed", "", dump({{"detail", error.what()}})) << std::flush;
} catch (const std::exception&) {
  out << event_frame("failed", "", dump({{"detail", "The upload failed inside the server; its messages tell more."}}))
      << std::flush;
}

Response push(Site& site, const std::string& hub, const std::shared_ptr<UnderWay>& under_way, Request& request) {
  const PushRequest asked = push_request(request);
  const store::Version version = trained_version(site, asked.job);
  Response response = text_response("", "text/event-stream");
  response.with("Cache-Control", "no-store").with("X-Accel-Buffering", "no");
  response.write = [&site, hub, under_way, asked, version](std::ostream& out) {
    if (!under_way->begin(asked.job)) {
      out << event_frame("failed", "", dump({{"detail", "This adapter is on its way already."}})) << std::flush;
      return;
    }
    send_adapter(site, hub, asked, version, out);
    under_way->end(asked.job);
  };
  return response;
}

}  // namespace

std::vector<Route> page_training_routes(Site& site, const PageOptions& options) {
  const auto under_way = std::make_shared<UnderWay>();
  return {{"POST", "/page/forecast", [&site, options](Request& request) { return forecast(site, options, request); }},
          {"POST", "/page/trainings/{id}/push",
           [&site, hub = options.hub, under_way](Request& request) { return push(site, hub, under_way, request); },
           Access::token, Cost::create}};
}

}  // namespace calotype::server
