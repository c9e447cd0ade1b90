// From the body of a request to a job in the store, and waiting for its end.
//
//   const store::Job job = submit(site, request, {.target = target, .body = body});
//   return job_answer(site, request, wait_as_preferred(site, request, job));
//
// All APIs of this server come through here, so that checks, limits and secrets are handled once. Thread-safe.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "server/http_message.h"
#include "server/site.h"
#include "server/targets.h"

namespace calotype::server {

struct Submission {
  Target target;
  Json body = Json::object();  ///< input, webhook, webhook_events_filter, webhook_completed; other keys are ignored
  store::JobKind kind = store::JobKind::prediction;
  std::string id, deployment, destination;
  bool data_uris = false;
  int pictures = 0;                            ///< more than the input's num_outputs may ask for, 0 = as the input says
  std::optional<store::Webhook> webhook = {};  ///< instead of the body's; its URL is checked by who fills this in
};

/// Problem 422 for what is no URL or leads into the local network where that is not allowed; `field` names it.
void check_webhook_url(const Site& site, const std::string& url, const std::string& field);

/// For callers who know no aspect ratios: `width` and `height` count, also with models that take them only with the
/// aspect_ratio "custom".
void use_given_size(const worker::ServedModel& model, Json& input);

/// Problems: 422 naming the fields that are wrong; Errors: disk_full, conflict (another job has this id).
store::Job submit(Site& site, const Request& request, const Submission& submission);

/// A training into a model that is made for it, unless it is there; it goes when the training is refused.
store::Job submit_with_model(Site& site, const Request& request, const store::Model& model, Submission submission);

/// Seconds of "Prefer: wait" (60) or "wait=N" (1 to 60); nothing without it. Problem 400 for another N.
std::optional<std::chrono::seconds> preferred_wait(const Request& request);
/// Of "30", "30s", "5m", "1h30m45s" in Cancel-After. Problem 422 for anything else and for less than 5 s.
std::optional<std::chrono::seconds> cancel_after(const Request& request);

/// The job when it has ended or `patience` is over, whatever comes first.
store::Job wait_for_end(Site& site, store::Job job, std::chrono::milliseconds patience);

/// How long to hold a request whose client gives up after `asked`: the answer must be there before that.
std::chrono::milliseconds holding_time(std::chrono::seconds asked);

/// 201 with the job, after waiting as the request's Prefer header asks.
Response created_answer(Site& site, const Request& request, const store::Job& job);

}  // namespace calotype::server
