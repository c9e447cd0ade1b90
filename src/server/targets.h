// From the names and hashes that requests carry to what they mean: an official model, or one that was trained here.
#pragma once

#include <optional>
#include <string>

#include "server/site.h"
#include "worker/model_catalog.h"

namespace calotype::server {

struct Target {
  const worker::ServedModel* schema = nullptr;  ///< what it takes; never null
  std::string owner, name, version;             ///< version: 64 hexadecimal digits
  store::Time created_at = 0;                   ///< of the version

  std::string full_name() const { return owner + "/" + name; }
  bool is_trainer() const { return schema->task == worker::Task::trainer; }
};

/// The version with which an official model runs now.
std::string official_version(const worker::ServedModel& model);
/// Official models and their versions were "made" then: before everything that users make.
constexpr store::Time kOfficialSince = 1722470400 * store::kSecond;  // 2024-08-01

bool is_version_id(std::string_view text);

/// A model's latest version, or the given one. Trainers take any version: scripts pin those of replicate.com.
/// Nothing when there is no such model or version.
std::optional<Target> find_target(Site& site, const std::string& owner, const std::string& name,
                                  const std::string& version = "");

/// "owner/name", "owner/name:VERSION" or a VERSION alone. Problem 422 as Replicate words it.
Target target_of_reference(Site& site, const std::string& reference);

/// "owner/name" taken apart; nothing for other shapes.
std::optional<std::pair<std::string, std::string>> owner_and_name(std::string_view text);

}  // namespace calotype::server
