#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdlib>

#include "base/check_range.h"
#include "base/error.h"
#include "cli/commands.h"
#include "cli/model_options.h"
#include "cli/settings_file.h"
#include "cli/terminal.h"
#include "hub/hub_client.h"
#include "pipeline/processor.h"
#include "worker/worker.h"

namespace calotype::cli {
using base::ErrorKind;

namespace {

struct Options {
  std::string config;
  store::StoreOptions store;
  ModelOptions compute;
  std::vector<std::string> models, only;
  std::filesystem::path models_file;
  std::string kinds = "all";
  worker::WorkerOptions worker;
  double download_gb = 8;
  bool once = false;
};

std::vector<store::JobKind> job_kinds(const std::string& text) {
  if (text == "all") return {store::JobKind::prediction, store::JobKind::training};
  const auto kind = store::parse_job_kind(text.ends_with('s') ? text.substr(0, text.size() - 1) : text);
  base::check(kind.has_value(), ErrorKind::bad_input, "--jobs is {}, expected all, predictions or trainings",
              base::printable(text));
  return {*kind};
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

void work(Options o) {
  base::check_range("download-limit", o.download_gb, 0, 1e9);
  std::signal(SIGPIPE, SIG_IGN);
  worker::WorkerOptions& w = o.worker;
  w.models = worker::read_model_config({.data = o.store.data, .file = o.models_file, .given = o.models});
  w.runtime = runtime_options(o.compute);
  w.kinds = job_kinds(o.kinds);
  w.only = o.only;
  w.files.max_bytes = static_cast<uint64_t>(o.download_gb * 1e9);
  w.loras.hub = hub::hub_access().endpoint;
  w.gateway.key = environment("BFL_API_KEY");  // never an option: command lines are seen by everybody on the machine
  w.note = [](std::string_view text) { print_note(text); };
  worker::Worker worker(w, store::Store::open(o.store));
  print_note(fmt::format("worker {} on {}", worker.name(), pipeline::device_text(w.runtime.device)));
  if (const std::string note = worker::stand_in_note(w.models); !note.empty()) print_note(note);
  if (o.once)
    while (!interrupt_token().requested() && worker.run_one(interrupt_token())) {
    }
  else
    worker.run(interrupt_token());
}

void add_options(CLI::App& command, Options& o) {
  const auto named = [&command](const char* name, auto& value, const char* variable, const char* help) {
    return command.add_option(name, value, help)->envname(variable)->capture_default_str();
  };
  named("--data", o.store.data, "CALOTYPE_DATA_DIR", "folder of database, files, keys and unfinished work");
  named("--database", o.store.database, "CALOTYPE_DATABASE", "sqlite:PATH or postgresql://…; default: in --data");
  named("--files", o.store.files, "CALOTYPE_FILES", "folder or s3://…; default: in --data");
  named("--model", o.models, "CALOTYPE_MODELS",
        "NAME=PATH of weights (NAME: dev, schnell, OWNER/NAME), or PATH for all; PATH may be what was given to "
        "`calotype pull`")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  named("--models-file", o.models_file, "CALOTYPE_MODELS_FILE", "JSON file of weights; default: DATA/models.json");
  named("--device", o.compute.device, "CALOTYPE_DEVICE", "cpu, cuda or cuda:N; auto: CUDA when there");
  named("--dtype", o.compute.dtype, "CALOTYPE_DTYPE", "compute in f32, bf16 or f16; auto: by the model's size");
  named("--threads", o.compute.threads, "CALOTYPE_THREADS", "CPU threads, 0 = all cores");
  named("--jobs", o.kinds, "CALOTYPE_JOBS", "all, predictions or trainings");
  named("--only", o.only, "CALOTYPE_ONLY", "serve this model (OWNER/NAME) only; may be repeated")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  named("--name", o.worker.name, "CALOTYPE_WORKER_NAME", "unique name; default: from host and process");
  named("--download-limit", o.download_gb, "CALOTYPE_DOWNLOAD_LIMIT", "largest file fetched for an input, GB");
  named("--safety-command", o.worker.safety.command, "CALOTYPE_SAFETY_COMMAND",
        "program that judges each picture: its path is the last argument, another status than 0 refuses it");
  named("--safety-url", o.worker.safety.url, "CALOTYPE_SAFETY_URL",
        "endpoint that judges each picture: POST, answers {\"allowed\": true}");
  named("--bfl-endpoint", o.worker.gateway.endpoint, "CALOTYPE_BFL_ENDPOINT",
        "API that draws flux-pro models with the key in $BFL_API_KEY");
  command
      .add_flag("--safety-optional", o.worker.safety.may_be_disabled, "callers may switch the check of pictures off")
      ->envname("CALOTYPE_SAFETY_OPTIONAL");
  command
      .add_flag("--private-targets", o.worker.files.allow_private,
                "URLs in inputs may lead to this machine and the local network")
      ->envname("CALOTYPE_PRIVATE_TARGETS");
  command.add_flag("--once", o.once, "work off what is queued, then end");
  command.add_option("--config", o.config, "file with these options, TOML or INI")
      ->envname("CALOTYPE_WORKER_CONFIG")
      ->configurable(false);
}

}  // namespace

void add_worker(CLI::App& app) {
  CLI::App* command = app.add_subcommand("worker", "Run the jobs that servers accept; several share one store");
  auto options = std::make_shared<Options>();
  add_options(*command, *options);
  command->callback([options, command] {
    apply_settings_file(*command, options->config);
    work(*options);
  });
}

}  // namespace calotype::cli
