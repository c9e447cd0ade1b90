#include "worker/job_writer.h"

#include <thread>

#include "base/error.h"
#include "image/image_codec.h"
#include "worker/tqdm.h"

namespace calotype::worker {
using base::ErrorKind;
using namespace std::chrono_literals;

namespace {

constexpr auto kBarEvery = 200ms;
constexpr auto kPreviewEvery = 1s;
constexpr store::Time kPreviewAfterEnd = 60 * store::kSecond;
constexpr int kPreviewQuality = 70;
constexpr int kSampleQuality = 85;  // kept
constexpr int kFinishAttempts = 60;
constexpr size_t kMostPendingLog = 1 << 20;

}  // namespace

JobWriter::JobWriter(store::Store& store, store::Claim claim) : store_(store), claim_(std::move(claim)) {}

void JobWriter::stop(Stop reason) {
  Stop none = Stop::none;
  stop_.compare_exchange_strong(none, reason);
  cancel_.request();
}

/// A claim that is lost ends the work; any other trouble passes, as what was to be written is not the work itself.
template <typename Write>
void JobWriter::attempt(Write write) {
  if (stop_ == Stop::gone || stop_ == Stop::canceled) return;
  try {
    write();
  } catch (const base::Error& error) {
    if (error.kind() == ErrorKind::conflict) beat();  // tells a cancel from a loss
  } catch (const std::exception&) {
  }
}

void JobWriter::start() {
  attempt([&] { store_.jobs->start(claim_); });
}

void JobWriter::log(std::string_view line) {
  const std::lock_guard lock(mutex_);
  if (pending_log_.size() > kMostPendingLog) return;
  pending_log_ += line;
  if (!line.ends_with('\n')) pending_log_ += '\n';
}

/// Seconds since the stage began; a new stage begins now. Under the lock.
double JobWriter::stage_seconds(std::string_view stage) {
  const auto now = Clock::now();
  if (stage_ != stage) {
    stage_ = stage;
    initial_ = 0;
    stage_began_ = now;
    last_bar_ = {};
  }
  return std::chrono::duration<double>(now - stage_began_).count();
}

void JobWriter::begin(std::string_view stage, int64_t initial, int64_t total, double seconds_ago) {
  const std::lock_guard lock(mutex_);
  stage_seconds(stage);
  initial_ = initial;
  stage_began_ -= std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds_ago));
  pending_log_ += tqdm_line(initial, total, 0, "", initial) + "\n";
}

void JobWriter::bar(std::string_view stage, int64_t done, int64_t total, const std::string& postfix) {
  progress(stage, done, total);
  const std::lock_guard lock(mutex_);
  const double seconds = stage_seconds(stage);
  if (total < 1 || (done > 0 && done < total && Clock::now() - last_bar_ < kBarEvery)) return;
  last_bar_ = Clock::now();
  pending_log_ += tqdm_line(done, total, seconds, postfix, initial_) + "\n";
}

void JobWriter::progress(std::string_view stage, int64_t done, int64_t total) {
  const std::lock_guard lock(mutex_);
  const double seconds = stage_seconds(stage);
  const auto counted = static_cast<double>(done - initial_);
  const double eta = counted > 0 ? seconds / counted * static_cast<double>(total - done) : -1;
  pending_progress_ = store::JobProgress{.stage = std::string(stage), .done = done, .total = total, .eta_seconds = eta};
}

void JobWriter::preview(const image::RgbImage& picture) {
  {
    const std::lock_guard lock(mutex_);
    if (Clock::now() - last_preview_ < kPreviewEvery) return;
    last_preview_ = Clock::now();
  }
  attempt([&] {
    const std::string bytes =
        image::encode(picture, {.format = image::Format::webp, .quality = kPreviewQuality, .metadata = {}});
    const store::StoredFile file = store_.files->put({.name = "preview.webp",
                                                      .content_type = "image/webp",
                                                      .purpose = store::FilePurpose::preview,
                                                      .job = claim_.job.id},
                                                     bytes);
    store_.jobs->preview(claim_, file.id);
    // The one before may be on its way to somebody; the one before that is not.
    if (!older_preview_.empty()) store_.files->remove(older_preview_);
    older_preview_ = preview_file_;
    preview_file_ = file.id;
  });
}

void JobWriter::sample(const image::RgbImage& picture, int64_t step, const std::string& prompt) {
  attempt([&] {
    const std::string bytes =
        image::encode(picture, {.format = image::Format::webp, .quality = kSampleQuality, .metadata = {}});
    const store::StoredFile file = store_.files->put({.name = fmt::format("step-{:06}.webp", step),
                                                      .content_type = "image/webp",
                                                      .purpose = store::FilePurpose::output,
                                                      .job = claim_.job.id,
                                                      .metadata = {{"step", step}, {"prompt", prompt}}},
                                                     bytes);
    store_.jobs->preview(claim_, file.id);
  });
}

void JobWriter::output(const store::Json& output) {
  flush();
  attempt([&] { store_.jobs->output(claim_, output); });
}

bool JobWriter::finish(store::JobStatus status, const store::Json& output, const std::optional<std::string>& error,
                       const store::Json& metrics) {
  flush();
  for (int i = 1;; ++i) try {
      store_.jobs->finish(claim_, status, output, error, metrics);
      break;
    } catch (const base::Error& problem) {
      if (problem.kind() == ErrorKind::conflict) return false;
      if (i == kFinishAttempts) throw;
      std::this_thread::sleep_for(1s);
    }
  try {
    // The last one may be on its way to somebody.
    store_.files->expire_of_job(claim_.job.id, store::FilePurpose::preview, store::now() + kPreviewAfterEnd);
  } catch (const std::exception&) {  // they expire with the job
  }
  return true;
}

void JobWriter::release() {
  flush();
  attempt([&] { store_.jobs->release(claim_); });
}

void JobWriter::flush() {
  std::string log;
  std::optional<store::JobProgress> progress;
  {
    const std::lock_guard lock(mutex_);
    log.swap(pending_log_);
    progress.swap(pending_progress_);
  }
  if (!log.empty()) attempt([&] { store_.jobs->log(claim_, log); });
  if (progress) attempt([&] { store_.jobs->progress(claim_, *progress); });
}

int64_t JobWriter::beat() try {
  const store::HeartbeatAnswer answer = store_.jobs->heartbeat(claim_);
  if (!answer.still_mine) stop(answer.canceled ? Stop::canceled : Stop::gone);
  return answer.predictions_waiting;
} catch (const std::exception&) {
  return 0;  // the next one may get through
}

}  // namespace calotype::worker
