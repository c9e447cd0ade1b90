// Databases for tests: a fresh SQLite file, or a fresh database in a PostgreSQL server that the tests start themselves
// (Debian: postgresql). Without PostgreSQL its half is skipped, unless $CALOTYPE_REQUIRE_POSTGRES is set.
//
//   class JobStoreTest : public OnEveryDatabase {};
//   TEST_P(JobStoreTest, …) { Store store = open(); … }
//   CALOTYPE_ON_EVERY_DATABASE(JobStoreTest);
#pragma once

#include <gtest/gtest.h>

#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>

#include "base/error.h"
#include "store/store.h"
#include "support/golden.h"

namespace calotype::test {

/// URL of a new, empty database in the tests' PostgreSQL server; "" when there is no PostgreSQL.
std::string new_postgres_database();

class OnEveryDatabase : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override;
  /// Opens the test's store; every call gives another connection to the same one.
  store::Store open() const { return store::Store::open(options_); }

  TemporaryFolder folder_;
  store::StoreOptions options_;
};

#define CALOTYPE_ON_EVERY_DATABASE(suite)                                           \
  INSTANTIATE_TEST_SUITE_P(Databases, suite, testing::Values("sqlite", "postgres"), \
                           [](const auto& test) { return test.param; })

/// Runs `work` in a process of its own and gives its id. Nothing may have the store open at this moment: connections
/// and SQLite's locks do not survive a fork.
pid_t in_new_process(const std::function<void()>& work);
/// Waits; true when the process ended well (`work` returned).
bool ended_well(pid_t process);

/// The kind of error that `work` throws, nothing if none.
std::optional<base::ErrorKind> error_of(const std::function<void()>& work);

}  // namespace calotype::test
