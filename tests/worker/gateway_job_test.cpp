// The gateway against a stand-in for BFL's API. Bodies: docs.bfl.ai.
#include "worker/gateway_job.h"

#include <atomic>

#include "base/base64.h"
#include "worker/jobs.h"
#include "worker/loopback.h"

namespace calotype::worker {
namespace {

constexpr const char* kPro = "black-forest-labs/flux-1.1-pro";

class GatewayJob : public WorkerTest {
 protected:
  test::Reply answer(const test::Asked& asked) {
    if (asked.target != "/sample.png" && asked.headers.at("x-key") != "bfl_key")
      return {.status = 403, .body = R"({"detail": "Not authenticated"})"};
    if (asked.target == "/v1/flux-pro-1.1") {
      if (Json::parse(asked.body)["prompt"] == "bad")
        return {.status = 422, .body = R"({"detail": [{"loc": ["prompt"], "msg": "too bad", "type": "x"}]})"};
      return {.body = Json{{"id", "task 1"}, {"polling_url", "https://evil.example/v1/get_result?id=1"}}.dump()};
    }
    if (asked.target == "/v1/get_result?id=task%201") {
      if (moderated_) return {.body = R"({"id": "1", "status": "Content Moderated", "result": null})"};
      if (polls_++ < 2) return {.body = R"({"id": "1", "status": "Pending", "result": null, "progress": 0.5})"};
      return {
          .body =
              Json{{"id", "1"}, {"status", "Ready"}, {"result", {{"sample", server_.url("/sample.png")}, {"seed", 42}}}}
                  .dump()};
    }
    if (asked.target == "/sample.png") return {.body = disc(3), .content_type = "image/png"};
    return {.status = 404};
  }
  WorkerOptions with_key(const std::string& key) {
    WorkerOptions out = options();
    out.gateway = {.endpoint = server_.url(), .key = key, .poll = 10ms};
    return out;
  }

  std::atomic<int> polls_ = 0;
  std::atomic<bool> moderated_ = false;
  test::Loopback server_{[this](const test::Asked& asked) { return answer(asked); }};
};

TEST_F(GatewayJob, AsksPollsAndStoresTheOnePicture) {
  const Job job = run(create(kPro, {{"prompt", "a disc"},
                                    {"aspect_ratio", "16:9"},
                                    {"seed", 42},
                                    {"image_prompt", "data:image/png;base64," + base::base64(disc(1))},
                                    {"output_format", "jpg"}}),
                      with_key("bfl_key"));
  ASSERT_EQ(job.status, JobStatus::succeeded) << job.error.value_or("");
  EXPECT_EQ(picture(job.output).width, 80);
  const std::string bytes = file_bytes(job.output);
  EXPECT_EQ(image::format_from_content(std::as_bytes(std::span(bytes))), image::Format::jpeg);
  const auto asked = server_.asked();
  ASSERT_EQ(asked.size(), 5u);
  EXPECT_EQ(Json::parse(asked[0].body), (Json{{"prompt", "a disc"},
                                              {"output_format", "png"},
                                              {"width", 1344},
                                              {"height", 768},
                                              {"seed", 42},
                                              {"safety_tolerance", 2},
                                              {"prompt_upsampling", false},
                                              {"image_prompt", base::base64(disc(1))}}));
  EXPECT_FALSE(asked.back().headers.contains("x-key"));  // the picture lies elsewhere
  EXPECT_EQ(job.logs.find("bfl_key"), std::string::npos);
}

TEST_F(GatewayJob, SaysWhyItFails) {
  const Json input = {{"prompt", "a disc"}};
  EXPECT_NE(run(create(kPro, input), with_key("")).error.value_or("").find("set BFL_API_KEY"), std::string::npos);
  EXPECT_TRUE(server_.asked().empty());
  EXPECT_NE(run(create(kPro, input), with_key("other")).error.value_or("").find("does not accept the key"),
            std::string::npos);
  EXPECT_NE(run(create(kPro, {{"prompt", "bad"}}), with_key("bfl_key")).error.value_or("").find("too bad"),
            std::string::npos);
  moderated_ = true;
  EXPECT_NE(run(create(kPro, input), with_key("bfl_key")).error.value_or("").find("Content Moderated"),
            std::string::npos);
}

TEST(GatewayRequest, UltraTakesTheRatioItself) {
  const ServedModel& ultra = *find_model("black-forest-labs/flux-1.1-pro-ultra");
  const Json body = gateway_request(ultra, with_defaults(ultra, {{"prompt", "x"}, {"raw", true}}), "");
  EXPECT_EQ(body["aspect_ratio"], "1:1");
  EXPECT_EQ(body["raw"], true);
  EXPECT_FALSE(body.contains("width"));
}

}  // namespace
}  // namespace calotype::worker
