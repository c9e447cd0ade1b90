#include "hub/hub_names.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "hub/model_card.h"

namespace calotype::hub {
namespace {

TEST(HubNames, TakesRepositoriesAsTheHubDoes) {
  for (const char* name : {"black-forest-labs/FLUX.1-schnell", "a/b", "me/flux_mine-2.0"})
    EXPECT_NO_THROW(check_repo_name(name));
  for (const char* name : {"", "flux", "/flux", "a/", "a/b/c", "../b", "a/..", "-a/b", "a/b-", "a/.b", "a/b c", "a/b?x",
                           "a/b#x", "a\\b", "a/b\n", "a/é", "a/b..c", "https://huggingface.co/a/b"})
    EXPECT_THROW(check_repo_name(name), base::Error) << name;
  EXPECT_THROW(check_repo_name("a/" + std::string(97, 'x')), base::Error);
}

TEST(HubNames, RefusesNamesThatLeadAstray) {
  for (const char* name : {"a", "a/b.safetensors", "text_encoder/model-00001-of-00002.safetensors", "a..b/c",
                           "…/é 日本", ".gitattributes", "a b", "%2e%2e/x"})
    EXPECT_EQ(file_name_problem(name), "") << name;
  for (const char* name :
       {"", "/etc/passwd", "..", "../x", "a/../b", "a/..", "./a", "a/./b", "a//b", "a/", "a\\..\\b", "..\\x", "C:\\x",
        "a\nb", "a\x01", ".git/hooks/post-checkout", "a/.GIT/config", "\xff\xfe", "\xc0\xae\xc0\xae/x"})
    EXPECT_NE(file_name_problem(name), "") << name;
  EXPECT_NE(file_name_problem(std::string_view("a\0b", 3)), "");
  EXPECT_NE(file_name_problem(std::string(300, 'x')), "");
  std::string deep;
  for (int i = 0; i < 1000; ++i) deep += "a/";
  EXPECT_NE(file_name_problem(deep + "a"), "");
}

// As huggingface_hub's filter_repo_objects: fnmatch, in which "*" also matches "/".
TEST(HubNames, MatchesPatternsLikeTheOfficialClient) {
  EXPECT_TRUE(matches_any({"*.json"}, "vae/config.json"));
  EXPECT_TRUE(matches_any({"vae/"}, "vae/a/b.json"));
  EXPECT_TRUE(matches_any({"x", "vae/c?nfig.[jk]son"}, "vae/config.json"));
  EXPECT_FALSE(matches_any({"config.json"}, "vae/config.json"));
  EXPECT_FALSE(matches_any({}, "a"));
}

// The head of black-forest-labs/FLUX.1-dev's card.
TEST(ModelCard, StatesTheLicence) {
  const Licence licence = licence_of_card(
      "---\nlanguage:\n- en\nlicense: other\nlicense_name: flux-1-dev-non-commercial-license\nlicense_link: "
      "LICENSE.md\n"
      "extra_gated_prompt: By clicking \"Agree\", you agree to the terms: all\ntags:\n- text-to-image\n---\n\nlicense: "
      "mit\n");
  EXPECT_EQ(licence.id, "other");
  EXPECT_EQ(licence.title(), "flux-1-dev-non-commercial-license");
  EXPECT_EQ(licence.link, "LICENSE.md");
}

TEST(ModelCard, ReadsTheYamlThatPeopleWrite) {
  EXPECT_EQ(licence_of_card("\xEF\xBB\xBF---\r\nlicense: \"apache-2.0\"  \r\n---\r\n").title(), "apache-2.0");
  EXPECT_EQ(licence_of_card("---\nlicense: mit # really\n---\n").title(), "mit");
  EXPECT_EQ(licence_of_card("---\nlicense:\n- mit\n- other\n---\n").title(), "mit");
  EXPECT_EQ(licence_of_card("---\nbase_model: [a/b, c/d]\n---\n").base_model, "a/b");
  EXPECT_EQ(licence_of_card("---\nbase_model:\n  - a/b\nlicense: 'x y'\n---\n").base_model, "a/b");
  EXPECT_EQ(licence_of_card("---\nnested:\n  license: wrong\n---\n").title(), "");
  EXPECT_EQ(licence_of_card("# no block\nlicense: mit\n").title(), "");
  EXPECT_EQ(licence_of_card("---\nlicense: mit\n").title(), "");  // never closed
  EXPECT_EQ(licence_of_card("").title(), "");
  EXPECT_EQ(licence_of_card("---\nlicense: a\x1b[31mb\n---\n").title(), "a\\x1b[31mb");
}

}  // namespace
}  // namespace calotype::hub
