// Webhook deliveries that are due. JobStore puts them in with the change that causes them; the server's delivery
// threads take them out. What is sent is made at delivery time from the job as it is then (for "start": with status
// processing, which may be over by then).
//
//   for (const Delivery& d : queue.take(now(), 8)) {
//     auto answer = post(…);                                     // webhook-id: d.message_id
//     answer.ok ? queue.done(d, answer.status) : queue.again(d, now() + delay(d.attempts), answer.status,
//     answer.error);
//   }
//
// output and logs of one job come at most every 500 ms and only the newest waits; none after completed. A delivery that
// was taken and neither done nor put back (its process died) is due again after kDeliveryLease. Thread-safe; several
// processes may take from one queue.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "store/values.h"

namespace calotype::store {

class Database;

constexpr Time kDeliveryLease = 90 * kSecond;
constexpr Time kWebhookSpacing = kSecond / 2;

struct Delivery {
  std::string message_id;  ///< unique, the same in all attempts
  std::string job, url;
  std::string event;  ///< start, output, logs, completed
  std::string state;  ///< waiting, taken, done, given_up
  int attempts = 0;   ///< finished ones
  Time created_at = 0, next_at = 0;
  int last_status = 0;     ///< HTTP status of the last answer, 0 = none
  std::string last_error;  ///< "" = none
};

class WebhookQueue {
 public:
  explicit WebhookQueue(std::shared_ptr<Database> database);

  /// Up to `limit` due deliveries, marked as taken; at most one of each job and none while another one of the job is
  /// taken, so that a job's events arrive in order.
  std::vector<Delivery> take(Time now, int limit);
  void done(const Delivery& delivery, int status);
  /// One more attempt at `next_at`.
  void again(const Delivery& delivery, Time next_at, int status, const std::string& error);
  void give_up(const Delivery& delivery, int status, const std::string& error);
  /// When the next one is due, or nothing.
  std::optional<Time> next_due();
  /// The job's deliveries, oldest first.
  std::vector<Delivery> of_job(const std::string& job);
  /// Deletes finished ones made before `time`.
  int64_t forget(Time time);

 private:
  void settle(const Delivery& delivery, const std::string& state, Time next_at, int status, const std::string& error);

  std::shared_ptr<Database> database_;
};

}  // namespace calotype::store
