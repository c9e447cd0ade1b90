// Cooperative cancellation: long work asks between steps, a signal handler or another thread answers.
//
//   CancelToken cancel;                       // cancel.request() from any thread or signal handler
//   for (…) { cancel.throw_if_requested(); … }
#pragma once

#include <atomic>

#include "base/error.h"

namespace calotype::base {

class CancelToken {
 public:
  void request() { requested_.store(true, std::memory_order_relaxed); }
  bool requested() const { return requested_.load(std::memory_order_relaxed); }
  /// Error of kind canceled once request() was called.
  void throw_if_requested() const { check(!requested(), ErrorKind::canceled, "canceled"); }

 private:
  std::atomic<bool> requested_{false};
};

}  // namespace calotype::base
