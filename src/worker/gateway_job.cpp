#include "worker/gateway_job.h"

#include <thread>

#include "base/atomic_file.h"
#include "base/base64.h"
#include "base/error.h"
#include "hub/url.h"
#include "worker/prediction_job.h"
#include "worker/prediction_settings.h"

namespace calotype::worker {
namespace fs = std::filesystem;
using base::ErrorKind;

namespace {

constexpr int kSide = 1024;  // of these models
constexpr int kMultiple = 32;
constexpr uint64_t kMostPictureBytes = 64 << 20;
constexpr auto kPatience = std::chrono::minutes(10);

int to_multiple(int64_t value) { return static_cast<int>((value + kMultiple / 2) / kMultiple * kMultiple); }

/// What the service says is wrong, on one line.
std::string complaint(const hub::HttpResponse& answer) {
  const Json body = Json::parse(answer.body, nullptr, false);
  const Json detail = body.is_object() ? body.value("detail", Json()) : Json();
  if (detail.is_string()) return base::printable(detail.get<std::string>(), 500);
  if (!detail.is_null()) return base::printable(detail.dump(), 500);
  return "no reason given";
}

class Gateway {
 public:
  Gateway(JobWriter& job, const ServedModel& model, Services& services)
      : job_(job), model_(model), services_(services), endpoint_(hub::Url::parse(services.gateway.endpoint)) {}

  JobResult run() {
    base::check(!services_.gateway.key.empty(), ErrorKind::unsupported,
                "{} is made by a remote service and no key is configured; set BFL_API_KEY to your own key, or call "
                "black-forest-labs/flux-dev, which is drawn here",
                model_.full_name());
    const Json settings = with_defaults(model_, job_.job().input);
    job_.start();
    job_.log(
        fmt::format("{} is drawn by {}, with the key of this server's owner.", model_.full_name(), endpoint_.host));
    const Json accepted = ask("POST", services_.gateway.endpoint + "/v1/" + model_.backend,
                              gateway_request(model_, settings, image_prompt(settings)));
    const Json result = wait(accepted);
    if (result.contains("seed")) job_.log("Using seed: " + result["seed"].dump());
    return {.output = save(fetch(text(result, "sample")), settings)};
  }

 private:
  static std::string text(const Json& value, const char* key) {
    base::check(value.is_object() && value.contains(key) && value[key].is_string(), ErrorKind::bad_input,
                "the remote service answered without \"{}\"", key);
    return value[key].get<std::string>();
  }

  std::string image_prompt(const Json& settings) {
    if (!settings.contains("image_prompt")) return "";
    return base::base64(services_.files.read(settings["image_prompt"], services_.store.data / "work" / job_.job().id,
                                             kMostPictureBytes, &job_.cancel_token()));
  }

  Json ask(const char* method, const std::string& url, const Json& body) {
    // The operator chose the endpoint, so it may lie in the local network; the guard is for what others name.
    const hub::HttpResponse answer = hub::send({.method = method,
                                                .url = url,
                                                .headers = {{"x-key", services_.gateway.key},
                                                            {"accept", "application/json"},
                                                            {"Content-Type", "application/json"}},
                                                .body = body.is_null() ? "" : body.dump(),
                                                .cancel = &job_.cancel_token()});
    base::check(answer.status != 401 && answer.status != 403, ErrorKind::bad_input,
                "{} does not accept the key in BFL_API_KEY (status {})", endpoint_.host, answer.status);
    base::check(answer.ok(), ErrorKind::bad_input, "{} refused the request (status {}): {}", endpoint_.host,
                answer.status, complaint(answer));
    Json out = Json::parse(answer.body, nullptr, false);
    base::check(out.is_object(), ErrorKind::bad_input, "{} answered with something that is not JSON", endpoint_.host);
    return out;
  }

  /// The address the service wants to be asked at, if it is the same service.
  std::string polling_url(const Json& accepted) const {
    const std::string fallback =
        services_.gateway.endpoint + "/v1/get_result?id=" + hub::url_encoded(text(accepted, "id"));
    if (!accepted.contains("polling_url") || !accepted["polling_url"].is_string()) return fallback;
    const hub::Url url = hub::Url::parse(accepted["polling_url"].get<std::string>());
    const bool theirs = url.scheme == "https" && (url.host.ends_with(".bfl.ai") || url.host.ends_with(".bfl.ml")) &&
                        (endpoint_.host.ends_with(".bfl.ai") || endpoint_.host.ends_with(".bfl.ml"));
    return theirs || url.same_origin(endpoint_) ? url.text : fallback;
  }

  Json wait(const Json& accepted) {
    const std::string url = polling_url(accepted);
    const auto end = std::chrono::steady_clock::now() + kPatience;
    for (;;) {
      job_.cancel_token().throw_if_requested();
      const Json state = ask("GET", url, nullptr);
      const std::string status = text(state, "status");
      if (status == "Ready") return state.value("result", Json::object());
      base::check(status == "Pending" || status == "Queued" || status == "Processing", ErrorKind::bad_input,
                  "the remote service ended the request: {}", base::printable(status));
      if (state.contains("progress") && state["progress"].is_number())
        job_.progress("remote", static_cast<int64_t>(state["progress"].get<double>() * 100), 100);
      base::check(std::chrono::steady_clock::now() < end, ErrorKind::not_found,
                  "the remote service has not finished after {} minutes", kPatience.count());
      std::this_thread::sleep_for(services_.gateway.poll);
    }
  }

  std::string fetch(const std::string& url) {
    // Pictures lie elsewhere; only where the endpoint itself is local may they be local, too.
    const bool local = hub::Url::parse(url).same_origin(endpoint_);
    const hub::HttpResponse answer = hub::send({.url = url,
                                                .max_bytes = kMostPictureBytes,
                                                .follow_redirects = 3,
                                                .guard = local ? nullptr : &services_.files.guard(),
                                                .cancel = &job_.cancel_token()});
    base::check(answer.ok(), ErrorKind::not_found, "{}: the finished picture cannot be fetched (status {})",
                hub::shown_url(url), answer.status);
    return answer.body;
  }

  Json save(const std::string& bytes, const Json& settings) {
    const OutputFormat format = output_format(settings);
    const auto view = std::as_bytes(std::span(bytes));
    const bool same = image::format_from_content(view) == format.encode.format && format.ending == "png";
    const std::string encoded =
        same ? bytes : image::encode(image::decode(view, "the remote service's picture"), format.encode);
    std::string refused;
    const std::string reference = store_picture(job_, services_, encoded, 0, format.ending, refused);
    base::check(!reference.empty(), ErrorKind::bad_input, "{}", refused);
    job_.output(reference);
    return reference;
  }

  JobWriter& job_;
  const ServedModel& model_;
  Services& services_;
  hub::Url endpoint_;
};

}  // namespace

Json gateway_request(const ServedModel& model, const Json& settings, const std::string& image) {
  Json body = {{"prompt", settings.value("prompt", "")}, {"output_format", "png"}};  // encoded here as asked
  for (const char* key : {"seed", "safety_tolerance", "prompt_upsampling", "steps", "guidance", "interval", "raw",
                          "image_prompt_strength"})
    if (settings.contains(key) && model.find(key)) body[key] = settings[key];
  if (!image.empty()) body["image_prompt"] = image;
  const std::string ratio = settings.value("aspect_ratio", "1:1");
  if (!model.find("width")) {
    body["aspect_ratio"] = ratio;
    return body;
  }
  const PictureSize size = ratio == "custom"
                               ? PictureSize{settings.value("width", kSide), settings.value("height", kSide)}
                               : picture_size(ratio, kSide, /*quarter=*/false);
  body["width"] = to_multiple(size.width);
  body["height"] = to_multiple(size.height);
  return body;
}

JobResult run_gateway(JobWriter& job, const ServedModel& model, Services& services) {
  return Gateway(job, model, services).run();
}

}  // namespace calotype::worker
