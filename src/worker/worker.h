// A worker: claims jobs from the store and runs them, one after the other, until it is told to stop.
//
//   Worker worker({.models = read_model_config({.data = "data"})}, store::Store::open({.data = "data"}));
//   worker.run(interrupt_token());
//
// One worker per device and process. A training lets waiting predictions run between its steps, as far as memory
// allows. When the worker is told to stop, a prediction goes back to the queue and a training writes a checkpoint
// first. A failed job never ends the worker. One thread at a time.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "worker/heart.h"
#include "worker/services.h"

namespace calotype::worker {

struct WorkerOptions {
  std::string name;  ///< unique among all workers; "" = host, process id and a random part
  ModelConfig models;
  pipeline::RuntimeOptions runtime;
  std::vector<store::JobKind> kinds = {store::JobKind::prediction, store::JobKind::training};
  std::vector<std::string> only;  ///< models to serve ("owner/name"); empty = all
  InputFileOptions files;
  LoraSourceOptions loras;
  SafetyOptions safety;
  GatewayOptions gateway;
  /// What an operator should know: jobs that begin and end, trouble with the database.
  std::function<void(std::string_view)> note;
};

class Worker {
  using ErrorKind = base::ErrorKind;

 public:
  Worker(WorkerOptions options, store::Store store);
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  /// Until `stop` is requested.
  void run(const base::CancelToken& stop);
  /// One job, if there is one: for tests and for machines that are switched on for a job. False when the queue is
  /// empty.
  bool run_one(const base::CancelToken& stop);

  const std::string& name() const { return options_.name; }

 private:
  bool next(Heart& heart, const base::CancelToken& stop, const std::vector<store::JobKind>& kinds);
  void work(JobWriter& job, Heart& heart, const base::CancelToken& stop);
  JobResult dispatch(JobWriter& job, Heart& heart, const base::CancelToken& stop);
  void serve_predictions(JobWriter& training, Heart& heart, const base::CancelToken& stop);
  void fail(JobWriter& job, ErrorKind kind, const std::string& error);
  void note(const std::string& text) const;
  store::WorkerEntry entry() const;

  WorkerOptions options_;
  store::Store store_;
  LoadedModels loaded_;
  InputFiles files_;
  LoraSources loras_;
  Services services_;
  std::vector<std::string> preferred_;  ///< models whose weights are loaded
  bool inside_training_ = false;        ///< predictions run between a training's steps
  bool shares_memory_ = true;           ///< predictions fit beside the training that runs
};

}  // namespace calotype::worker
