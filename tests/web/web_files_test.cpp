// What can be said about the page's files without a browser. tests/web/run tries them in one.
#include "web/web_files.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>

namespace calotype::web {
namespace {
namespace fs = std::filesystem;

const fs::path kFolder = fs::path(CALOTYPE_SOURCE_DIR) / "src" / "web";

std::set<std::string> page_files() {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(kFolder)) {
    const std::string ending = entry.path().extension();
    if (ending == ".html" || ending == ".css" || ending == ".js" || ending == ".svg")
      names.insert(entry.path().filename());
  }
  return names;
}

std::string text_of(const std::string& name) { return std::string(web_file(name).value().content); }

TEST(WebFiles, TheProgramCarriesTheFolder) {
  const auto names = page_files();
  ASSERT_TRUE(names.contains("index.html"));
  for (const std::string& name : names) {
    std::ifstream file(kFolder / name, std::ios::binary);
    std::stringstream bytes;
    bytes << file.rdbuf();
    ASSERT_TRUE(web_file(name)) << name;
    EXPECT_EQ(text_of(name), bytes.str()) << name;
  }
  EXPECT_FALSE(web_file("nothing.js"));
  EXPECT_FALSE(web_file("../web/index.html"));
}

TEST(WebFiles, TagsFollowTheContent) {
  std::set<std::string_view> tags;
  for (const std::string& name : page_files()) tags.insert(web_file(name)->tag);
  EXPECT_EQ(tags.size(), page_files().size());
}

TEST(WebFiles, EveryImportAndLinkLeadsToAFile) {
  const std::regex imports(R"re(["'](?:\./|/-/)([a-z_]+\.(?:js|css|svg))["'])re");
  for (const std::string& name : page_files()) {
    const std::string text = text_of(name);
    for (std::sregex_iterator match(text.begin(), text.end(), imports), end; match != end; ++match)
      EXPECT_TRUE(web_file((*match)[1].str())) << name << " asks for " << (*match)[1];
  }
}

// The server's Content-Security-Policy would stop these in the browser; here they are found before.
TEST(WebFiles, TextNeverBecomesMarkupAndNothingComesFromOutside) {
  const std::regex markup(R"(\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval|DOMParser)\b)");
  const std::regex outside(R"re((?:src|href|url|from|import)\s*[=(]?\s*["'](?:https?:)?//)re");
  for (const std::string& name : page_files()) {
    const std::string text = text_of(name);
    EXPECT_FALSE(std::regex_search(text, markup)) << name;
    EXPECT_FALSE(std::regex_search(text, outside)) << name;
  }
  const std::string page = text_of("index.html");
  EXPECT_FALSE(std::regex_search(page, std::regex(R"(<style|style=|\son[a-z]+=|<script(?![^>]*src=))")));
}

// A page loads at most 150 kB of them (tests/web/run measures that).
TEST(WebFiles, AreSmall) {
  size_t bytes = 0;
  for (const std::string& name : page_files()) bytes += web_file(name)->content.size();
  EXPECT_LE(bytes, 180'000u);
}

}  // namespace
}  // namespace calotype::web
