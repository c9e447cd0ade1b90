#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <thread>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/sha256.h"
#include "hub/http_client.h"
#include "hub/hub_server.h"
#include "support/golden.h"

namespace calotype::hub {
namespace {

namespace fs = std::filesystem;
using base::ErrorKind;
using test::HubServer;
using test::TemporaryFolder;
using namespace std::chrono_literals;

constexpr int kBytes = 200'000;

class Download : public ::testing::Test {
 protected:
  Download() {
    for (int i = 0; i < kBytes; ++i) bytes_ += static_cast<char>(i & 255);
    sha256_ = base::sha256_hex(bytes_);
  }
  std::string url() const { return server_.url(fmt::format("/test/bytes/{}", kBytes)); }
  HttpResponse fetch(DownloadOptions options = {}) {
    options.pause = 1ms;
    return download({.url = url()}, folder_ / "file", options);
  }
  ErrorKind kind_of(DownloadOptions options) {
    try {
      fetch(std::move(options));
    } catch (const base::Error& error) {
      message_ = error.what();
      return error.kind();
    }
    ADD_FAILURE() << "no error";
    return ErrorKind::internal;
  }
  std::string content() const { return base::read_file(folder_ / "file", kBytes + 1); }
  /// The Range headers of all requests so far, "-" for none.
  std::vector<std::string> ranges() const {
    std::vector<std::string> out;
    for (const auto& entry : server_.log("/test/bytes")) out.push_back(entry["headers"].value("range", "-"));
    return out;
  }

  HubServer server_;
  TemporaryFolder folder_;
  std::string bytes_, sha256_, message_;
};

TEST_F(Download, WritesTheFileWhole) {
  uint64_t last = 0;
  const HttpResponse answer =
      fetch({.sha256 = sha256_, .size = kBytes, .on_progress = [&](uint64_t done, uint64_t) { last = done; }});
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(content(), bytes_);
  EXPECT_EQ(last, static_cast<uint64_t>(kBytes));
  EXPECT_FALSE(fs::exists(folder_ / "file.part"));
}

TEST_F(Download, GoesOnAfterCutConnections) {
  server_.control({{"cuts", 3}, {"cut_after", 50'000}});
  fetch();
  EXPECT_EQ(content(), bytes_);
  EXPECT_EQ(ranges(), (std::vector<std::string>{"-", "bytes=50000-", "bytes=100000-", "bytes=150000-"}));
}

TEST_F(Download, BeginsAnewWhereRangesAreNotServed) {
  server_.control({{"cuts", 1}, {"cut_after", 50'000}, {"no_range", true}});
  fetch({.sha256 = sha256_});
  EXPECT_EQ(content(), bytes_);
}

TEST_F(Download, GoesOnWhereAnotherProcessStopped) {
  base::write_file(folder_ / "file.part", bytes_.substr(0, 123'456));
  fetch({.sha256 = sha256_});
  EXPECT_EQ(content(), bytes_);
  EXPECT_EQ(ranges(), std::vector<std::string>{"bytes=123456-"});
}

TEST_F(Download, TrustsOldBytesOnlyWithAChecksum) {
  base::write_file(folder_ / "file.part", "something else");
  fetch();
  EXPECT_EQ(content(), bytes_);
  EXPECT_EQ(ranges(), std::vector<std::string>{"-"});
}

TEST_F(Download, ThrowsAwayOldBytesThatDoNotFit) {
  for (const std::string& old : {std::string(100'000, 'x'), std::string(kBytes, 'x'), std::string(kBytes + 10, 'x')}) {
    base::write_file(folder_ / "file.part", old);
    fetch({.sha256 = sha256_, .size = kBytes});
    EXPECT_EQ(content(), bytes_);
    base::write_file(folder_ / "file.part", old);
    fetch({.sha256 = sha256_});
    EXPECT_EQ(content(), bytes_);
  }
}

TEST_F(Download, UsesACompletePartWithoutAsking) {
  base::write_file(folder_ / "file.part", bytes_);
  fetch({.sha256 = sha256_, .size = kBytes});
  EXPECT_EQ(content(), bytes_);
  EXPECT_TRUE(ranges().empty());
}

TEST_F(Download, RefusesDamage) {
  server_.control({{"corrupt", true}});
  EXPECT_EQ(kind_of({.sha256 = sha256_}), ErrorKind::corrupt_file);
  EXPECT_NE(message_.find(sha256_), std::string::npos) << message_;
  EXPECT_FALSE(fs::exists(folder_ / "file"));
  EXPECT_FALSE(fs::exists(folder_ / "file.part"));
  server_.control({{"corrupt", false}});
  EXPECT_EQ(kind_of({.size = kBytes - 1}), ErrorKind::corrupt_file);
  EXPECT_EQ(kind_of({.size = kBytes + 1}), ErrorKind::corrupt_file);
  EXPECT_FALSE(fs::exists(folder_ / "file"));
}

TEST_F(Download, KeepsWhatItHasWhenItGivesUp) {
  server_.control({{"cuts", 100}, {"cut_after", 0}});
  base::write_file(folder_ / "file.part", bytes_.substr(0, 1000));
  EXPECT_EQ(kind_of({.sha256 = sha256_, .attempts = 3}), ErrorKind::not_found);
  EXPECT_EQ(ranges().size(), 3u);
  EXPECT_EQ(base::read_file(folder_ / "file.part", 2000), bytes_.substr(0, 1000));
}

TEST_F(Download, TriesAgainWhenTheServerIsBusy) {
  server_.control({{"busy", 2}});
  EXPECT_EQ(fetch().status, 200);
  EXPECT_EQ(content(), bytes_);
  server_.control({{"busy", 50}});
  EXPECT_EQ(fetch({.attempts = 2}).status, 503);
}

TEST_F(Download, ReturnsRefusalsWithTheirText) {
  const HttpResponse answer = download({.url = server_.url("/test/echo?status=403")}, folder_ / "file");
  EXPECT_EQ(answer.status, 403);
  EXPECT_NE(answer.body.find("GET"), std::string::npos);
  EXPECT_FALSE(fs::exists(folder_ / "file"));
  EXPECT_FALSE(fs::exists(folder_ / "file.part"));
}

TEST_F(Download, BoundsEndlessAnswers) {
  try {
    download({.url = server_.url("/test/endless"), .max_bytes = 1 << 20}, folder_ / "file");
    ADD_FAILURE();
  } catch (const base::Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_input);
  }
  EXPECT_LE(fs::file_size(folder_ / "file.part"), 1u << 20);
}

TEST_F(Download, OneProcessAtATime) {
  const int other = ::open((folder_ / "file.part").c_str(), O_RDWR | O_CREAT, 0666);
  ASSERT_EQ(::flock(other, LOCK_EX), 0);
  EXPECT_EQ(kind_of({}), ErrorKind::conflict);
  ::close(other);
  EXPECT_EQ(fetch().status, 200);
}

TEST_F(Download, DoesNotWriteThroughLinks) {
  base::write_file(folder_ / "victim", "precious");
  fs::create_symlink(folder_ / "victim", folder_ / "file.part");
  EXPECT_NE(kind_of({}), ErrorKind::canceled);
  EXPECT_EQ(base::read_file(folder_ / "victim", 100), "precious");
}

TEST_F(Download, FetchesEmptyFiles) {
  EXPECT_EQ(download({.url = server_.url("/test/bytes/0")}, folder_ / "file", {.sha256 = base::sha256_hex("")}).status,
            200);
  EXPECT_EQ(content(), "");
}

}  // namespace
}  // namespace calotype::hub
