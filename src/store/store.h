// Everything that is stored, opened at once; the same on servers and workers.
//
//   Store store = Store::open({.data = "data"});            // data/calotype.db, data/files, data/secret.key
//   store.jobs->create(…);
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "store/file_store.h"
#include "store/job_store.h"
#include "store/model_registry.h"
#include "store/settings.h"
#include "store/tokens.h"
#include "store/webhook_queue.h"
#include "store/worker_registry.h"

namespace calotype::store {

struct StoreOptions {
  std::filesystem::path data =
      "data";                     ///< folder of secret.key, work folders and the defaults below; made when missing
  std::string database;           ///< URL, "" = sqlite:DATA/calotype.db
  std::string files;              ///< URL, "" = DATA/files
  FileStoreOptions file_options;  ///< an empty cache means DATA/cache
};

struct Store {
  std::filesystem::path data;
  std::shared_ptr<Database> database;
  std::shared_ptr<JobStore> jobs;
  std::shared_ptr<ModelRegistry> models;
  std::shared_ptr<FileStore> files;
  std::shared_ptr<Settings> settings;
  std::shared_ptr<Tokens> tokens;
  std::shared_ptr<WebhookQueue> webhooks;
  std::shared_ptr<WorkerRegistry> workers;

  static Store open(const StoreOptions& options);
};

}  // namespace calotype::store
