#include "store/tokens.h"

#include <map>
#include <mutex>

#include "base/error.h"
#include "base/sha256.h"
#include "hub/signature.h"
#include "store/database.h"
#include "store/ids.h"
#include "store/sql.h"

namespace calotype::store {
namespace {

constexpr std::string_view kColumns = "id, name, hint, hash, created_at, last_used_at";
constexpr Time kRemembered = 2 * kSecond, kUseGranularity = 60 * kSecond;
constexpr size_t kMostRemembered = 1000;

Token read(const Row& row) {
  return {.id = row.text("id"),
          .name = row.text("name"),
          .hint = row.text("hint"),
          .created_at = row.integer("created_at"),
          .last_used_at = row.maybe_integer("last_used_at")};
}

}  // namespace

// Valid tokens by hash: a request costs no question to the database most of the time.
struct Tokens::Memory {
  struct Entry {
    Token token;
    Time until;
  };
  std::mutex mutex;
  std::map<std::string, Entry> valid;

  std::optional<Token> find(const std::string& hash, Time time) {
    const std::lock_guard lock(mutex);
    const auto entry = valid.find(hash);
    return entry != valid.end() && entry->second.until > time ? std::optional(entry->second.token) : std::nullopt;
  }
  void remember(const std::string& hash, const Token& token, Time time) {
    const std::lock_guard lock(mutex);
    if (valid.size() >= kMostRemembered) valid.clear();
    valid[hash] = {token, time + kRemembered};
  }
  void forget() {
    const std::lock_guard lock(mutex);
    valid.clear();
  }
};

Tokens::Tokens(std::shared_ptr<Database> database)
    : database_(std::move(database)), memory_(std::make_shared<Memory>()) {}

NewToken Tokens::create(const std::string& name) {
  NewToken made{.token = {.id = new_id(), .name = clean_text(name), .created_at = now()},
                .plain = "calo_" + hub::random_token(30)};
  base::check(!made.token.name.empty() && made.token.name.size() <= 200, base::ErrorKind::bad_input,
              "name: a token needs a name of at most 200 bytes");
  made.token.hint = made.plain.substr(0, 9);
  database_->transaction([&](Session& session) {
    execute(session, "INSERT INTO tokens (id, name, hint, hash, created_at) VALUES (?, ?, ?, ?, ?)",
            {made.token.id, made.token.name, made.token.hint, base::sha256_hex(made.plain), made.token.created_at});
  });
  return made;
}

// The look-up goes by SHA-256: how long it takes tells about the hash only, which nobody can steer.
std::optional<Token> Tokens::check(std::string_view plain) {
  if (plain.empty() || plain.size() > 200) return {};
  const std::string hash = base::sha256_hex(plain);
  const Time time = now();
  if (auto known = memory_->find(hash, time)) return known;
  std::optional<Row> row;
  {
    Connection session = database_->session();
    row = first_row(session, fmt::format("SELECT {} FROM tokens WHERE hash = ?", kColumns), {hash});
  }
  if (!row || !hub::constant_time_equal(row->text("hash"), hash)) return {};
  Token token = read(*row);
  if (token.last_used_at.value_or(0) < time - kUseGranularity) {
    token.last_used_at = time;
    database_->transaction(
        [&](Session& session) {
          execute(session, "UPDATE tokens SET last_used_at = ? WHERE id = ?", {time, token.id});
        },
        Durability::relaxed);
  }
  memory_->remember(hash, token, time);
  return token;
}

std::vector<Token> Tokens::list() {
  Connection session = database_->session();
  std::vector<Token> all;
  for (const Row& row : rows(session, fmt::format("SELECT {} FROM tokens ORDER BY created_at, id", kColumns)))
    all.push_back(read(row));
  return all;
}

bool Tokens::revoke(const std::string& id) {
  int64_t count = 0;
  database_->transaction([&](Session& session) {
    count = execute(session, "DELETE FROM tokens WHERE id = ? OR hint = ?", {clean_text(id), clean_text(id)});
  });
  memory_->forget();
  return count > 0;
}

bool Tokens::any() {
  Connection session = database_->session();
  return first_row(session, "SELECT id FROM tokens LIMIT 1").has_value();
}

}  // namespace calotype::store
