#include "store/store.h"

#include "base/error.h"
#include "store/database.h"

namespace calotype::store {
namespace fs = std::filesystem;

Store Store::open(const StoreOptions& options) {
  std::error_code error;
  fs::create_directories(options.data, error);
  base::check(fs::is_directory(options.data), base::ErrorKind::bad_input, "{}: cannot make the data folder{}{}",
              options.data.string(), error ? ": " : "", error ? error.message() : "");
  const SecretBox secrets = SecretBox::open(options.data);
  FileStoreOptions file_options = options.file_options;
  if (file_options.cache.empty()) file_options.cache = options.data / "cache";
  Store store{.data = options.data};
  store.database =
      Database::open(options.database.empty() ? "sqlite:" + (options.data / "calotype.db").string() : options.database);
  store.jobs = std::make_shared<JobStore>(store.database, secrets);
  store.models = std::make_shared<ModelRegistry>(store.database);
  store.files = std::make_shared<FileStore>(
      store.database, options.files.empty() ? (options.data / "files").string() : options.files, file_options);
  store.settings = std::make_shared<Settings>(store.database, secrets);
  store.tokens = std::make_shared<Tokens>(store.database);
  store.webhooks = std::make_shared<WebhookQueue>(store.database);
  store.workers = std::make_shared<WorkerRegistry>(store.database);
  return store;
}

}  // namespace calotype::store
