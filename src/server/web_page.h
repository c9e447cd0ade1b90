// The web page: its files, and what it asks for beyond Replicate's API.
//
//   Router router = all_routes(site, page_routes(web_file));
//   router.add(page_api_routes(site, {.version = "0.1.0"}), {"/v1"});
//   router.add(model_page_route(web_file));                  // last: its pattern is any two words
//
// The files come as a function, so that this folder does not know where they are kept. Every address of the page
// answers with the same document; what it shows is decided in the browser.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/router.h"
#include "server/site.h"
#include "worker/model_catalog.h"
#include "worker/model_config.h"

namespace calotype::server {

struct PageFile {
  std::string_view content, content_type, tag;  ///< `tag` changes with the content
};
/// By name, "index.html" or "style.css"; nothing for others. Any thread.
using PageFiles = std::function<std::optional<PageFile>(std::string_view name)>;

/// /, /gallery, /train, /settings, /p/ID, and the files at /-/NAME. Open: whoever has no token is asked for it there.
std::vector<Route> page_routes(const PageFiles& files);
/// /OWNER/NAME, for browsers (Accept: text/html); programs that err get 404 there as everywhere.
Route model_page_route(const PageFiles& files);

/// GET /page/site: what is installed and at work. GET /page/jobs: predictions and trainings in short, paged like
/// predictions. GET /page/jobs/{id}: one in full, with its kind, progress, place in the queue and preview.
/// GET /page/models/{owner}/{name}: trigger word and versions with what is known about them.
/// A finished training's job has its previews, {step, prompt, url}, as "samples".
/// And those of page_training_routes().
struct PageOptions {
  std::string version;
  worker::ModelConfig models = {};  ///< which weights stand behind which name
  std::string hub = "https://huggingface.co";
  /// Bytes that a training with this checked input will take on a CPU, without loading anything.
  std::function<uint64_t(const worker::ServedModel& trainer, const Json& input)> training_memory = {};
};
std::vector<Route> page_api_routes(Site& site, const PageOptions& options);

/// POST /page/forecast {trainer, input}: {steps, seconds, memory_bytes, memory_measured}, null for what nobody knows:
/// time comes from an earlier training of the same kind, memory as well, else from sizes.
/// POST /page/trainings/{id}/push {repository, token, private}: sends the adapter to the hub while the answer lasts, a
/// stream of the events progress {done, total} in bytes and done {page} or failed {detail}. The token is kept nowhere.
std::vector<Route> page_training_routes(Site& site, const PageOptions& options);

}  // namespace calotype::server
