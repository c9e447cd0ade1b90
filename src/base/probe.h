// Named intermediates: model code offers them, an observer (golden test, debug dump, search for a non-finite value)
// may look at them. Without an observer a probe costs one thread-local load.
//
//   probe("double_blocks.0.img_attn.q", q_BHLK);
//   ProbeScope watch([&](std::string_view name, const at::Tensor& t) { … });
//
// Observers belong to the thread that made them and see the probes of that thread only.
#pragma once

#include <fmt/format.h>

#include <functional>
#include <string_view>

namespace at {
class Tensor;
}

namespace calotype::base {

using ProbeObserver = std::function<void(std::string_view name, const at::Tensor& value)>;

/// Installs an observer for its lifetime; scopes nest, the innermost one sees the values.
class ProbeScope {
 public:
  explicit ProbeScope(ProbeObserver observer);
  ~ProbeScope();
  ProbeScope(const ProbeScope&) = delete;
  ProbeScope& operator=(const ProbeScope&) = delete;

 private:
  ProbeObserver observer_;
  const ProbeObserver* outer_;
};

namespace detail {
extern thread_local const ProbeObserver* observer;
}

inline void probe(std::string_view name, const at::Tensor& value) {
  if (detail::observer) [[unlikely]]
    (*detail::observer)(name, value);
}

/// With the layer's path in front: probe(path, "img_attn.q", q). The name is put together only for an observer.
inline void probe(std::string_view path, std::string_view name, const at::Tensor& value) {
  if (detail::observer) [[unlikely]]
    (*detail::observer)(fmt::format("{}.{}", path, name), value);
}

}  // namespace calotype::base
