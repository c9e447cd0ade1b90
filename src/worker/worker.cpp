#include "worker/worker.h"

#include <c10/util/Exception.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "base/error.h"
#include "pipeline/processor.h"
#include "store/ids.h"
#include "worker/gateway_job.h"
#include "worker/prediction_job.h"
#include "worker/prediction_settings.h"
#include "worker/training_job.h"

namespace calotype::worker {
using store::JobKind;
using store::JobStatus;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

namespace {

// Between two steps of a training, so that it goes on even when predictions never end.
constexpr int kMostPredictions = 8;
constexpr auto kLongestPause = 60s;

std::string host_name() {
  char name[256] = "";
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "host";
}

std::string unique_name() { return fmt::format("{}-{}-{}", host_name(), ::getpid(), store::new_id().substr(0, 6)); }

WorkerOptions named(WorkerOptions options) {
  if (options.name.empty()) options.name = unique_name();
  return options;
}

/// LibTorch's messages go on with a stack.
std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

}  // namespace

Worker::Worker(WorkerOptions options, store::Store store)
    : options_(named(std::move(options))),
      store_(std::move(store)),
      loaded_(options_.runtime),
      files_(store_, options_.files),
      loras_(store_, files_, options_.loras),
      services_{.store = store_,
                .models = options_.models,
                .runtime = options_.runtime,
                .loaded = loaded_,
                .files = files_,
                .loras = loras_,
                .safety = options_.safety,
                .gateway = options_.gateway,
                .hub = options_.loras.hub} {}

store::WorkerEntry Worker::entry() const {
  return {.id = options_.name,
          .host = host_name(),
          .pid = ::getpid(),
          .device = pipeline::device_text(options_.runtime.device),
          .started_at = store::now()};
}

void Worker::note(const std::string& text) const {
  if (options_.note) options_.note(text);
}

void Worker::run(const base::CancelToken& stop) {
  Heart heart(store_, entry(), stop);
  remove_finished_training_files(store_);
  while (!stop.requested()) try {
      if (!next(heart, stop, options_.kinds)) store_.jobs->wait_for_work(1s);
    } catch (const base::Error& error) {
      note(error.what());
      std::this_thread::sleep_for(1s);
    }
}

bool Worker::run_one(const base::CancelToken& stop) {
  Heart heart(store_, entry(), stop);
  return next(heart, stop, options_.kinds);
}

bool Worker::next(Heart& heart, const base::CancelToken& stop, const std::vector<JobKind>& kinds) {
  auto claim =
      store_.jobs->claim(options_.name, {.kinds = kinds, .models = options_.only, .preferred_models = preferred_});
  if (!claim) return false;
  JobWriter job(store_, std::move(*claim));
  const Heart::Watch watch(heart, job);
  work(job, heart, stop);
  return true;
}

/// Every way a job can end leads through here.
void Worker::work(JobWriter& job, Heart& heart, const base::CancelToken& stop) {
  const std::string shown = fmt::format("{} {} ({})", store::name(job.job().kind), job.job().id, job.job().model);
  note(shown + " begins");
  try {
    const JobResult result = dispatch(job, heart, stop);
    if (job.finish(JobStatus::succeeded, result.output, std::nullopt, result.metrics)) note(shown + " succeeded");
  } catch (const base::Error& error) {
    fail(job, error.kind(), without_dashes(error.what()));
  } catch (const std::bad_alloc&) {
    fail(job, ErrorKind::out_of_memory, "out of memory; ask for a smaller picture or fewer at once");
  } catch (const c10::OutOfMemoryError& error) {
    fail(job, ErrorKind::out_of_memory, first_line(error.what_without_backtrace()));
  } catch (const c10::Error& error) {
    fail(job, ErrorKind::internal, "internal error: " + first_line(error.what_without_backtrace()));
  } catch (const std::exception& error) {
    fail(job, ErrorKind::internal, std::string("internal error: ") + error.what());
  }
  if (job.stop() == Stop::leaving) job.release();
  // Another worker may need the folder of a job that is gone.
  const bool over = job.stop() == Stop::none || job.stop() == Stop::canceled;
  if (job.job().kind == JobKind::training && over) remove_training_files(store_, job.job().id);
}

void Worker::fail(JobWriter& job, ErrorKind kind, const std::string& error) {
  if (kind == ErrorKind::out_of_memory || kind == ErrorKind::internal) loaded_.drop_all();
  if (job.stop() != Stop::none) return;  // it ended for that reason
  note(fmt::format("{} {} failed: {}", store::name(job.job().kind), job.job().id, error));
  if (kind == ErrorKind::out_of_memory && inside_training_) {
    // It does not fit beside the training; it waits for the end of that.
    shares_memory_ = false;
    return job.release();
  }
  job.log(error);
  job.finish(JobStatus::failed, nullptr, error, Json::object());
}

JobResult Worker::dispatch(JobWriter& job, Heart& heart, const base::CancelToken& stop) {
  if (job.job().kind == JobKind::training) {
    shares_memory_ = true;
    return run_training(job, services_, [&] { serve_predictions(job, heart, stop); });
  }
  const ServedModel& model = served_model(job.job(), store_);
  if (model.task == Task::text) return run_text(job);
  if (model.task == Task::gateway) return run_gateway(job, model, services_);
  base::check(model.task == Task::text_to_image, ErrorKind::bad_input,
              "{} is a trainer; create a training with it instead of a prediction", job.job().model);
  heart.set_model(job.job().model);
  JobResult result = run_prediction(job, services_);
  preferred_ = {job.job().model};
  return result;
}

void Worker::serve_predictions(JobWriter& training, Heart& heart, const base::CancelToken& stop) {
  if (heart.predictions_waiting() == 0 || !shares_memory_) return;
  const auto end = Clock::now() + kLongestPause;
  inside_training_ = true;
  for (int i = 0; i < kMostPredictions && Clock::now() < end && shares_memory_; ++i) {
    if (training.stop() != Stop::none || stop.requested()) break;
    try {
      if (!next(heart, stop, {JobKind::prediction})) break;
    } catch (const base::Error& error) {
      note(error.what());  // the database is out of reach; the training goes on
      break;
    }
  }
  inside_training_ = false;
}

}  // namespace calotype::worker
