#include "server/system_api.h"

#include <fmt/format.h>

#include "server/api_description.h"

namespace calotype::server {

namespace {

constexpr store::Time kAlive = 60 * store::kSecond;

Response health(Site& site, Request&) {
  const auto workers = site.store.workers->list(store::now() - kAlive);
  return json_response({{"status", site.stopping ? "stopping" : "ok"},
                        {"workers", workers.size()},
                        {"note", site.options.weights_note}});
}

std::string gauges(Site& site) {
  std::string out = "# HELP calotype_jobs Jobs in the store.\n# TYPE calotype_jobs gauge\n";
  for (const store::JobCount& each : site.store.jobs->counts())
    out += fmt::format("calotype_jobs{{kind=\"{}\",status=\"{}\",claimed=\"{}\"}} {}\n", store::name(each.kind),
                       store::name(each.status), each.claimed, each.count);
  const auto usage = site.store.files->usage();
  out += fmt::format(
      "# TYPE calotype_files gauge\ncalotype_files {}\n# TYPE calotype_file_bytes gauge\ncalotype_file_bytes {}\n",
      usage.files, usage.bytes);
  out += fmt::format("# TYPE calotype_disk_free_bytes gauge\ncalotype_disk_free_bytes {}\n", usage.free);
  out += fmt::format("# TYPE calotype_workers gauge\ncalotype_workers {}\n",
                     site.store.workers->list(store::now() - kAlive).size());
  return out;
}

Response metrics(Site& site, Request&) {
  return text_response(site.metrics.text() + gauges(site), "text/plain; version=0.0.4; charset=utf-8");
}

Response description(Site&, Request& request) { return json_response(api_description(request.base_url)); }

Response docs(Site&, Request&) {
  Response response = text_response(std::string(api_page()), "text/html; charset=utf-8");
  response.with("Content-Security-Policy",
                "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
                "img-src 'self' data:");
  return response.with("X-Frame-Options", "DENY");
}

}  // namespace

std::vector<Route> system_routes(Site& site) {
  const auto with = [&site](Response (*function)(Site&, Request&)) {
    return [&site, function](Request& request) { return function(site, request); };
  };
  return {
      {"GET", "/health", with(health), Access::open},
      {"GET", "/metrics", with(metrics)},
      {"GET", "/openapi.json", with(description), Access::open},
      {"GET", "/docs", with(docs), Access::open},
  };
}

}  // namespace calotype::server
