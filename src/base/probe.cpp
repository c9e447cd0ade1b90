#include "base/probe.h"

namespace calotype::base {

namespace detail {
thread_local const ProbeObserver* observer = nullptr;
}

ProbeScope::ProbeScope(ProbeObserver observer) : observer_(std::move(observer)), outer_(detail::observer) {
  detail::observer = &observer_;
}

ProbeScope::~ProbeScope() { detail::observer = outer_; }

}  // namespace calotype::base
