#include "store/file_store.h"

#include <sys/stat.h>
#include <utime.h>

#include <fstream>
#include <sstream>
#include <thread>

#include "support/stores.h"

namespace calotype::store {
namespace {

namespace fs = std::filesystem;
using base::ErrorKind;
using test::error_of;

class FileStoreTest : public test::OnEveryDatabase {
 protected:
  size_t files_on_disk() const {
    size_t count = 0;
    for (const auto& entry : fs::recursive_directory_iterator(options_.data / "files"))
      count += entry.is_regular_file();
    return count;
  }
};
CALOTYPE_ON_EVERY_DATABASE(FileStoreTest);

std::string read_all(std::istream& in) { return {std::istreambuf_iterator<char>(in), {}}; }

TEST_P(FileStoreTest, KeepsBytesAndWhatIsKnown) {
  Store store = open();
  FileStore& files = *store.files;
  const StoredFile made = files.put({.name = "bücher.txt",
                                     .content_type = "text/plain; charset=utf-8",
                                     .purpose = FilePurpose::output,
                                     .job = "job1",
                                     .metadata = {{"a", 1}}},
                                    "abc");
  // FIPS 180-2 and RFC 1321 give these digests of "abc".
  EXPECT_EQ(made.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(made.md5, "900150983cd24fb0d6963f7d28e17f72");
  EXPECT_GE(made.token.size(), 22u);
  const StoredFile file = *open().files->find(made.id);
  EXPECT_EQ(file.name, "bücher.txt");
  EXPECT_EQ(file.content_type, "text/plain; charset=utf-8");
  EXPECT_EQ(file.size, 3u);
  EXPECT_EQ(file.metadata, (Json{{"a", 1}}));
  EXPECT_EQ(file.purpose, FilePurpose::output);
  EXPECT_EQ(file.job, "job1");
  EXPECT_FALSE(file.expires_at);
  EXPECT_EQ(files.find_by_token(made.token)->id, made.id);
  EXPECT_FALSE(files.find_by_token("") || files.find_by_token(made.id) || files.find(made.token));
  EXPECT_EQ(read_all(*files.open(made.id)), "abc");
  EXPECT_EQ(read_all(*files.open(made.id, 2)), "c");
  EXPECT_EQ(read_all(*files.open(made.id, 3)), "");
  EXPECT_EQ(error_of([&] { files.open(made.id, 4); }), ErrorKind::bad_input);
  std::ifstream local(files.local_path(made.id));
  EXPECT_EQ(read_all(local), "abc");
  files.remove(made.id);
  files.remove(made.id);
  EXPECT_EQ(error_of([&] { files.open(made.id); }), ErrorKind::not_found);
  EXPECT_EQ(files_on_disk(), 0u);
}

TEST_P(FileStoreTest, StreamsLargeFiles) {
  Store store = open();
  const fs::path path = folder_ / "large.bin";
  {
    std::ofstream out(path);
    for (int i = 0; i < 2'000'000; ++i) out << i << "\n";
  }
  const StoredFile file = store.files->put_file({.name = "large.bin"}, path);
  EXPECT_EQ(file.size, fs::file_size(path));
  std::ifstream original(path);
  EXPECT_EQ(read_all(*store.files->open(file.id)), read_all(original));
  EXPECT_EQ(error_of([&] { store.files->put_file({}, folder_ / "none"); }), ErrorKind::not_found);
  EXPECT_EQ(error_of([&] { store.files->put_file({}, folder_.path()); }), ErrorKind::not_found);
}

TEST_P(FileStoreTest, HostileNamesStayInside) {
  Store store = open();
  const auto name_of = [&](const std::string& name) { return store.files->put({.name = name}, "x").name; };
  EXPECT_EQ(name_of("../../etc/passwd"), "passwd");
  EXPECT_EQ(name_of("C:\\Users\\me\\cat.png"), "cat.png");
  EXPECT_EQ(name_of(".."), "file");
  EXPECT_EQ(name_of(""), "file");
  EXPECT_EQ(name_of("a/"), "file");
  EXPECT_EQ(name_of("a\r\nSet-Cookie: b=\"c\""), "a__Set-Cookie: b=_c_");
  EXPECT_EQ(name_of("\xff.png"), "\uFFFD.png");
  const std::string long_name = name_of(std::string(1000, 'a') + "é.safetensors");
  EXPECT_LE(long_name.size(), 200u);
  EXPECT_TRUE(long_name.ends_with("é.safetensors"));
  const auto type_of = [&](const std::string& type) {
    return store.files->put({.content_type = type}, "x").content_type;
  };
  EXPECT_EQ(type_of("image/webp"), "image/webp");
  for (const char* type : {"", "text", "text/html\r\nX: y", "a/b/c", "/", "<script>/x", "text/"})
    EXPECT_EQ(type_of(type), "application/octet-stream") << type;
  for (const char* id : {"../secret.key", "..", "", "/etc/passwd", "a'b"})
    EXPECT_EQ(error_of([&] { store.files->open(id); }), ErrorKind::not_found) << id;
}

TEST_P(FileStoreTest, LimitsLeaveNothingBehind) {
  options_.file_options.quota = 1000;
  Store store = open();
  FileStore& files = *store.files;
  EXPECT_EQ(error_of([&] { files.put({.max_bytes = 10}, std::string(11, 'x')); }), ErrorKind::bad_input);
  files.put({.max_bytes = 10}, std::string(10, 'x'));
  EXPECT_EQ(error_of([&] { files.put({}, std::string(991, 'x')); }), ErrorKind::disk_full);
  EXPECT_EQ(files_on_disk(), 1u);
  files.check_room();
  const StoredFile last = files.put({}, std::string(990, 'x'));
  EXPECT_EQ(error_of([&] { files.check_room(); }), ErrorKind::disk_full);
  EXPECT_EQ(error_of([&] { files.put({}, "x"); }), ErrorKind::disk_full);
  files.put({.purpose = FilePurpose::output}, "results of accepted work are kept");
  EXPECT_EQ(files.usage().bytes, 1033u);
  EXPECT_EQ(files.usage().files, 3u);
  files.remove(last.id);
  files.check_room();
  files.put({}, "x");
}

TEST_P(FileStoreTest, ADiskThatIsNearlyFullTakesNoUploads) {
  options_.file_options.keep_free = UINT64_MAX - 1;
  Store store = open();
  EXPECT_EQ(error_of([&] { store.files->check_room(); }), ErrorKind::disk_full);
  EXPECT_EQ(error_of([&] { store.files->put({}, "x"); }), ErrorKind::disk_full);
  store.files->put({.purpose = FilePurpose::weights}, "x");
}

// A stream that breaks, like an upload whose connection is lost.
struct BrokenStream : std::streambuf {
  char block[100] = {};
  int blocks = 0;
  int_type underflow() override {
    if (++blocks > 3) throw std::runtime_error("connection lost");
    setg(block, block, block + sizeof block);
    return 0;
  }
};

TEST_P(FileStoreTest, BrokenUploadsLeaveNothingBehind) {
  Store store = open();
  BrokenStream broken;
  std::istream in(&broken);
  EXPECT_EQ(error_of([&] { store.files->put({}, in); }), ErrorKind::bad_input);
  EXPECT_EQ(files_on_disk(), 0u);
  EXPECT_TRUE(store.files->list(FilePurpose::upload).items.empty());
}

TEST_P(FileStoreTest, ExpiredFilesGoAway) {
  Store store = open();
  FileStore& files = *store.files;
  const StoredFile kept = files.put({}, "kept"), old = files.put({.expires_at = now() + kSecond / 10}, "old");
  EXPECT_TRUE(files.find(old.id));
  std::this_thread::sleep_for(std::chrono::milliseconds(120));
  EXPECT_FALSE(files.find(old.id) || files.find_by_token(old.token));
  EXPECT_EQ(files.list(FilePurpose::upload).items.size(), 1u);
  EXPECT_EQ(files.expire(now()), 1);
  EXPECT_EQ(files_on_disk(), 1u);
  EXPECT_TRUE(files.find(kept.id));
}

// What a killed process leaves: bytes without a row, temporary files. Fresh ones may belong to an upload under way.
TEST_P(FileStoreTest, LeftoversAreSwept) {
  const fs::path orphan = options_.data / "files/ab/abcdef", partial = options_.data / "files/ab/x.partial-123456",
                 fresh = options_.data / "files/ab/abfresh";
  Store store = open();
  const StoredFile kept = store.files->put({}, "kept");
  fs::create_directories(orphan.parent_path());
  const fs::path kept_path = store.files->local_path(kept.id);
  for (const fs::path& path : {orphan, partial, fresh}) std::ofstream(path) << "x";
  const utimbuf two_days_ago{.actime = ::time(nullptr) - 2 * 86'400, .modtime = ::time(nullptr) - 2 * 86'400};
  for (const fs::path& path : {orphan, partial, kept_path}) ASSERT_EQ(::utime(path.c_str(), &two_days_ago), 0);
  EXPECT_EQ(store.files->expire(now()), 0);
  EXPECT_FALSE(fs::exists(orphan) || fs::exists(partial));
  EXPECT_TRUE(fs::exists(fresh) && fs::exists(kept_path));
}

TEST_P(FileStoreTest, PreviewsGoWithTheirJob) {
  Store store = open();
  FileStore& files = *store.files;
  for (const char* job : {"a", "a", "b", ""}) files.put({.purpose = FilePurpose::preview, .job = job}, "x");
  files.put({.purpose = FilePurpose::output, .job = "a"}, "x");
  files.expire_of_job("a", FilePurpose::preview, now() + kSecond);  // who was told of one gets it even now
  EXPECT_EQ(files.list(FilePurpose::preview).items.size(), 4u);
  files.expire_of_job("a", FilePurpose::preview, now());
  files.expire_of_job("", FilePurpose::preview, now());
  EXPECT_EQ(files.list(FilePurpose::preview).items.size(), 2u);
  EXPECT_EQ(files.list(FilePurpose::output).items.size(), 1u);
}

TEST_P(FileStoreTest, ManyAtOnce) {
  Store store = open();
  std::vector<std::thread> threads;
  for (int t = 0; t < 6; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 10; ++i) {
        const std::string bytes(1000 * static_cast<size_t>(i), static_cast<char>('a' + t));
        EXPECT_EQ(read_all(*store.files->open(store.files->put({}, bytes).id)), bytes);
      }
    });
  for (std::thread& thread : threads) thread.join();
  Page<StoredFile> page = store.files->list(FilePurpose::upload, {.limit = 50});
  EXPECT_EQ(page.items.size(), 50u);
  EXPECT_EQ(store.files->list(FilePurpose::upload, {.cursor = page.next}).items.size(), 10u);
}

TEST(FileStoreUrl, IsChecked) {
  test::TemporaryFolder folder;
  const auto database = Database::open("sqlite:" + (folder / "a.db").string());
  for (const char* url : {"", "ftp://host/x", "file://"})
    EXPECT_EQ(error_of([&] { FileStore(database, url); }), ErrorKind::bad_input) << url;
  std::ofstream(folder / "file") << "x";
  EXPECT_EQ(error_of([&] { FileStore(database, (folder / "file").string()); }), ErrorKind::bad_input);
  FileStore(database, "file://" + (folder / "ok").string());
  struct stat status {};
  ASSERT_EQ(::stat((folder / "ok").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0077, 0u);
}

}  // namespace
}  // namespace calotype::store
