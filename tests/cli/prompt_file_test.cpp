#include "cli/prompt_file.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace calotype::cli {
namespace {

using Prompts = std::vector<std::string>;

/// Message of the bad_input that these bytes cause.
std::string refusal(std::string_view bytes) {
  try {
    parse_prompts(bytes, "prompts.txt");
  } catch (const base::Error& error) {
    EXPECT_EQ(base::name(error.kind()), "bad_input");
    EXPECT_EQ(std::string_view(error.what()).substr(0, 13), "prompts.txt: ");
    return error.what();
  }
  ADD_FAILURE() << "accepted";
  return "";
}

void expect_refusal(std::string_view bytes, const std::vector<std::string>& words) {
  const std::string message = refusal(bytes);
  for (const std::string& word : words) EXPECT_NE(message.find(word), std::string::npos) << message;
}

TEST(PromptFile, TakesOnePromptALine) {
  EXPECT_EQ(parse_prompts("a cat\na dog", "p"), (Prompts{"a cat", "a dog"}));
  EXPECT_EQ(parse_prompts("\xEF\xBB\xBF"
                          "a cat\r\n\r\n \t \r\na dog\r\n",
                          "p"),
            (Prompts{"a cat", "a dog"}));
  EXPECT_EQ(parse_prompts("  indented \n", "p"), Prompts{"  indented "});
}

TEST(PromptFile, LeavesPromptsAsTheyAre) {
  for (const std::string& prompt :
       {std::string("don’t ½ 猫 👩🏽‍🚀"), std::string("<lora:x:1> --steps 3 # no comment"),
        std::string("nul \0 and \x1b", 11), std::string("\u2028\u0085\v\f one"), std::string("a\rb")})
    EXPECT_EQ(parse_prompts(prompt + "\n", "p"), Prompts{prompt});
}

TEST(PromptFile, NamesTheBrokenLine) {
  expect_refusal("one\ntwo\ncaf\xE9\n", {"line 3", "UTF-8", "byte 4", "0xe9"});
  expect_refusal("\xEF\xBB\xBF\r\n\r\n\xED\xA0\x80", {"line 3", "UTF-8", "byte 1"});
  expect_refusal(std::string_view("\xFF\xFE"
                                  "a\0\n\0",
                                  6),
                 {"line 1", "UTF-16", "save the file as UTF-8"});
  expect_refusal(std::string_view("\xFE\xFF\0a", 4), {"UTF-16"});
}

TEST(PromptFile, RefusesFilesWithoutPrompts) {
  for (const std::string_view empty : {"", "\n\n", " \t\r\n", "\xEF\xBB\xBF"}) expect_refusal(empty, {"no prompt"});
}

TEST(PromptFile, HasLimits) {
  std::string most;
  for (size_t i = 0; i < kMaxPrompts; ++i) most += "a\n";
  EXPECT_EQ(parse_prompts(most + "\n\n", "p").size(), kMaxPrompts);
  expect_refusal(most + "\na", {"line 10002", "at most 10000"});
  EXPECT_EQ(parse_prompts(std::string(kMaxPromptFileBytes, 'a'), "p").front().size(), kMaxPromptFileBytes);
  expect_refusal(std::string(kMaxPromptFileBytes + 1, 'a'), {"16777217 bytes", "at most 16777216"});
}

}  // namespace
}  // namespace calotype::cli
