// Statements and rows: one SQL text for SQLite and PostgreSQL. Only src/store includes this.
//
//   for (const Row& row : rows(session, "SELECT id, change FROM jobs WHERE model = ?", {model})) use(row.text("id"));
//   if (execute(session, "UPDATE jobs SET worker = '' WHERE id = ?", {id}) == 0) …
//
// "?" is a value, never a literal question mark. Columns are BIGINT or TEXT. Failures are base::Error (disk_full,
// internal), or a Collision, which Database::transaction() answers by trying again.
#pragma once

#include <Poco/Data/Session.h>

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/error.h"
#include "store/values.h"

namespace calotype::store {

using Poco::Data::Session;

using Value = std::variant<std::nullptr_t, int64_t, std::string>;
using Values = std::vector<Value>;

template <typename T>
Value value_or_null(const std::optional<T>& value) {
  return value ? Value(*value) : Value(nullptr);
}

/// Names of columns, as written in the query (lower case).
class Row {
 public:
  bool null(std::string_view column) const { return !cell(column); }
  /// "" for NULL.
  std::string text(std::string_view column) const { return cell(column).value_or(""); }
  /// 0 for NULL.
  int64_t integer(std::string_view column) const;
  bool flag(std::string_view column) const { return integer(column) != 0; }
  std::optional<std::string> maybe_text(std::string_view column) const { return cell(column); }
  std::optional<int64_t> maybe_integer(std::string_view column) const;
  /// null for NULL.
  Json json(std::string_view column) const;

 private:
  friend std::vector<Row> rows(Session&, std::string_view, const Values&);
  const std::optional<std::string>& cell(std::string_view column) const;

  std::shared_ptr<const std::vector<std::string>> columns_;
  std::vector<std::optional<std::string>> cells_;
};
using Rows = std::vector<Row>;

/// Two writers got into each other's way, or the connection broke: the transaction may be tried again.
class Collision : public base::Error {
 public:
  explicit Collision(const std::string& message) : base::Error(base::ErrorKind::internal, message) {}
};

Rows rows(Session& session, std::string_view sql, const Values& values = {});
/// The first row, or nothing.
std::optional<Row> first_row(Session& session, std::string_view sql, const Values& values = {});
/// Returns how many rows were inserted, changed or deleted.
int64_t execute(Session& session, std::string_view sql, const Values& values = {});

bool is_postgres(Session& session);
/// " FOR UPDATE" where rows need locks; in SQLite a write transaction is alone anyway.
std::string_view for_update(Session& session);
/// The same for workers that share a queue: rows that others hold are passed over.
std::string_view for_update_skip_locked(Session& session);
/// Makes transactions that call this with the same `name` wait for each other.
void alone(Session& session, std::string_view name);

/// Conditions joined by AND.
class Conditions {
 public:
  Conditions& add(std::string_view condition, const Values& values = {});
  /// column IN (…); nothing is added for an empty list.
  Conditions& add_one_of(std::string_view column, const std::vector<std::string>& values);
  /// " WHERE a AND b", or "".
  std::string where() const;
  const Values& values() const { return values_; }

 private:
  std::string text_;
  Values values_;
};

/// A part of a text in LIKE … ESCAPE '\', lower case (ASCII).
std::string like_pattern(std::string_view part);

}  // namespace calotype::store
