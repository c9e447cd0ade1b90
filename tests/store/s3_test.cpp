// Files in an S3-compatible store: moto, a stand-in from PyPI (tools/test_clients), in a process of its own. Skipped
// without it, unless $CALOTYPE_REQUIRE_S3 is set. Signatures have tests of their own
// (tests/hub/signature_test.cpp).
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "hub/http_client.h"
#include "store/content_hash.h"
#include "support/stores.h"

namespace calotype::store {
namespace {

namespace fs = std::filesystem;
using base::ErrorKind;
using test::error_of;

int free_port() {
  const int descriptor = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{.sin_family = AF_INET, .sin_port = 0, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof address;
  const bool ok = ::bind(descriptor, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                  ::getsockname(descriptor, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  ::close(descriptor);
  return ok ? ntohs(address.sin_port) : 0;
}

class S3Test : public testing::Test {
 protected:
  void SetUp() override {
    const std::string python = test::python_with("moto.server");
    if (python.empty() && std::getenv("CALOTYPE_REQUIRE_S3")) FAIL() << "no moto: run tools/test_clients";
    if (python.empty()) GTEST_SKIP() << "no moto: run tools/test_clients";
    const int port = free_port();
    endpoint_ = fmt::format("http://127.0.0.1:{}", port);
    server_ = ::fork();
    if (server_ == 0) {
      const int log = ::open((folder_ / "moto.log").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
      ::dup2(log, 1);
      ::dup2(log, 2);
      ::execlp(python.c_str(), python.c_str(), "-m", "moto.server", "-H", "127.0.0.1", "-p",
               std::to_string(port).c_str(), nullptr);
      ::_exit(127);
    }
    ::setenv("AWS_ACCESS_KEY_ID", "key", 1);
    ::setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
    for (int i = 0; i < 300 && !make_bucket(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  void TearDown() override {
    if (server_ <= 0) return;
    ::kill(server_, SIGKILL);
    ::waitpid(server_, nullptr, 0);
  }
  bool make_bucket() {
    try {
      return hub::send({.method = "PUT", .url = endpoint_ + "/pictures", .aws = hub::AwsKey{"key", "secret"}}).ok();
    } catch (const base::Error&) {  // not listening yet
      return false;
    }
  }
  /// The same store as another machine sees it: its own cache.
  Store open(const std::string& machine) {
    return Store::open({.data = folder_ / "data",
                        .files = "s3://pictures/all?endpoint=" + endpoint_,
                        .file_options = {.cache = folder_ / machine}});
  }
  std::string keys() {
    return hub::send({.url = endpoint_ + "/pictures?list-type=2", .aws = hub::AwsKey{"key", "secret"}}).body;
  }

  test::TemporaryFolder folder_;
  std::string endpoint_;
  pid_t server_ = -1;
};

std::string read_all(std::istream& in) { return {std::istreambuf_iterator<char>(in), {}}; }

TEST_F(S3Test, MachinesShareFiles) {
  Store one = open("one"), two = open("two");
  const StoredFile file = one.files->put({.name = "out-0.webp", .content_type = "image/webp"}, "picture");
  EXPECT_NE(keys().find("<Key>all/" + file.id.substr(0, 2) + "/" + file.id + "</Key>"), std::string::npos) << keys();
  EXPECT_EQ(read_all(*two.files->open(file.id, 3)), "ture");
  std::ifstream local(two.files->local_path(file.id));
  EXPECT_EQ(read_all(local), "picture");
  const StoredFile empty = one.files->put({}, "");
  EXPECT_EQ(read_all(*two.files->open(empty.id)), "");
  one.files->remove(file.id);
  EXPECT_EQ(keys().find(file.id), std::string::npos);
  EXPECT_EQ(error_of([&] { two.files->open(file.id); }), ErrorKind::not_found);
}

// Above 64 MiB files go up in parts.
TEST_F(S3Test, LargeFilesArriveWhole) {
  const fs::path path = folder_ / "large";
  {
    std::ofstream out(path, std::ios::binary);
    for (uint32_t i = 0; out.tellp() < (65 << 20); ++i) out.write(reinterpret_cast<const char*>(&i), 4);
  }
  const StoredFile file = open("one").files->put_file({.purpose = FilePurpose::weights}, path);
  EXPECT_NE(keys().find(fmt::format("<Size>{}</Size>", fs::file_size(path))), std::string::npos);
  std::ifstream copy(open("two").files->local_path(file.id), std::ios::binary);
  ContentHash hash;
  hash.update(read_all(copy));
  EXPECT_EQ(hash.sha256(), file.sha256);
}

TEST_F(S3Test, CacheIsTrimmed) {
  Store store = Store::open({.data = folder_ / "data",
                             .files = "s3://pictures/all?endpoint=" + endpoint_,
                             .file_options = {.cache = folder_ / "cache", .cache_limit = 1500}});
  const StoredFile first = store.files->put({}, std::string(1000, 'a'));
  store.files->put({}, std::string(1000, 'b'));
  EXPECT_EQ(store.files->expire(now()), 0);
  size_t copies = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder_ / "cache")) copies += entry.is_regular_file();
  EXPECT_EQ(copies, 1u);
  EXPECT_EQ(read_all(*store.files->open(first.id)), std::string(1000, 'a'));
}

TEST_F(S3Test, SaysWhatIsWrong) {
  const auto open_with = [&](const std::string& url) {
    Store::open({.data = folder_ / "data", .files = url, .file_options = {.cache = folder_ / "c"}}).files->put({}, "x");
  };
  EXPECT_EQ(error_of([&] { open_with("s3://none?endpoint=" + endpoint_); }), ErrorKind::not_found);
  EXPECT_EQ(error_of([&] { open_with("s3://?endpoint=" + endpoint_); }), ErrorKind::bad_input);
  EXPECT_EQ(error_of([&] { open_with("s3://b?endpont=" + endpoint_); }), ErrorKind::bad_input);
  ::unsetenv("AWS_SECRET_ACCESS_KEY");
  EXPECT_EQ(error_of([&] { open_with("s3://pictures?endpoint=" + endpoint_); }), ErrorKind::bad_input);
}

}  // namespace
}  // namespace calotype::store
