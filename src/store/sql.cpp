#include "store/sql.h"

#include <Poco/Data/PostgreSQL/PostgreSQLException.h>
#include <Poco/Data/RecordSet.h>
#include <Poco/Data/SQLite/SQLiteException.h>
#include <Poco/Data/Statement.h>

#include <charconv>

namespace calotype::store {
using base::ErrorKind;
namespace sqlite = Poco::Data::SQLite;

bool is_postgres(Session& session) { return session.connector().starts_with('p'); }

namespace {

/// PostgreSQL wants $1, $2, …
std::string numbered(std::string_view sql) {
  std::string text;
  int number = 0;
  for (const char c : sql) {
    if (c == '?')
      text += '$' + std::to_string(++number);
    else
      text += c;
  }
  return text;
}

// SQLSTATE stands in the text only: "… State: 40001 Detail: …".
[[noreturn]] void fail_postgres(const Poco::Exception& e) {
  const std::string text = e.displayText();
  const auto state = [&](std::string_view code) {
    return text.find(fmt::format("State: {}", code)) != std::string::npos;
  };
  if (state("40001") || state("40P01") || state("55P03"))
    throw Collision(text);  // serialisation, deadlock, lock timeout
  if (state("08") || state("57P") || text.find("connection") != std::string::npos) throw Collision(text);
  if (state("53100")) base::fail(ErrorKind::disk_full, "the database server has no space left: {}", text);
  base::fail(ErrorKind::internal, "database: {}", text);
}

template <typename Work>
auto translated(Session& session, Work&& work) {
  try {
    return work();
  } catch (const sqlite::DBLockedException& e) {
    throw Collision(e.displayText());
  } catch (const sqlite::TableLockedException& e) {
    throw Collision(e.displayText());
  } catch (const sqlite::DatabaseFullException& e) {
    base::fail(ErrorKind::disk_full, "the database has no space left: {}", e.displayText());
  } catch (const Poco::Exception& e) {
    if (is_postgres(session)) fail_postgres(e);
    // SQLite reports a full disk as an I/O error when it happens while the log is written.
    const bool input_output = dynamic_cast<const sqlite::IOErrorException*>(&e) != nullptr;
    base::fail(input_output ? ErrorKind::disk_full : ErrorKind::internal, "database: {}", e.displayText());
  }
}

void bind(Poco::Data::Statement& statement, const Value& value) {
  using Poco::Data::Keywords::bind;
  if (const auto* number = std::get_if<int64_t>(&value))
    statement, bind(*number);
  else if (const auto* text = std::get_if<std::string>(&value))
    statement, bind(*text);
  else
    statement, bind(Poco::Nullable<std::string>());
}

Poco::Data::Statement prepare(Session& session, std::string_view sql, const Values& values) {
  Poco::Data::Statement statement(session);
  statement << (is_postgres(session) ? numbered(sql) : std::string(sql));
  for (const Value& value : values) bind(statement, value);
  return statement;
}

int64_t parse_integer(const std::string& text, std::string_view column) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  base::check(error == std::errc() && end == text.data() + text.size(), ErrorKind::internal,
              "database: column {} holds \"{}\", expected a whole number", column, base::printable(text));
  return number;
}

}  // namespace

const std::optional<std::string>& Row::cell(std::string_view column) const {
  for (size_t i = 0; i < cells_.size(); ++i)
    if ((*columns_)[i] == column) return cells_[i];
  base::fail(ErrorKind::internal, "database: the query has no column {}", column);
}

int64_t Row::integer(std::string_view column) const { return maybe_integer(column).value_or(0); }

std::optional<int64_t> Row::maybe_integer(std::string_view column) const {
  const auto& text = cell(column);
  return text ? std::optional(parse_integer(*text, column)) : std::nullopt;
}

Json Row::json(std::string_view column) const {
  const auto& text = cell(column);
  return text ? Json::parse(*text) : Json();
}

Rows rows(Session& session, std::string_view sql, const Values& values) {
  return translated(session, [&] {
    Poco::Data::Statement statement = prepare(session, sql, values);
    statement.execute();
    Poco::Data::RecordSet set(statement);
    auto columns = std::make_shared<std::vector<std::string>>();
    for (size_t x = 0; x < set.columnCount(); ++x) columns->push_back(set.columnName(x));
    Rows result(set.columnCount() == 0 ? 0 : set.rowCount());
    for (size_t y = 0; y < result.size(); ++y) {
      result[y].columns_ = columns;
      for (size_t x = 0; x < columns->size(); ++x)
        result[y].cells_.push_back(set.isNull(x, y) ? std::nullopt
                                                    : std::optional(set.value(x, y).template convert<std::string>()));
    }
    return result;
  });
}

std::optional<Row> first_row(Session& session, std::string_view sql, const Values& values) {
  Rows all = rows(session, sql, values);
  return all.empty() ? std::nullopt : std::optional(std::move(all.front()));
}

int64_t execute(Session& session, std::string_view sql, const Values& values) {
  return translated(session, [&] { return static_cast<int64_t>(prepare(session, sql, values).execute()); });
}

std::string_view for_update(Session& session) { return is_postgres(session) ? " FOR UPDATE" : ""; }

std::string_view for_update_skip_locked(Session& session) {
  return is_postgres(session) ? " FOR UPDATE SKIP LOCKED" : "";
}

void alone(Session& session, std::string_view name) {
  if (is_postgres(session))
    rows(session, "SELECT 1 AS one FROM pg_advisory_xact_lock(hashtext(?))", {std::string(name)});
}

Conditions& Conditions::add(std::string_view condition, const Values& values) {
  text_ += fmt::format("{}{}", text_.empty() ? " WHERE " : " AND ", condition);
  values_.insert(values_.end(), values.begin(), values.end());
  return *this;
}

Conditions& Conditions::add_one_of(std::string_view column, const std::vector<std::string>& values) {
  if (values.empty()) return *this;
  std::string marks;
  Values list;
  for (const std::string& value : values) {
    marks += marks.empty() ? "?" : ", ?";
    list.emplace_back(value);
  }
  return add(fmt::format("{} IN ({})", column, marks), list);
}

std::string Conditions::where() const { return text_; }

std::string like_pattern(std::string_view part) {
  std::string pattern = "%";
  for (const char c : clean_text(part)) {
    if (c == '%' || c == '_' || c == '\\') pattern += '\\';
    pattern += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return pattern + "%";
}

}  // namespace calotype::store
