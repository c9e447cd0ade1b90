#include "store/page.h"

#include <algorithm>
#include <charconv>

namespace calotype::store {
namespace {

// "n1767607200123456_k3v9q0x7…": the direction, then the row next to which the page lies.
struct Cursor {
  bool back = false;
  int64_t key = 0;
  std::string id;
};

std::string encode(const Cursor& cursor) {
  std::string id = cursor.id;
  std::ranges::replace(id, '/', '~');  // not part of any name
  return fmt::format("{}{}_{}", cursor.back ? 'p' : 'n', cursor.key, id);
}

Cursor decode(const std::string& text) {
  Cursor cursor{.back = text.starts_with('p')};
  const size_t line = text.find('_');
  bool ok = line != std::string::npos && (cursor.back || text.starts_with('n')) && text.size() < 200;
  if (ok) {
    const auto [end, error] = std::from_chars(text.data() + 1, text.data() + line, cursor.key);
    ok = error == std::errc() && end == text.data() + line;
    cursor.id = clean_text(text.substr(line + 1));
    std::ranges::replace(cursor.id, '~', '/');
  }
  base::check(ok, base::ErrorKind::bad_input, "cursor: \"{}\" is none; use the one that an earlier page names",
              base::printable(text));
  return cursor;
}

std::string cursor_beside(const Row& row, bool back) {
  return encode({.back = back, .key = row.integer("page_key"), .id = row.text("page_id")});
}

}  // namespace

RowPage read_page(Session& session, const PageRequest& r) {
  base::check(r.limit >= 1 && r.limit <= 1000, base::ErrorKind::bad_input, "limit is {}, expected 1 to 1000", r.limit);
  const bool first = r.cursor.empty();
  const Cursor cursor = first ? Cursor() : decode(r.cursor);
  const bool up = r.ascending != cursor.back;  // the order in which this page is read
  Conditions conditions = r.conditions;
  if (!first) conditions.add(fmt::format("({}, {}) {} (?, ?)", r.key, r.id, up ? ">" : "<"), {cursor.key, cursor.id});
  const std::string order = up ? "ASC" : "DESC";
  RowPage page{.rows = rows(session,
                            fmt::format("SELECT {} FROM {}{} ORDER BY page_key {}, page_id {} LIMIT {}", r.columns,
                                        r.table, conditions.where(), order, order, r.limit + 1),
                            conditions.values())};
  const bool more = page.rows.size() > static_cast<size_t>(r.limit);
  if (more) page.rows.pop_back();
  if (cursor.back) std::ranges::reverse(page.rows);
  if (page.rows.empty()) return page;
  if (cursor.back || more) page.next = cursor_beside(page.rows.back(), false);
  if (!first && (!cursor.back || more)) page.previous = cursor_beside(page.rows.front(), true);
  return page;
}

}  // namespace calotype::store
