// Puts webhook deliveries into the queue, inside the transaction that changes the job. Only src/store includes this.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "store/sql.h"

namespace calotype::store {

struct DeliveryCause {
  std::string job;
  int64_t change = 0;  ///< of the job
  std::string url;     ///< "" = the job has no webhook
  std::vector<std::string> events;
};

/// `event`: start, output, logs, completed; nothing happens for one that was not asked for.
void enqueue_delivery(Session& session, const DeliveryCause& cause, std::string_view event);

}  // namespace calotype::store
