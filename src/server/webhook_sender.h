// Delivers webhooks on threads of its own: a receiver that is down, slow or redirects delays nothing else.
//
//   WebhookSender sender(site);      // until it is destroyed
//
// What to send and when is in store/webhook_queue.h; signatures follow Svix' scheme, which Replicate's clients check.
// Addresses of the local network are refused unless allowed; redirects are not followed; no token goes along.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "hub/address_guard.h"
#include "server/site.h"

namespace calotype::server {

class WebhookSender {
 public:
  explicit WebhookSender(Site& site, int threads = 8);
  ~WebhookSender();

 private:
  void hand_out();
  void work();
  void deliver(const store::Delivery& delivery);
  void failed(const store::Delivery& delivery, int status, const std::string& error, bool again);

  Site& site_;
  hub::AddressGuard guard_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<store::Delivery> ready_;
  size_t idle_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace calotype::server
