#include <fmt/format.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <thread>

#include "base/check_range.h"
#include "base/error.h"
#include "cli/commands.h"
#include "cli/settings_file.h"
#include "cli/terminal.h"
#include "cli/version.h"
#include "hub/hub_client.h"
#include "server/answer.h"
#include "server/http_server.h"
#include "server/replicate_api.h"
#include "server/supervisor.h"
#include "server/upkeep.h"
#include "server/web_page.h"
#include "server/webhook_sender.h"
#include "web/web_files.h"
#include "worker/model_config.h"
#include "worker/training_forecast.h"

namespace calotype::cli {
using base::ErrorKind;

namespace {

struct Options {
  std::string config;
  std::string host = "127.0.0.1";
  uint16_t port = 5000;
  store::StoreOptions store;
  std::string public_url, tls_certificate, tls_key;
  std::vector<std::string> tokens, allowed_hosts, allowed_origins;
  int workers = 1;
  std::vector<std::string> devices, models;
  int64_t rate_limit = 6000;
  double upload_gb = 4, quota_gb = 0, keep_uploads_days = 7, keep_predictions_days = 0;
  bool private_targets = false;
};

std::chrono::seconds days(double count) { return std::chrono::seconds(static_cast<int64_t>(count * 86400)); }

uint64_t gigabytes(double count) { return static_cast<uint64_t>(count * 1e9); }

server::SiteOptions site_options(const Options& o) {
  server::SiteOptions site;
  site.base_url = o.public_url;
  site.auth = {.fixed_tokens = o.tokens, .always = !server::is_loopback_host(o.host)};
  site.origins = {.loopback_only = server::is_loopback_host(o.host),
                  .allowed_hosts = o.allowed_hosts,
                  .allowed_origins = o.allowed_origins};
  // Behind a proxy on this machine, Host is the public name.
  if (!o.public_url.empty() && (site.origins.loopback_only || !o.allowed_hosts.empty()))
    site.origins.allowed_hosts.push_back(server::host_of(o.public_url));
  site.creations_per_minute = o.rate_limit;
  site.requests_per_minute = o.rate_limit * 10;
  site.upload_bytes = gigabytes(o.upload_gb);
  site.upload_lifetime = days(o.keep_uploads_days);
  site.prediction_retention = days(o.keep_predictions_days);
  site.private_targets = o.private_targets;
  site.weights_note =
      worker::stand_in_note(worker::read_model_config({.data = o.store.data, .file = {}, .given = o.models}));
  return site;
}

std::vector<std::vector<std::string>> worker_arguments(const Options& o) {
  std::vector<std::vector<std::string>> all;
  for (int i = 0; i < o.workers; ++i) {
    std::vector<std::string> arguments = {"worker", "--data", o.store.data.string()};
    if (!o.store.database.empty()) arguments.insert(arguments.end(), {"--database", o.store.database});
    if (!o.store.files.empty()) arguments.insert(arguments.end(), {"--files", o.store.files});
    if (!o.devices.empty())
      arguments.insert(arguments.end(), {"--device", o.devices[static_cast<size_t>(i) % o.devices.size()]});
    for (const std::string& model : o.models) arguments.insert(arguments.end(), {"--model", model});
    if (o.private_targets) arguments.push_back("--private-targets");
    all.push_back(std::move(arguments));
  }
  return all;
}

/// Every waiting client needs a descriptor; the usual limit of 1024 is a soft one.
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 65536);
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

/// Before they are turned into bytes and seconds.
void check_numbers(const Options& o) {
  constexpr double kMostGigabytes = 1e9, kMostDays = 36500;
  base::check_range("rate-limit", o.rate_limit, 0, 1'000'000'000);
  base::check_range("upload-limit", o.upload_gb, 0, kMostGigabytes);
  base::check_range("quota", o.quota_gb, 0, kMostGigabytes);
  base::check_range("keep-uploads", o.keep_uploads_days, 0, kMostDays);
  base::check_range("keep-predictions", o.keep_predictions_days, 0, kMostDays);
}

void check(const Options& o, const server::Site& site) {
  base::check(o.public_url.empty() || o.public_url.starts_with("http://") || o.public_url.starts_with("https://"),
              ErrorKind::bad_input, "--public-url is {}, expected http://… or https://…",
              base::printable(o.public_url));
  for (const std::string& token : o.tokens)
    base::check(token.size() >= 8, ErrorKind::bad_input, "--token has {} characters, expected at least 8",
                token.size());
  base::check(
      !site.options.auth.always || !o.tokens.empty() || site.store.tokens->any(), ErrorKind::bad_input,
      "--host {} is reachable from outside and there is no token: make one with `calotype token create --data {}`, or "
      "listen on 127.0.0.1",
      o.host, o.store.data.string());
}

std::optional<server::PageFile> page_file(std::string_view name) {
  const auto file = web::web_file(name);
  if (!file) return std::nullopt;
  return server::PageFile{.content = file->content, .content_type = file->content_type, .tag = file->tag};
}

server::PageOptions page_options(const Options& o) {
  server::PageOptions page{.version = std::string(kProgramVersion),
                           .models = worker::read_model_config({.data = o.store.data, .file = {}, .given = o.models}),
                           .hub = hub::hub_access().endpoint};
  page.training_memory = [models = page.models](const worker::ServedModel& trainer, const worker::Json& input) {
    return worker::training_memory(models, trainer, input);
  };
  return page;
}

server::Router routes(server::Site& site, const Options& o) {
  server::Router router = server::all_routes(site, server::page_routes(page_file));
  router.add(server::page_api_routes(site, page_options(o)), {"/v1"});
  router.add(server::model_page_route(page_file));  // after all others: it takes any two words
  return router;
}

void serve(Options o) {
  check_numbers(o);
  while (o.public_url.ends_with('/')) o.public_url.pop_back();
  std::signal(SIGPIPE, SIG_IGN);  // clients leave in the middle of answers
  raise_descriptor_limit();
  o.store.file_options.quota = gigabytes(o.quota_gb);
  server::Site site(site_options(o), store::Store::open(o.store));
  site.note = print_note;
  check(o, site);
  const server::Router router = routes(site, o);
  server::HttpServer http(
      {.host = o.host, .port = o.port, .certificate = o.tls_certificate, .key = o.tls_key, .public_url = o.public_url},
      [&](server::Request& request) { return server::answer(site, router, request); });
  if (site.options.base_url.empty()) site.options.base_url = http.url();
  const server::Upkeep upkeep(site);
  const server::WebhookSender webhooks(site);
  const server::Supervisor workers(worker_arguments(o), [](std::string_view note) { print_note(note); });
  fmt::print("Calotype listens on {}\n", http.url());
  std::fflush(stdout);
  while (!interrupt_token().requested()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  site.stopping = true;
  http.stop();
}

void add_options(CLI::App& command, Options& o) {
  const auto named = [&command](const char* name, auto& value, const char* environment, const char* help) {
    return command.add_option(name, value, help)->envname(environment)->capture_default_str();
  };
  named("--host", o.host, "CALOTYPE_HOST", "address to listen on; another than loopback needs a token");
  named("--port", o.port, "CALOTYPE_PORT", "port, 0 for a free one")->check(CLI::Range(0, 65535));
  named("--data", o.store.data, "CALOTYPE_DATA_DIR", "folder of database, files and keys");
  named("--database", o.store.database, "CALOTYPE_DATABASE", "sqlite:PATH or postgresql://…; default: in --data");
  named("--files", o.store.files, "CALOTYPE_FILES", "folder or s3://…; default: in --data");
  named("--public-url", o.public_url, "CALOTYPE_PUBLIC_URL", "how clients reach this server, for URLs in answers");
  named("--token", o.tokens, "CALOTYPE_TOKEN", "a token that is accepted beside those of `calotype token`")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  named("--tls-cert", o.tls_certificate, "CALOTYPE_TLS_CERT", "certificate chain, PEM");
  named("--tls-key", o.tls_key, "CALOTYPE_TLS_KEY", "its private key, PEM");
  named("--workers", o.workers, "CALOTYPE_WORKERS", "worker processes to start here")->check(CLI::Range(0, 64));
  named("--device", o.devices, "CALOTYPE_DEVICE", "device of each worker: cpu, cuda:0, …")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  named("--model", o.models, "CALOTYPE_MODELS",
        "NAME=PATH: weights behind dev, schnell or OWNER/NAME; PATH alone: behind all others; PATH may be what was "
        "given to `calotype pull`")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  named("--allow-host", o.allowed_hosts, "CALOTYPE_ALLOW_HOST",
        "further host name under which this server may be asked")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  named("--allow-origin", o.allowed_origins, "CALOTYPE_ALLOW_ORIGIN", "origin of web pages that may use the API")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  named("--rate-limit", o.rate_limit, "CALOTYPE_RATE_LIMIT",
        "jobs and uploads a minute per token, ten times as many other requests; 0: no limit");
  named("--upload-limit", o.upload_gb, "CALOTYPE_UPLOAD_LIMIT", "largest upload in GB");
  named("--quota", o.quota_gb, "CALOTYPE_QUOTA", "room for all files in GB, 0: the disk's");
  named("--keep-uploads", o.keep_uploads_days, "CALOTYPE_KEEP_UPLOADS", "days until uploads are deleted, 0: never");
  named("--keep-predictions", o.keep_predictions_days, "CALOTYPE_KEEP_PREDICTIONS",
        "days until inputs, outputs and logs of predictions are deleted, 0: never");
  command
      .add_flag("--private-targets", o.private_targets,
                "webhooks and URLs in inputs may lead to this machine and the local network")
      ->envname("CALOTYPE_PRIVATE_TARGETS");
  command.add_option("--config", o.config, "file with these options, TOML or INI")
      ->envname("CALOTYPE_CONFIG")
      ->configurable(false);
}

}  // namespace

void add_serve(CLI::App& app) {
  CLI::App* command = app.add_subcommand("serve", "Answer Replicate's, OpenAI's and BFL's HTTP APIs");
  auto options = std::make_shared<Options>();
  add_options(*command, *options);
  command->callback([options, command] {
    apply_settings_file(*command, options->config);
    serve(*options);
  });
}

}  // namespace calotype::cli
