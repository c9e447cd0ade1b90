// Adapters by every kind of name, from a stand-in hub and a stand-in web server.
#include "worker/lora_sources.h"

#include <ATen/ATen.h>

#include <set>

#include "adapters/lora_file.h"
#include "base/base64.h"
#include "base/error.h"
#include "files/tar_writer.h"
#include "flux/flux_transformer.h"
#include "train/model_files.h"
#include "worker/jobs.h"
#include "worker/loopback.h"

namespace calotype::worker {
namespace {

class LoraSourcesTest : public WorkerTest {
 protected:
  LoraSourcesTest() {
    base::write_file(folder_ / "lora.safetensors", "safetensors, more or less");
    files::write_tar(folder_ / "one.tar", {{.name = "output/x/lora.safetensors", .file = folder_ / "lora.safetensors"},
                                           {.name = "output/x/config.yaml", .bytes = "a: 1\n"}});
    files::write_tar(folder_ / "two.tar",
                     {{.name = "a.safetensors", .bytes = "1"}, {.name = "b.safetensors", .bytes = "2"}});
    files::write_tar(folder_ / "none.tar", {{.name = "a.txt", .bytes = "1"}});
  }
  std::string bytes(const std::string& name) const { return base::read_file(folder_ / name, 1 << 20); }

  test::Reply answer(const test::Asked& asked) const {
    const std::string path = asked.target.substr(0, asked.target.find('?'));
    const auto authorization = asked.headers.find("authorization");
    const bool key = authorization != asked.headers.end() && authorization->second == "Bearer hf_key";
    if (path == "/api/models/some/style")
      return {.body = R"({"siblings": [{"rfilename": "README.md"}, {"rfilename": "style.safetensors"}]})"};
    if (path == "/api/models/some/many")
      return {.body = R"({"siblings": [{"rfilename": "a.safetensors"}, {"rfilename": "b.safetensors"}]})"};
    if (path == "/some/style/resolve/main/style.safetensors" || path == "/some/many/resolve/main/sub/b.safetensors")
      return {.status = 302, .location = "/cdn/lora.safetensors"};
    if (path == "/some/private/resolve/main/x.safetensors")
      return key ? test::Reply{.body = bytes("lora.safetensors")} : test::Reply{.status = 401};
    if (path == "/cdn/lora.safetensors") return {.body = bytes("lora.safetensors")};
    if (path == "/api/download/models/123") return {.body = bytes("lora.safetensors")};
    for (const char* name : {"one.tar", "two.tar", "none.tar"})
      if (path == std::string("/") + name) return {.body = bytes(name)};
    return {.status = 404};
  }

  std::string find(const std::string& source, const Secrets& secrets = {}) {
    const base::CancelToken never;
    return base::read_file(loras_.find(source, secrets, &never), 1 << 20);
  }
  std::string error(const std::string& source) {
    try {
      find(source);
    } catch (const base::Error& error) {
      return error.what();
    }
    return "no error";
  }

  test::Loopback web_{[this](const test::Asked& asked) { return answer(asked); }};
  InputFiles files_{store_, {.allow_private = true}};
  LoraSources loras_{store_, files_, {.hub = web_.url(), .civitai = web_.url()}};
  const std::string want_ = "safetensors, more or less";
};

TEST_F(LoraSourcesTest, EveryKindOfNameLeadsToTheFile) {
  const std::string tar = base::base64(bytes("one.tar"));
  const std::string id = upload("x.tar", bytes("one.tar"));
  for (const std::string& source :
       {std::string("some/style"), std::string("huggingface.co/some/style"),
        std::string("https://huggingface.co/some/style"), std::string("huggingface.co/some/style/style.safetensors"),
        std::string("https://huggingface.co/some/many/blob/main/sub/b.safetensors"),
        std::string("https://huggingface.co/some/many/resolve/main/sub/b.safetensors?download=true"),
        std::string("civitai.com/models/123/name"), std::string("https://civitai.com/api/download/models/123"),
        web_.url("/one.tar"), web_.url("/cdn/lora.safetensors?x=1"), "data:application/x-tar;base64," + tar,
        "http://other-name:5000/v1/files/" + id, "https://me.example/files/" + id + "/download"})
    EXPECT_EQ(find(source), want_) << source.substr(0, 60);
}

TEST_F(LoraSourcesTest, ASecondTimeNothingIsFetched) {
  find(web_.url("/one.tar"));
  find("civitai.com/models/123");
  const size_t before = web_.asked().size();
  find(web_.url("/one.tar"));
  find("civitai.com/models/123");
  EXPECT_EQ(web_.asked().size(), before);
}

TEST_F(LoraSourcesTest, KeysGoToTheirHostsOnly) {
  const Secrets secrets = {{"hf_api_token", "hf_key"}, {"civitai_api_token", "civ_key"}};
  EXPECT_EQ(find("huggingface.co/some/private/x.safetensors", secrets), want_);
  find("civitai.com/models/123", secrets);
  find(web_.url("/one.tar"), secrets);
  int civitai = 0;
  for (const test::Asked& asked : web_.asked()) {
    const std::string key = asked.headers.contains("authorization") ? asked.headers.at("authorization") : "";
    if (asked.target == "/one.tar") {
      EXPECT_EQ(key, "");
    }
    if (asked.target.starts_with("/api/download")) {
      EXPECT_EQ(key, "Bearer civ_key");
      ++civitai;
    }
  }
  EXPECT_EQ(civitai, 1);
  EXPECT_NE(error("huggingface.co/some/private/x.safetensors").find("status 401"), std::string::npos);
}

TEST_F(LoraSourcesTest, WhatCannotBeUsedIsNamed) {
  const std::pair<std::string, const char*> cases[] = {
      {web_.url("/two.tar"), "more than one .safetensors"},
      {web_.url("/none.tar"), "holds no .safetensors"},
      {web_.url("/missing.safetensors"), "status 404"},
      {"some/many", "holds 2 .safetensors files"},
      {"nobody/nothing", "nobody/nothing: neither a model of this server nor a repository"},
      {"https://replicate.com/who/what", "this server has no such model"},
      {"word", "expected OWNER/NAME"},
      {"../../etc/passwd", "expected huggingface.co/OWNER"},
      {"data:nothing", "no comma"},
      {"data:;base64,!!", "not valid base64"},
      {"file:///etc/passwd", "expected huggingface.co/OWNER"}};
  for (const auto& [source, words] : cases)
    EXPECT_NE(error(source).find(words), std::string::npos) << source << ": " << error(source);
}

TEST_F(LoraSourcesTest, UrlsOfUsersDoNotReachTheLocalNetwork) {
  InputFiles files(store_, {.allow_private = false});
  LoraSources guarded(store_, files, {.hub = web_.url(), .civitai = web_.url()});
  const base::CancelToken never;
  EXPECT_THROW(guarded.find(web_.url("/one.tar"), {}, &never), base::Error);
  EXPECT_TRUE(web_.asked().empty());
  EXPECT_NO_THROW(guarded.find("some/style", {}, &never));  // the operator's own hub
}

TEST_F(LoraSourcesTest, WhatShallBeSmallIsNotFetchedWhenItIsLarge) {
  try {
    files_.read(web_.url("/one.tar"), folder_ / "scratch", 100, nullptr);
    ADD_FAILURE() << "a file of some kilobytes was read";
  } catch (const base::Error& error) {
    EXPECT_NE(std::string(error.what()).find("at most 100 are accepted"), std::string::npos) << error.what();
  }
}

TEST_F(LoraSourcesTest, PredictionsSwitchAdaptersWithoutLoadingTheModelAgain) {
  const auto bundle = pipeline::open_bundle({.model = model()});
  const flux::FluxTransformer shapes(bundle.part(weights::Component::transformer), {.device = at::kMeta});
  for (const int seed : {1, 2}) {
    auto pairs =
        train::new_adapters(shapes.adapter_slots(), {.seed = static_cast<uint64_t>(seed), .rank = 4}, at::kCPU);
    for (auto& pair : pairs) {
      pair.down_RI = pair.down_RI.detach();
      pair.up_OR = at::ones_like(pair.up_OR) * 0.05 * seed;
    }
    adapters::write_adapter(folder_ / fmt::format("l{}.safetensors", seed), pairs, {}, at::kFloat);
  }
  const std::string one = upload("l1", bytes("l1.safetensors")), two = upload("l2", bytes("l2.safetensors"));
  const auto job = [&](const Json& more) {
    Json input = {{"prompt", "x"}, {"seed", 5}, {"num_inference_steps", 2}, {"output_format", "png"}};
    input.update(more);
    return create("black-forest-labs/flux-dev-lora", input);
  };
  const auto url = [](const std::string& id) { return "http://h/v1/files/" + id; };
  const Job plain = job(Json::object()), first = job({{"lora_weights", url(one)}}),
            second = job({{"lora_weights", url(two)}}),
            both = job({{"lora_weights", url(one)}, {"extra_lora", url(two)}, {"extra_lora_scale", 0.5}}),
            again = job(Json::object()), zero = job({{"lora_weights", url(one)}, {"lora_scale", 0}});
  WorkerTest::run(zero);
  const Job wrong = WorkerTest::run(job({{"lora_weights", url(upload("x", "no adapter"))}}));
  EXPECT_NE(wrong.error.value_or("").find("http://h/v1/files/"), std::string::npos) << wrong.error.value_or("");
  EXPECT_EQ(wrong.error.value_or("").find(data().string()), std::string::npos) << wrong.error.value_or("");
  std::set<std::string> different;
  for (const Job& each : {plain, first, second, both}) {
    const Job done = WorkerTest::find(each);
    ASSERT_EQ(done.status, JobStatus::succeeded) << done.error.value_or("") << done.logs;
    different.insert(file_bytes(done.output[0]));
  }
  EXPECT_EQ(different.size(), 4u);
  const std::string without = file_bytes(WorkerTest::find(plain).output[0]);
  EXPECT_EQ(file_bytes(WorkerTest::find(again).output[0]), without);  // taken off exactly
  EXPECT_EQ(file_bytes(WorkerTest::find(zero).output[0]), without);
}

}  // namespace
}  // namespace calotype::worker
