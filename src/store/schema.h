// The tables, and how older ones become them. Only src/store includes this.
#pragma once

#include "store/sql.h"

namespace calotype::store {

/// Inside a transaction. Error conflict when the tables are newer than this program.
void bring_up_to_date(Session& session);

}  // namespace calotype::store
