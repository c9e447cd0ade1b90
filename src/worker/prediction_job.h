// Predictions: from a claimed job to pictures in the file store.
//
//   const JobResult result = run_prediction(job, services);       // the caller finishes the job with it
//
// Errors: those of every part; canceled. One thread at a time.
#pragma once

#include "worker/services.h"

namespace calotype::worker {

/// What the job's model takes: an official model, or a version that was trained here. Error not_found.
const ServedModel& served_model(const store::Job& job, store::Store& store);

/// Draws, says in the logs what it does, stores the pictures. The output is a list of file references.
JobResult run_prediction(JobWriter& job, Services& services);

/// The canary: a greeting, word by word.
JobResult run_text(JobWriter& job);

/// Stores one encoded picture as out-INDEX.ENDING and gives its reference. `refused` gets the reason when the safety
/// check refuses it; the reference is then "".
std::string store_picture(JobWriter& job, Services& services, std::string_view bytes, int index,
                          const std::string& ending, std::string& refused);

}  // namespace calotype::worker
