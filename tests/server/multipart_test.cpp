#include "server/multipart.h"

#include <gtest/gtest.h>

#include <sstream>

#include "server/problem.h"

namespace calotype::server {
namespace {

std::string body_of(const MultipartPart& part) { return std::string(std::istreambuf_iterator<char>(*part.body), {}); }

// Bodies as curl 7.88, httpx 0.28 and undici (node 20) send them.
TEST(Multipart, ReadsFieldsAndFiles) {
  std::istringstream in(
      "--b\r\nContent-Disposition: form-data; name=\"metadata\"; filename=\"blob\"\r\nContent-Type: "
      "application/json\r\n\r\n{}\r\n"
      "--b\r\ncontent-disposition: form-data; name=\"content\"; filename=\"a \\\"b\\\".zip\"\r\n\r\nline\r\n--not the "
      "end\r\n\r\n"
      "--b--\r\n");
  MultipartReader reader(in, boundary_of("multipart/form-data; boundary=b"));
  auto part = reader.next();
  ASSERT_TRUE(part);
  EXPECT_EQ(part->name, "metadata");
  EXPECT_EQ(part->filename, "blob");
  EXPECT_EQ(part->content_type, "application/json");
  EXPECT_EQ(body_of(*part), "{}");
  part = reader.next();
  ASSERT_TRUE(part);
  EXPECT_EQ(part->name, "content");
  EXPECT_EQ(part->filename, "a \"b\".zip");
  EXPECT_EQ(body_of(*part), "line\r\n--not the end\r\n");
  EXPECT_FALSE(reader.next());
}

// A boundary that lies across the end of the window, at every distance.
TEST(Multipart, FindsBoundariesAcrossBlocks) {
  for (size_t size = (256 << 10) - 90; size < (256 << 10) + 10; ++size) {
    std::string content(size, 'x');
    content += "\r\n--boundar";  // nearly one
    std::istringstream in("--boundary\r\nContent-Disposition: form-data; name=content\r\n\r\n" + content +
                          "\r\n--boundary--");
    MultipartReader reader(in, "boundary");
    auto part = reader.next();
    ASSERT_TRUE(part);
    ASSERT_EQ(body_of(*part), content) << size;
    ASSERT_FALSE(reader.next());
  }
}

TEST(Multipart, SkipsWhatNobodyReads) {
  std::istringstream in("preamble\r\n--b\r\n\r\n" + std::string(1 << 20, 'y') +
                        "\r\n--b\r\nContent-Disposition: form-data; name=\"z\"\r\n\r\nlast\r\n--b--");
  MultipartReader reader(in, "b");
  ASSERT_TRUE(reader.next());
  auto part = reader.next();
  ASSERT_TRUE(part);
  EXPECT_EQ(part->name, "z");
  EXPECT_EQ(body_of(*part), "last");
}

TEST(Multipart, RefusesBrokenBodies) {
  const std::string whole = "--b\r\nContent-Disposition: form-data; name=\"z\"\r\n\r\nlast\r\n--b--";
  for (size_t size = 0; size < whole.size(); ++size) {  // an upload that ends early is never taken for a whole one
    std::istringstream in(whole.substr(0, size));
    EXPECT_THROW(
        {
          MultipartReader reader(in, "b");
          while (auto part = reader.next()) body_of(*part);
        },
        Problem)
        << size;
  }
  EXPECT_THROW(boundary_of("application/json"), Problem);
  EXPECT_THROW(boundary_of("multipart/form-data"), Problem);
  EXPECT_EQ(boundary_of("Multipart/Form-Data; charset=utf-8; boundary=\"a;b\""), "a;b");
  std::string many;
  for (int i = 0; i < 100; ++i) many += "--b\r\n\r\n\r\n";
  std::istringstream in(many + "--b--");
  MultipartReader reader(in, "b");
  EXPECT_THROW(while (reader.next()){}, Problem);
}

}  // namespace
}  // namespace calotype::server
