// Lines: tqdm 4.70 format_meter(), tools/reference/tqdm_bars.py.
#include "worker/tqdm.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "support/golden.h"

namespace calotype::worker {
namespace {

TEST(TqdmLine, IsWhatTqdmWrites) {
  const auto rows = nlohmann::json::parse(base::read_file(test::golden_path("tqdm.json"), 100'000));
  ASSERT_GT(rows.size(), 10u);
  for (const auto& row : rows)
    EXPECT_EQ(tqdm_line(row["done"], row["total"], row["elapsed"], row["postfix"], row["initial"]),
              row["line"].get<std::string>());
}

}  // namespace
}  // namespace calotype::worker
