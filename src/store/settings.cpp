#include "store/settings.h"

#include "hub/signature.h"
#include "store/database.h"
#include "store/ids.h"
#include "store/sql.h"

namespace calotype::store {

Settings::Settings(std::shared_ptr<Database> database, SecretBox secrets)
    : database_(std::move(database)), secrets_(std::move(secrets)) {}

std::optional<std::string> Settings::get(const std::string& name) {
  Connection session = database_->session();
  const auto row = first_row(session, "SELECT value FROM settings WHERE name = ?", {name});
  return row ? row->maybe_text("value") : std::nullopt;
}

void Settings::set(const std::string& name, const std::string& value) {
  database_->transaction([&](Session& session) {
    execute(session,
            "INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            {name, clean_text(value)});
  });
}

std::string Settings::secret(const std::string& name, const std::function<std::string()>& make) {
  const std::string context = "setting/" + name;
  if (const auto sealed = get(name)) return secrets_.unseal(*sealed, context);
  const std::string made = secrets_.seal(make(), context);
  database_->transaction([&](Session& session) {  // another process may be faster; its value counts
    execute(session, "INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING", {name, made});
  });
  return secrets_.unseal(get(name).value_or(""), context);
}

std::string Settings::webhook_secret() {
  return secret("webhook_secret", [] { return hub::new_webhook_secret(); });
}

std::string Settings::signing_key() {
  return secret("signing_key", [] { return hub::random_bytes(32); });
}

std::string Settings::username() { return get("username").value_or("me"); }

void Settings::set_username(const std::string& name) {
  check_name("username", name);
  set("username", name);
}

}  // namespace calotype::store
