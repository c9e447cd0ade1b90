// Predictions that a remote service makes: the FLUX [pro] family at Black Forest Labs' API, with the user's own key.
//
//   const JobResult result = run_gateway(job, *find_model(job.job().model), services);
//
// Nothing is sent anywhere unless a key is configured. The key goes to the configured endpoint, and to polling
// addresses of the same service only. Wire format: docs.bfl.ai. One thread at a time.
#pragma once

#include "worker/services.h"

namespace calotype::worker {

/// The body of the request to /v1/PATH. `image` is base64 of image_prompt, "" = none.
Json gateway_request(const ServedModel& model, const Json& settings, const std::string& image);

/// Errors: unsupported without a key; bad_input for what the service refuses, with its words; canceled.
JobResult run_gateway(JobWriter& job, const ServedModel& model, Services& services);

}  // namespace calotype::worker
