// Not a test: a worker without models, for trying the HTTP side while src/worker is being made. Runs only when
// CALOTYPE_STAND_IN_DATA names a data folder, until it is killed.
#include <gtest/gtest.h>

#include <cstdlib>
#include <thread>

#include "base/error.h"
#include "hub/signature.h"
#include "store/file_reference.h"
#include "store/store.h"

namespace calotype::server {
namespace {
using store::Claim;
using store::JobStatus;
using store::Json;

const char* const kPng =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";

std::string put(store::Store& s, const Claim& c, const std::string& name, const std::string& type,
                store::FilePurpose purpose) {
  return s.files
      ->put({.name = name, .content_type = type, .purpose = purpose, .job = c.job.id}, *hub::base64_decoded(kPng))
      .id;
}

void run(store::Store& s, const Claim& c) {
  s.jobs->start(c);
  const Json& in = c.job.input;
  if (c.job.model == "replicate/canary") {
    Json words = Json::array();
    for (const std::string word : {std::string("Hello, "), in.value("text", std::string())}) {
      words.push_back(word);
      s.jobs->output(c, words);
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return s.jobs->finish(c, JobStatus::succeeded, words, {}, {});
  }
  const bool training = c.job.kind == store::JobKind::training;
  const int steps = training ? in.value("steps", 1000) : in.value("num_inference_steps", 4);
  const std::string prompt = in.value("prompt", std::string());
  if (prompt.find("fail") != std::string::npos)
    return s.jobs->finish(c, JobStatus::failed, nullptr, "it failed as asked", {});
  const int pause = prompt.find("slow") != std::string::npos ? 1000 : training ? 20 : 50;
  s.jobs->log(c, "Using seed: 7\n");
  for (int i = 1; i <= steps; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(pause));
    if (!s.jobs->heartbeat(c).still_mine) return;
    s.jobs->progress(c, {.stage = "denoise", .done = i, .total = steps, .eta_seconds = 1});
    s.jobs->log(c, fmt::format("{:3}%|█████     | {}/{} [00:01<00:01,  1.60it/s]\n", 100 * i / steps, i, steps));
    if (!training) s.jobs->preview(c, put(s, c, "preview.png", "image/png", store::FilePurpose::preview));
  }
  if (training) {
    const size_t slash = c.job.destination.find('/');
    const std::string id = std::string(38, '0') + c.job.id;
    std::string hex;
    for (char ch : id) hex += std::isdigit(static_cast<unsigned char>(ch)) || (ch >= 'a' && ch <= 'f') ? ch : 'a';
    s.models->add_version(
        {.id = hex, .owner = c.job.destination.substr(0, slash), .name = c.job.destination.substr(slash + 1)});
    const std::string tar = put(s, c, "trained_model.tar", "application/x-tar", store::FilePurpose::weights);
    return s.jobs->finish(c, JobStatus::succeeded,
                          {{"version", c.job.destination + ":" + hex}, {"weights", store::file_reference(tar)}}, {},
                          {});
  }
  Json out = Json::array();
  for (int i = 0; i < in.value("num_outputs", 1); ++i) {
    out.push_back(
        store::file_reference(put(s, c, fmt::format("out-{}.png", i), "image/png", store::FilePurpose::output)));
    s.jobs->output(c, out);
  }
  s.jobs->finish(c, JobStatus::succeeded, out, {}, {{"predict_time", 0.5}});
}

TEST(StandInWorker, Serves) {
  const char* data = std::getenv("CALOTYPE_STAND_IN_DATA");
  if (!data) GTEST_SKIP();
  store::Store s = store::Store::open({.data = data});
  for (;;) {
    const auto claim = s.jobs->claim("stand-in", {});
    if (!claim) {
      s.jobs->wait_for_work(std::chrono::milliseconds(200));
      continue;
    }
    try {
      run(s, *claim);
    } catch (const base::Error& error) {
      fmt::print(stderr, "{}\n", error.what());
    }
  }
}

}  // namespace
}  // namespace calotype::server
