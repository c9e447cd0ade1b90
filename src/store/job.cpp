#include "store/job.h"

#include <array>

namespace calotype::store {
namespace {

constexpr std::array kKinds = {JobKind::prediction, JobKind::training};
constexpr std::array kStatuses = {JobStatus::starting, JobStatus::processing, JobStatus::succeeded, JobStatus::failed,
                                  JobStatus::canceled};

template <typename All>
std::optional<typename All::value_type> find_by_name(const All& all, std::string_view word) {
  for (const auto value : all)
    if (name(value) == word) return value;
  return {};
}

}  // namespace

std::string_view name(JobKind kind) { return kind == JobKind::training ? "training" : "prediction"; }

std::string_view name(JobStatus status) {
  switch (status) {
    case JobStatus::starting: return "starting";
    case JobStatus::processing: return "processing";
    case JobStatus::succeeded: return "succeeded";
    case JobStatus::failed: return "failed";
    case JobStatus::canceled: return "canceled";
  }
  return "failed";
}

std::optional<JobKind> parse_job_kind(std::string_view word) { return find_by_name(kKinds, word); }
std::optional<JobStatus> parse_job_status(std::string_view word) { return find_by_name(kStatuses, word); }

bool is_terminal(JobStatus status) {
  return status == JobStatus::succeeded || status == JobStatus::failed || status == JobStatus::canceled;
}

}  // namespace calotype::store
