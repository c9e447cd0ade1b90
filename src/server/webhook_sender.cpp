#include "server/webhook_sender.h"

#include <fmt/format.h>

#include <algorithm>

#include "hub/http_client.h"
#include "hub/signature.h"
#include "server/other_apis.h"
#include "server/replicate_objects.h"

namespace calotype::server {
using namespace std::chrono_literals;
using store::Delivery;

namespace {

constexpr auto kAnswerTime = 10s;
// Cog's schedule (crates/coglet webhook.rs) stretched a little: 0.2 s doubled each time, 13 minutes in all.
constexpr int kCompletedAttempts = 12;
constexpr int kStartAttempts = 3;  // later events wait for it

int attempts_of(const std::string& event) {
  return event == "completed" ? kCompletedAttempts : event == "start" ? kStartAttempts : 1;
}

store::Time pause_after(int attempts) { return (store::kSecond / 5) << std::min(attempts, 12); }

bool worth_another_try(int status) { return status == 408 || status == 429 || status >= 500; }

// replicate.com/docs/topics/webhooks/verify-webhook: as Standard Webhooks signs.
hub::HttpRequest replicate_request(Site& site, const store::Job& job, const Delivery& delivery) {
  Json body = job_json(site, job, site.options.base_url, FileForm::url);
  if (delivery.event == "start")
    body.update({{"status", "processing"}, {"output", nullptr}, {"completed_at", nullptr}});
  hub::HttpRequest request;
  request.body = dump(body);
  const int64_t seconds = store::now() / store::kSecond;
  request.headers = {{"webhook-id", delivery.message_id},
                     {"webhook-timestamp", std::to_string(seconds)},
                     {"webhook-signature", hub::webhook_signature(site.store.settings->webhook_secret(),
                                                                  delivery.message_id, seconds, request.body)}};
  return request;
}

// github.com/black-forest-labs/skills: the digest of the body with the secret that came with the request.
hub::HttpRequest bfl_request(Site& site, const store::Job& job) {
  hub::HttpRequest request;
  request.body = dump(bfl_result(site, job, site.options.base_url));
  const std::string secret = site.store.jobs->webhook_secret(job.id);
  if (!secret.empty())
    request.headers = {{"X-BFL-Signature", "sha256=" + hub::hex(hub::hmac_sha256(secret, request.body))}};
  return request;
}

}  // namespace

WebhookSender::WebhookSender(Site& site, int threads)
    : site_(site), guard_({.allow_private = site.options.private_targets}) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
  threads_.emplace_back([this] { hand_out(); });
}

WebhookSender::~WebhookSender() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

/// One thread asks the store for all; the changes come from other processes, so it has to ask.
void WebhookSender::hand_out() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    const size_t idle = idle_ > ready_.size() ? idle_ - ready_.size() : 0;
    if (idle > 0) {
      lock.unlock();
      std::vector<Delivery> taken;
      try {
        const auto due = site_.store.webhooks->next_due();
        if (due && *due <= store::now()) taken = site_.store.webhooks->take(store::now(), static_cast<int>(idle));
      } catch (const std::exception&) {
        // A database that is away or full; asked again below.
      }
      lock.lock();
      ready_.insert(ready_.end(), taken.begin(), taken.end());
      if (!taken.empty()) changed_.notify_all();
    }
    changed_.wait_for(lock, 100ms, [this] { return stopping_; });
  }
}

void WebhookSender::work() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    ++idle_;
    changed_.wait(lock, [this] { return stopping_ || !ready_.empty(); });
    --idle_;
    if (stopping_) return;
    const Delivery delivery = ready_.front();
    ready_.pop_front();
    lock.unlock();
    try {
      deliver(delivery);
    } catch (const std::exception&) {
      // The lease ends and the delivery is due again.
    }
    lock.lock();
  }
}

void WebhookSender::deliver(const Delivery& delivery) {
  const auto job = site_.store.jobs->find(delivery.job);
  if (!job) return site_.store.webhooks->give_up(delivery, 0, "the job is gone");
  const bool bfl = job->webhook && job->webhook->dialect == kBflWebhook;
  hub::HttpRequest request = bfl ? bfl_request(site_, *job) : replicate_request(site_, *job, delivery);
  request.method = "POST";
  request.url = delivery.url;
  request.timeout = kAnswerTime;
  request.max_bytes = 1 << 20;
  request.guard = &guard_;
  request.headers.emplace_back("Content-Type", "application/json");
  request.headers.emplace_back("User-Agent", "Calotype-Webhook");
  int status = 0;
  try {
    status = hub::send(request).status;
  } catch (const base::Error& error) {
    return failed(delivery, 0, error.what(), error.kind() != base::ErrorKind::bad_input);
  }
  if (status < 200 || status > 299)
    return failed(delivery, status, fmt::format("the receiver answered {}", status), worth_another_try(status));
  site_.store.webhooks->done(delivery, status);
  site_.metrics.count_webhook(true);
}

void WebhookSender::failed(const Delivery& delivery, int status, const std::string& error, bool again) {
  site_.metrics.count_webhook(false);
  if (again && delivery.attempts + 1 < attempts_of(delivery.event)) {
    site_.store.webhooks->again(delivery, store::now() + pause_after(delivery.attempts), status, error);
  } else {
    site_.store.webhooks->give_up(delivery, status, error);
  }
}

}  // namespace calotype::server
