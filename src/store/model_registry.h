// The models this installation knows: made by users, trained here, or served out of the box.
//
//   registry.create({.owner = "me", .name = "flux-mine"});
//   registry.add_version({.id = hash, .owner = "me", .name = "flux-mine", .about = {{"weights_file", file_id}}});
//
// Thread-safe. Errors: conflict for a name that is taken, not_found for one that is missing, bad_input for names
// outside ids.h, check_name().
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "store/values.h"

namespace calotype::store {

class Database;

struct Model {
  std::string owner, name;
  std::string visibility = "private";  ///< public, private
  std::string hardware = "cpu";
  std::string description, github_url, paper_url, license_url, cover_image_url, readme;  ///< "" = none
  int64_t run_count = 0;
  Time created_at = 0;
  std::string example_job;                 ///< job id or ""
  std::string latest_version;              ///< id or ""; kept by add_version and remove_version
  std::optional<Time> version_created_at;  ///< of the latest version
};

/// Fields to change; absent ones stay.
struct ModelChange {
  std::optional<std::string> visibility, hardware, description, github_url, paper_url, license_url, cover_image_url,
      readme, example_job;
};

struct Version {
  std::string id;  ///< 64 hexadecimal digits
  std::string owner, name;
  Time created_at = 0;
  Json about = Json::object();  ///< base, weights_file, trigger_word, training, lora …: the worker's own words
};

struct Deployment {
  std::string owner, name, model /* owner/name */, version, hardware = "cpu";
  int64_t number = 1;  ///< of the release; grows with every change
  int64_t min_instances = 0, max_instances = 1;
  Time created_at = 0;  ///< of the release
};

struct DeploymentChange {
  std::optional<std::string> version, hardware;
  std::optional<int64_t> min_instances, max_instances;
};

enum class ModelOrder { model_created_at, latest_version_created_at };

struct PageQuery {
  std::string cursor;  ///< of an earlier page, "" = the first
  int limit = 100;     ///< 1 to 1000
};

struct ModelQuery : PageQuery {
  ModelOrder order = ModelOrder::model_created_at;
  bool ascending = false;
  std::string search;  ///< words that owner, name or description contain, any case; "" = all
};

template <typename T>
struct Page {
  std::vector<T> items;
  std::string next, previous;  ///< cursors, "" = none
};

struct Collection {
  std::string slug, name, description;
  std::vector<std::string> models;  ///< "owner/name"
};
/// Constants.
const std::vector<Collection>& collections();

class ModelRegistry {
 public:
  explicit ModelRegistry(std::shared_ptr<Database> database);

  Model create(const Model& model);
  std::optional<Model> find(const std::string& owner, const std::string& name);
  Model update(const std::string& owner, const std::string& name, const ModelChange& change);
  /// Error conflict while it has versions.
  void remove(const std::string& owner, const std::string& name);
  Page<Model> list(const ModelQuery& query);

  /// The model must exist; the same id again for the same model gives the version there is.
  Version add_version(const Version& version);
  /// Newest first.
  Page<Version> versions(const std::string& owner, const std::string& name, const PageQuery& query = {});
  std::optional<Version> find_version(const std::string& owner, const std::string& name, const std::string& id);
  /// Any model's version with this id.
  std::optional<Version> find_version(const std::string& id);
  void remove_version(const std::string& owner, const std::string& name, const std::string& id);

  Deployment create_deployment(const Deployment& deployment);
  std::optional<Deployment> find_deployment(const std::string& owner, const std::string& name);
  Deployment update_deployment(const std::string& owner, const std::string& name, const DeploymentChange& change);
  void remove_deployment(const std::string& owner, const std::string& name);
  Page<Deployment> deployments(const PageQuery& query = {});

 private:
  std::shared_ptr<Database> database_;
};

}  // namespace calotype::store
