#include "server/targets.h"

#include <algorithm>
#include <map>

#include "server/problem.h"

namespace calotype::server {
using worker::ServedModel;

namespace {

Problem no_version() {
  return Problem(422, "Invalid version or not permitted",
                 "The specified version does not exist (or perhaps you don't have permission to use it?)");
}

std::optional<Target> official_target(const ServedModel& model, const std::string& version) {
  const std::string own = official_version(model);
  const bool any = model.task == worker::Task::trainer && is_version_id(version);
  if (!version.empty() && version != own && !any) return std::nullopt;
  return Target{.schema = &model,
                .owner = model.owner,
                .name = model.name,
                .version = any ? version : own,
                .created_at = kOfficialSince};
}

Target stored_target(const store::Version& version) {
  return {.schema = &worker::fine_tuned_model(),
          .owner = version.owner,
          .name = version.name,
          .version = version.id,
          .created_at = version.created_at};
}

}  // namespace

std::string official_version(const ServedModel& model) {
  static const auto ids = [] {
    std::map<std::string, std::string> all;
    for (const ServedModel& each : worker::official_models()) all[each.full_name()] = worker::version_id(each, "");
    return all;
  }();
  return ids.at(model.full_name());
}

bool is_version_id(std::string_view text) {
  return text.size() == 64 &&
         std::ranges::all_of(text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

std::optional<Target> find_target(Site& site, const std::string& owner, const std::string& name,
                                  const std::string& version) {
  if (const ServedModel* model = worker::find_model(owner + "/" + name)) return official_target(*model, version);
  std::string id = version;
  if (id.empty()) {
    const auto model = site.store.models->find(owner, name);
    if (!model || model->latest_version.empty()) return std::nullopt;
    id = model->latest_version;
  }
  const auto stored = site.store.models->find_version(owner, name, id);
  if (!stored) return std::nullopt;
  return stored_target(*stored);
}

Target target_of_reference(Site& site, const std::string& reference) {
  const size_t colon = reference.find(':');
  const std::string model = reference.substr(0, colon);
  const std::string version = colon == std::string::npos ? "" : reference.substr(colon + 1);
  if (const auto names = owner_and_name(model)) {
    if (colon != std::string::npos && version.empty()) throw no_version();
    auto target = find_target(site, names->first, names->second, version);
    if (!target) throw no_version();
    return *target;
  }
  if (!is_version_id(reference)) throw no_version();
  for (const ServedModel& each : worker::official_models())
    if (official_version(each) == reference) return *official_target(each, reference);
  const auto stored = site.store.models->find_version(reference);
  if (!stored) throw no_version();
  return stored_target(*stored);
}

std::optional<std::pair<std::string, std::string>> owner_and_name(std::string_view text) {
  const size_t slash = text.find('/');
  if (slash == 0 || slash == std::string_view::npos || slash + 1 == text.size() ||
      text.find('/', slash + 1) != std::string_view::npos)
    return std::nullopt;
  return std::pair(std::string(text.substr(0, slash)), std::string(text.substr(slash + 1)));
}

}  // namespace calotype::server
