// Pages of rows that stay put while rows arrive: keyset pagination over (a number, an id). Only src/store includes
// this.
#pragma once

#include <string>

#include "store/sql.h"

namespace calotype::store {

struct PageRequest {
  std::string columns;  ///< must include "page_key" (BIGINT) and "page_id" (TEXT, unique)
  std::string table;
  std::string key, id;  ///< SQL expressions of these two
  Conditions conditions = {};
  std::string cursor = "";  ///< "" = the first page
  int limit = 100;          ///< 1 to 1000
  bool ascending = false;   ///< largest key first
};

struct RowPage {
  Rows rows;
  std::string next, previous;  ///< cursors, "" = none
};

/// Error bad_input for a cursor or limit that is none.
RowPage read_page(Session& session, const PageRequest& request);

}  // namespace calotype::store
