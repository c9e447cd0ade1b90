// Trainings from a zip to a version that draws, with a tiny random model; killed, stopped, canceled and interrupted by
// predictions on the way.
#include "worker/training_job.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cstdlib>

#include "base/base64.h"
#include "files/tensor_file.h"
#include "hub/hub_server.h"
#include "weights/unpack.h"
#include "worker/jobs.h"
#include "worker/training_data.h"
#include "worker/training_forecast.h"

namespace calotype::worker {
namespace {

class TrainingJob : public WorkerTest {
 protected:
  store::Version version_of(const Job& training) {
    const std::string text = training.output.at("version");
    return store_.models->find_version(text.substr(text.find(':') + 1)).value();
  }
  fs::path adapter_of(const Job& training) {
    return store_.files->local_path(version_of(training).about.at("lora_file"));
  }
  std::map<std::string, at::Tensor> tensors(const fs::path& path) {
    std::map<std::string, at::Tensor> out;
    const files::TensorFile file = files::open_tensor_file(path);
    for (const files::StoredTensor& tensor : file.tensors)
      out[tensor.name] = weights::unpack({.parts = {{.tensor = tensor}}}, at::kFloat).clone();
    return out;
  }
  void expect_same_adapter(const fs::path& a, const fs::path& b) {
    const auto left = tensors(a), right = tensors(b);
    ASSERT_GT(left.size(), 10u);
    ASSERT_EQ(left.size(), right.size());
    for (const auto& [name, tensor] : left) EXPECT_TRUE(at::equal(tensor, right.at(name))) << name;
  }
  fs::path work(const Job& job) const { return data() / "work" / job.id; }
  bool has_checkpoint(const Job& job) const {
    const fs::path folder = work(job) / "lora.safetensors.train" / "checkpoints";
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(folder, ignored))
      if (entry.path().extension() == ".safetensors") return true;
    return false;
  }
  /// One thread, as in the processes: sums depend on their number.
  void SetUp() override { at::set_num_threads(1); }
};

TEST_F(TrainingJob, MakesAVersionThatDrawsWhatWasLearned) {
  const Job training = run(create_training({{"learning_rate", 0.05}}));
  ASSERT_EQ(training.status, JobStatus::succeeded) << training.error.value_or("") << training.logs;
  const store::Version version = version_of(training);
  EXPECT_EQ(training.output.at("version"), "me/discs:" + version.id);
  EXPECT_EQ(version.id.size(), 64u);
  EXPECT_EQ(version.about.at("trigger_word"), "TOK");
  EXPECT_EQ(version.about.at("base_weights"), "m1_dev");
  EXPECT_EQ(store_.models->find("me", "discs")->latest_version, version.id);
  EXPECT_NE(training.logs.find("100%|██████████| 3/3 ["), std::string::npos) << training.logs;
  EXPECT_NE(training.logs.find(", lr: 5.0e-02 loss: "), std::string::npos) << training.logs;
  EXPECT_NE(training.logs.find("no captioner is built in"), std::string::npos);
  EXPECT_FALSE(fs::exists(work(training)));

  // What it drew on its way stays, and what it took is known to the next one.
  const auto samples = store_.files->of_job(training.id, store::FilePurpose::output);
  ASSERT_EQ(samples.size(), 3u);
  EXPECT_EQ(samples[2].metadata, (Json{{"step", 3}, {"prompt", "TOK"}}));
  EXPECT_EQ(samples[2].content_type, "image/webp");
  EXPECT_EQ(training.metrics.at("weights"), "m1_dev");
  EXPECT_GT(training.metrics.at("seconds_per_step"), 0.0);
  // Most of this tiny model's process is the program itself, which forecasts count with 0.4 GB.
  const uint64_t forecast = training_memory(options().models, *find_model(kTrainer), training.input);
  EXPECT_GT(forecast, 400'000'000u);
  EXPECT_LT(forecast, 800'000'000u);

  const Json draw = {{"prompt", "TOK"}, {"seed", 1}, {"num_inference_steps", 2}, {"output_format", "png"}};
  const Job tuned = create("me/discs", draw, version.id), base = create(kDev, draw);
  run(tuned);
  ASSERT_EQ(find(tuned).status, JobStatus::succeeded) << find(tuned).error.value_or("");
  EXPECT_NE(find(tuned).logs.find("Adapter: me/discs, scale 1"), std::string::npos) << find(tuned).logs;
  EXPECT_NE(file_bytes(find(tuned).output[0]), file_bytes(find(base).output[0]));
}

TEST_F(TrainingJob, PacksTheWeightsAsHostedTrainersDo) {
  const Job training = run(create_training());
  ASSERT_EQ(training.status, JobStatus::succeeded) << training.error.value_or("");
  const std::string id = store::referenced_file(training.output.at("weights").get<std::string>()).value();
  EXPECT_EQ(store_.files->find(id)->name, "trained_model.tar");
  const std::string command =
      fmt::format("cd '{}' && tar -xf '{}'", folder_.path().string(), store_.files->local_path(id).string());
  ASSERT_EQ(std::system(command.c_str()), 0);
  const fs::path inner = folder_ / "output/flux_train_replicate";
  EXPECT_TRUE(fs::exists(inner / "config.yaml"));
  EXPECT_EQ(base::read_file(inner / "captions/p1.txt", 100), "TOK a disc, number 1\n");
  EXPECT_EQ(base::read_file(inner / "captions/p0.txt", 100), "TOK\n");
  expect_same_adapter(inner / "lora.safetensors", adapter_of(training));

  // The same file by its name, as an input of another model.
  const Job drawn = run(create("black-forest-labs/flux-dev-lora",
                               {{"prompt", "x"}, {"num_inference_steps", 1}, {"lora_weights", "me/discs"}}));
  EXPECT_EQ(drawn.status, JobStatus::succeeded) << drawn.error.value_or("");
}

TEST_F(TrainingJob, GoesOnAfterItsWorkerWasKilled) {
  const Job whole = create_training({{"steps", 40}}, "me/whole");
  ASSERT_EQ(run(whole).status, JobStatus::succeeded) << find(whole).error.value_or("");

  const Job training = create_training({{"steps", 40}});
  {
    Process worker(worker_command(), folder_ / "log");
    ASSERT_TRUE(wait_until([&] { return has_checkpoint(training); })) << base::read_file(folder_ / "log", 1 << 20);
    worker.end(SIGKILL);
  }
  ASSERT_EQ(find(training).status, JobStatus::processing);
  EXPECT_EQ(store_.jobs->reconcile(store::now() + 2 * store::kStaleAfter).requeued, 1);
  const Job done = run(training);
  ASSERT_EQ(done.status, JobStatus::succeeded) << done.error.value_or("") << done.logs;
  EXPECT_EQ(done.attempt, 2);
  EXPECT_NE(done.logs.find("going on after step "), std::string::npos) << done.logs;
  expect_same_adapter(adapter_of(done), adapter_of(find(whole)));
}

TEST_F(TrainingJob, AWorkerThatIsToldToStopLeavesACheckpoint) {
  const Job training = create_training({{"steps", 6000}});
  Process worker(worker_command(), folder_ / "log");
  ASSERT_TRUE(wait_until([&] { return find(training).progress.stage == "train" && find(training).progress.done > 0; }))
      << base::read_file(folder_ / "log", 1 << 20);
  EXPECT_EQ(worker.end(SIGTERM), 0) << base::read_file(folder_ / "log", 1 << 20);
  EXPECT_EQ(find(training).status, JobStatus::starting);
  EXPECT_EQ(find(training).worker, "");
  EXPECT_EQ(find(training).losses, 0);
  EXPECT_TRUE(has_checkpoint(training));
}

TEST_F(TrainingJob, WhatWasCanceledInTheQueueIsClearedAway) {
  const Job canceled = create_training(), waiting = create_training();
  for (const Job& job : {canceled, waiting}) fs::create_directories(work(job) / "pictures");
  store_.jobs->cancel(canceled.id);
  remove_finished_training_files(store_);
  EXPECT_FALSE(fs::exists(work(canceled)));
  EXPECT_TRUE(fs::exists(work(waiting)));
}

TEST_F(TrainingJob, ACanceledTrainingLeavesNothing) {
  const Job training = create_training({{"steps", 6000}});
  Worker worker(options(), store_);
  const base::CancelToken never;
  std::thread thread([&] { worker.run_one(never); });
  ASSERT_TRUE(wait_until([&] { return find(training).progress.stage == "train"; }));
  store_.jobs->cancel(training.id);
  thread.join();
  EXPECT_EQ(find(training).status, JobStatus::canceled);
  EXPECT_TRUE(find(training).output.is_null());
  EXPECT_FALSE(store_.models->find("me", "discs"));
  EXPECT_FALSE(fs::exists(work(training)));
}

TEST_F(TrainingJob, PredictionsRunBetweenItsStepsAndChangeNothing) {
  const Job alone = create_training({{"steps", 60}}, "me/alone");
  ASSERT_EQ(run(alone).status, JobStatus::succeeded) << find(alone).error.value_or("");

  const Job training = create_training({{"steps", 60}});
  Worker worker(options(), store_);
  const base::CancelToken never;
  std::thread thread([&] { worker.run_one(never); });
  ASSERT_TRUE(wait_until([&] { return find(training).progress.done > 0; }));
  const Job prediction = create(kDev, {{"prompt", "x"}, {"num_inference_steps", 2}});
  thread.join();
  const Job trained = find(training), drawn = find(prediction);
  ASSERT_EQ(trained.status, JobStatus::succeeded) << trained.error.value_or("");
  ASSERT_EQ(drawn.status, JobStatus::succeeded) << drawn.error.value_or("");
  EXPECT_LT(*drawn.completed_at, *trained.completed_at);
  expect_same_adapter(adapter_of(trained), adapter_of(find(alone)));
}

TEST_F(TrainingJob, UploadsToTheHubWithACard) {
  test::HubServer hub;
  WorkerOptions with = options();
  with.loras.hub = hub.url();
  const Job training =
      run(create_training({{"hf_repo_id", "me/discs-lora"}}, "me/discs", {{"hf_token", "hf_valid"}}), with);
  ASSERT_EQ(training.status, JobStatus::succeeded) << training.error.value_or("");
  EXPECT_NE(training.logs.find("Uploaded: " + hub.url("/me/discs-lora")), std::string::npos) << training.logs;
  EXPECT_EQ(training.logs.find("hf_valid"), std::string::npos);
  const auto file = [&](const std::string& name) {
    return hub::send({.url = hub.url("/me/discs-lora/resolve/main/" + name), .follow_redirects = 3}).body;
  };
  const std::string card = file("README.md");
  EXPECT_NE(card.find("instance_prompt: \"TOK\""), std::string::npos) << card;
  EXPECT_NE(card.find("sample-0.webp"), std::string::npos);
  EXPECT_EQ(file("lora.safetensors"), base::read_file(adapter_of(training), 1 << 26));

  // A key without rights costs the upload, not the training.
  const Job refused = run(create_training({{"hf_repo_id", "me/other"}}, "me/discs", {{"hf_token", "hf_wrong"}}), with);
  EXPECT_EQ(refused.status, JobStatus::succeeded);
  EXPECT_NE(refused.logs.find("Warning: the upload to me/other failed"), std::string::npos) << refused.logs;
}

TEST_F(TrainingJob, RefusesInOneSentence) {
  const std::pair<Json, const char*> cases[] = {
      {{{"input_images", "data:application/zip;base64," + base::base64("not a zip")}},
       "input_images must be a zip file"},
      {{{"input_images", "data:application/zip;base64," + base::base64(disc(1))}}, "a PNG picture"},
      {{{"input_images", "http://127.0.0.1:9/v1/files/none"}}, "127.0.0.1"},
      {{{"input_images",
         "data:application/zip;base64," + base::base64(files::zip_of({{.name = "a.md", .content = "x"}}))}},
       "input_images: none of"},
      {{{"optimizer", "lion"}}, "optimizer is lion"},
      {{{"resolution", "big"}}, "resolution is big"},
      {{{"layers_to_optimize_regex", "nothing"}}, "layers nothing matches none"},
      {{{"hf_repo_id", "me/x"}}, "there is no hf_token"}};
  for (const auto& [input, words] : cases) {
    const Job job = run(create_training(input));
    EXPECT_EQ(job.status, JobStatus::failed);
    EXPECT_NE(job.error.value_or("").find(words), std::string::npos) << job.error.value_or("") << "\n" << job.logs;
    EXPECT_FALSE(fs::exists(work(job)));
  }
}

// replicate/flux-fine-tuner train.py, clean_up_captions.
TEST(CleanedCaption, JoinsLinesAndPartsWithCommas) {
  EXPECT_EQ(cleaned_caption("a cat,\nlooking  up,, \n\n of a house ,"), "a cat, looking  up, of a house");
  EXPECT_EQ(cleaned_caption(" \n,"), "");
  EXPECT_EQ(cleaned_caption("plain"), "plain");
}

TEST(DefaultCaption, PutsTheTriggerInTheMiddle) {
  EXPECT_EQ(default_caption("a photo of ", "TOK", " in the rain"), "a photo of TOK in the rain");
  EXPECT_EQ(default_caption("", "TOK", ""), "TOK");
  EXPECT_EQ(default_caption("", "", ""), "");
}

TEST(TrainingPlan, TranslatesThePublishedTrainersSettings) {
  const ServedModel& trainer = *find_model(kTrainer);
  const auto plan = [&](const Json& input, int side) {
    return training_plan(with_defaults(trainer, input), side).options;
  };
  const train::TrainOptions usual = plan(Json::object(), 1024);
  EXPECT_EQ(usual.trigger, "TOK");
  EXPECT_EQ(usual.steps, 1000);
  EXPECT_EQ(usual.rank, 16);
  EXPECT_EQ(usual.optimizer, "adamw8bit");
  EXPECT_EQ(usual.learning_rate, 4e-4);
  EXPECT_EQ(usual.caption_dropout, 0.05);
  EXPECT_EQ(usual.resolutions, (std::vector{512, 768, 1024}));
  EXPECT_EQ(usual.ema, 0.99);
  EXPECT_TRUE(usual.tar);
  EXPECT_EQ(plan(Json::object(), 128).resolutions, (std::vector{128})) << "what a small model was made for";
  EXPECT_EQ(plan({{"resolution", "512, 512"}}, 1024).resolutions, (std::vector{512}));
  const Json regex = {{"layers_to_optimize_regex", R"(transformer\.single_transformer_blocks\.(7|12)\.proj_out)"}};
  EXPECT_EQ(plan(regex, 1024).layers, R"(single_transformer_blocks\.(7|12)\.proj_out)");
  EXPECT_EQ(plan({{"layers_to_optimize_regex", "^transformer.transformer_blocks.0"}}, 1024).layers,
            "^transformer_blocks.0");
  EXPECT_EQ(plan({{"optimizer", "prodigy"}}, 1024).learning_rate, std::nullopt);
  EXPECT_EQ(plan({{"wandb_sample_prompts", "a\r\n\nb"}}, 1024).sample_prompts, (std::vector<std::string>{"a", "b"}));
  // Ten previews of the trigger word, but on large models not so often that they cost more than the steps.
  EXPECT_EQ(usual.sample_prompts, (std::vector<std::string>{"TOK"}));
  EXPECT_EQ(usual.sample_every, 100);
  EXPECT_EQ(plan({{"steps", 100}}, 1024).sample_every, 50);
  EXPECT_TRUE(plan({{"steps", 49}}, 1024).sample_prompts.empty());
  EXPECT_EQ(plan({{"steps", 49}}, 128).sample_every, 5);
  EXPECT_EQ(plan({{"wandb_sample_prompts", "a"}, {"wandb_sample_interval", 7}}, 1024).sample_every, 7);
  const ServedModel& fast = *find_model("replicate/fast-flux-trainer");
  EXPECT_EQ(training_plan(with_defaults(fast, {{"training_steps", 77}}), 1024).options.steps, 77);
}

}  // namespace
}  // namespace calotype::worker
