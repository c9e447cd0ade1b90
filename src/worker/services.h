// What all jobs of a worker share.
//
// One thread at a time: jobs of one worker run one after the other (a prediction inside a training included).
#pragma once

#include "pipeline/text_to_image.h"
#include "store/store.h"
#include "worker/input_files.h"
#include "worker/job_writer.h"
#include "worker/loaded_models.h"
#include "worker/lora_sources.h"
#include "worker/model_catalog.h"
#include "worker/model_config.h"
#include "worker/safety.h"

namespace calotype::worker {

struct GatewayOptions {
  std::string endpoint = "https://api.bfl.ai";
  std::string key;  ///< the user's own; "" = gateways are off
  std::chrono::milliseconds poll{500};
};

struct Services {
  store::Store& store;
  const ModelConfig& models;
  const pipeline::RuntimeOptions& runtime;
  LoadedModels& loaded;
  InputFiles& files;
  LoraSources& loras;
  const SafetyOptions& safety;
  const GatewayOptions& gateway;
  std::string hub;  ///< endpoint of the hub that trainings upload to
};

/// What a job leaves when it ended well.
struct JobResult {
  Json output;
  Json metrics = Json::object();
};

}  // namespace calotype::worker
