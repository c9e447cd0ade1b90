// OpenAI's images API on the models of this server.
#include <fmt/format.h>

#include <charconv>
#include <span>

#include "base/base64.h"
#include "image/image_codec.h"
#include "server/json_fields.h"
#include "server/multipart.h"
#include "server/other_apis.h"
#include "server/problem.h"
#include "server/replicate_objects.h"
#include "server/submit.h"
#include "store/file_reference.h"

namespace calotype::server {
using namespace std::chrono_literals;
using store::Job;
using store::JobStatus;

namespace {

const char* const kDefaultModel = "black-forest-labs/flux-schnell";
const char* const kEditingModel = "black-forest-labs/flux-dev";  // takes a picture to start from
constexpr size_t kMostPictureBytes = 50'000'000;                 // as OpenAI's
constexpr auto kPatience = 590s;  // the client library waits for 600 s

/// What was asked, checked.
struct ImageRequest {
  std::string model = kDefaultModel, prompt, size = "auto", format = "png", quality = "auto";
  int count = 1, compression = 100, partial_images = 0;
  bool base64 = false, stream = false;
  std::string start, mask;  ///< data: URIs of the picture to start from and of what is drawn anew, "" = none
  std::string events = "image_generation";  ///< what the names of a stream's events begin with
};

bool flag(const Json& body, const std::string& name) {
  const Json* found = given(body, name);
  if (!found) return false;
  if (!found->is_boolean()) throw invalid_field(name, "Must be true or false.", "invalid_type");
  return found->get<bool>();
}

std::string one_of(const Json& body, const std::string& name, const std::vector<std::string>& values,
                   const std::string& otherwise) {
  const std::string value = string_or(body, name, otherwise);
  if (std::ranges::find(values, value) == values.end())
    throw invalid_field(name, fmt::format("\"{}\" is not supported.", base::printable(value)), "enum");
  return value;
}

ImageRequest parsed(const Json& body) {
  ImageRequest image;
  image.prompt = string_or(body, "prompt", "");
  if (image.prompt.empty()) throw invalid_field("prompt", "prompt is required", "required");
  const std::string model = string_or(body, "model", "");
  // Scripts name OpenAI's own models; they get the default. Names with a slash mean models of this server.
  if (model.find('/') != std::string::npos) image.model = model;
  image.count = whole_number(body, "n", 1, 10, 1);
  image.size = string_or(body, "size", "auto");
  image.quality = one_of(body, "quality", {"standard", "hd", "low", "medium", "high", "xhigh", "max", "auto"}, "auto");
  image.format = one_of(body, "output_format", {"png", "jpeg", "webp"}, "png");
  image.compression = whole_number(body, "output_compression", 0, 100, 100);
  image.partial_images = whole_number(body, "partial_images", 0, 3, 0);
  image.stream = flag(body, "stream");
  const bool always_base64 = model.starts_with("gpt-image") || model.starts_with("chatgpt-image") || image.stream;
  image.base64 = one_of(body, "response_format", {"url", "b64_json"}, "url") == "b64_json" || always_base64;
  return image;
}

Json input_of(const ImageRequest& image) {
  Json input = {{"prompt", image.prompt},
                {"output_format", image.format == "jpeg" ? "jpg" : image.format},
                {"output_quality", image.compression}};
  if (!image.start.empty()) {  // the result has its shape
    input["image"] = image.start;
    if (!image.mask.empty()) input["mask"] = image.mask;
    return input;
  }
  if (image.size == "auto") return input;
  int width = 0, height = 0;
  const char* end = image.size.data() + image.size.size();
  const auto [x, first] = std::from_chars(image.size.data(), end, width);
  const auto [rest, second] =
      x < end ? std::from_chars(x + 1, end, height) : std::from_chars_result{x, std::errc::invalid_argument};
  if (first != std::errc() || second != std::errc() || *x != 'x' || rest != end || width < 64 || height < 64 ||
      width > 2048 || height > 2048)
    throw invalid_field("size", "Must be auto or WIDTHxHEIGHT from 64 to 2048 pixels, as in 1024x1024.");
  input["width"] = width;
  input["height"] = height;
  return input;
}

Job submitted(Site& site, const Request& request, const ImageRequest& image) {
  const auto names = owner_and_name(image.model);
  auto target = names ? find_target(site, names->first, names->second) : std::nullopt;
  if (!target || target->is_trainer())
    throw Problem(404, "Not found", fmt::format("The model `{}` does not exist.", base::printable(image.model)));
  Json input = input_of(image);
  use_given_size(*target->schema, input);
  Submission submission{.target = std::move(*target), .body = {{"input", input}}};
  submission.pictures = image.count;
  return submit(site, request, submission);
}

std::string base64_of(Site& site, const std::string& file_id) {
  const auto in = site.store.files->open(file_id);
  const std::string bytes(std::istreambuf_iterator<char>(*in), {});
  return base::base64(bytes);
}

Json picture_json(Site& site, const Json& reference, const ImageRequest& image, const std::string& base_url) {
  const auto id = reference.is_string() ? store::referenced_file(reference.get<std::string>()) : std::nullopt;
  if (id && image.base64) return {{"b64_json", base64_of(site, *id)}};
  return {{"url", output_json(site, reference, base_url, /*data_uris=*/false)}};
}

Json pictures(const Job& job) { return job.output.is_array() ? job.output : Json::array({job.output}); }

/// The client library counts on these when it shows costs; nothing is paid here.
Json usage() {
  return {{"input_tokens", 0},
          {"output_tokens", 0},
          {"total_tokens", 0},
          {"input_tokens_details", {{"text_tokens", 0}, {"image_tokens", 0}}}};
}

void check_succeeded(const Job& job) {
  if (job.status == JobStatus::succeeded) return;
  if (job.status == JobStatus::failed)
    throw Problem(500, "Failed", job.error.value_or("The picture could not be made."));
  if (job.status == JobStatus::canceled) throw Problem(409, "Canceled", "The request was canceled.");
  throw Problem(504, "Timeout", fmt::format("Not ready yet; its state is at /v1/predictions/{}.", job.id));
}

std::string frame(const Json& event) {
  return fmt::format("event: {}\ndata: {}\n\n", event["type"].get<std::string>(), dump(event));
}

/// `what` has happened: "partial_image" or "completed".
Json event_about(const ImageRequest& image, const Job& job, const std::string& what) {
  return {{"type", image.events + "." + what}, {"created_at", job.created_at / store::kSecond},
          {"size", image.size},                {"quality", image.quality},
          {"background", "opaque"},            {"output_format", image.format}};
}

/// Previews as partial images, spread over the steps, then the pictures.
void stream_pictures(Site& site, const ImageRequest& image, Job job, std::ostream& out) {
  int sent = 0;
  std::string last_preview;
  while (!store::is_terminal(job.status) && out.good() && !site.stopping) {
    if (!site.store.jobs->wait_for_change(job.id, job.change, 2s)) {
      out << ": ping\n\n" << std::flush;
      continue;
    }
    job = site.store.jobs->find(job.id).value_or(job);
    const auto& progress = job.progress;
    const bool due = progress.total > 0 && progress.done * (image.partial_images + 1) >= progress.total * (sent + 1);
    if (job.preview_file.empty() || job.preview_file == last_preview || sent >= image.partial_images || !due) continue;
    last_preview = job.preview_file;
    Json event = event_about(image, job, "partial_image");
    event["b64_json"] = base64_of(site, last_preview);
    event["partial_image_index"] = sent++;
    out << frame(event) << std::flush;
  }
  if (job.status != JobStatus::succeeded) {
    out << frame({{"type", "error"},
                  {"error",
                   {{"message", job.error.value_or("canceled")},
                    {"type", "server_error"},
                    {"param", nullptr},
                    {"code", nullptr}}}})
        << std::flush;
    return;
  }
  for (const Json& each : pictures(job)) {
    Json event = event_about(image, job, "completed");
    event.update(picture_json(site, each, image, ""));
    event["usage"] = usage();
    out << frame(event) << std::flush;
  }
}

std::string picture_of(const MultipartPart& part) {
  auto content = read_at_most(*part.body, kMostPictureBytes);
  if (!content)
    throw invalid_field(part.name, fmt::format("Must be smaller than {} MB.", kMostPictureBytes / 1'000'000));
  if (!image::format_from_content(std::as_bytes(std::span(*content))))
    throw invalid_field(part.name, "Must be a picture: PNG, JPEG or WebP.");
  return std::move(*content);
}

/// A form's field as generations has it in JSON.
Json form_value(const std::string& name, const std::string& value) {
  const bool is_number = name == "n" || name == "output_compression" || name == "partial_images";
  if (!is_number && name != "stream") return value;
  const Json parsed = Json::parse(value, nullptr, /*allow_exceptions=*/false);
  return parsed.is_discarded() ? Json(value) : parsed;
}

/// The form of images/edits: its first picture, its mask and the other fields.
ImageRequest read_form(Request& request) {
  MultipartReader reader(*request.body, boundary_of(request.header("content-type")));
  Json fields = {{"model", kEditingModel}};
  std::string picture, type, mask;
  while (const auto part = reader.next()) {
    if (part->name == "mask") {
      mask = picture_of(*part);
    } else if (part->name != "image" && part->name != "image[]") {
      fields[part->name] = form_value(part->name, field_text(*part));
    } else if (picture.empty()) {
      picture = picture_of(*part);
      type = part->content_type;
    }
  }
  if (picture.empty()) throw invalid_field("image", "A part named image with the picture is missing.", "required");
  ImageRequest image = parsed(fields);
  if (fields["model"].get<std::string>().find('/') == std::string::npos) image.model = kEditingModel;
  image.events = "image_edit";
  image.start = fmt::format("data:{};base64,{}", type.empty() ? "image/png" : type, base::base64(picture));
  if (!mask.empty()) image.mask = "data:image/png;base64," + base::base64(mask);
  return image;
}

Response draw(Site& site, Request& request, const ImageRequest& image) {
  Job job = submitted(site, request, image);
  if (image.stream) {
    Response response = text_response("", "text/event-stream");
    response.with("Cache-Control", "no-store");
    response.write = [&site, image, job](std::ostream& out) { stream_pictures(site, image, job, out); };
    return response;
  }
  job = wait_for_end(site, job, kPatience);
  check_succeeded(job);
  Json data = Json::array();
  for (const Json& each : pictures(job)) data.push_back(picture_json(site, each, image, request.base_url));
  return json_response({{"created", job.created_at / store::kSecond},
                        {"data", data},
                        {"output_format", image.format},
                        {"size", image.size},
                        {"quality", image.quality},
                        {"background", "opaque"},
                        {"usage", usage()}});
}

Response generate(Site& site, Request& request) { return draw(site, request, parsed(request.read_json_object())); }

Response edit(Site& site, Request& request) { return draw(site, request, read_form(request)); }

Response variations(Site&, Request&) {
  throw Problem(400, "Not supported",
                "Variations are not supported; POST /v1/images/edits with a prompt changes a picture.");
}

Response model(Site& site, Request& request) {
  const std::string& id = request.parameter("id");
  const auto names = owner_and_name(id);
  const auto target = names ? find_target(site, names->first, names->second) : std::nullopt;
  if (!target) throw not_found(fmt::format("The model `{}` does not exist.", base::printable(id)));
  return json_response(
      {{"id", id}, {"object", "model"}, {"created", target->created_at / store::kSecond}, {"owned_by", target->owner}});
}

}  // namespace

std::vector<Route> openai_routes(Site& site) {
  const auto with = [&site](Response (*function)(Site&, Request&)) {
    return [&site, function](Request& request) { return function(site, request); };
  };
  return {
      {"POST", "/images/generations", with(generate), Access::token, Cost::create, Dialect::openai},
      {"POST", "/images/edits", with(edit), Access::token, Cost::create, Dialect::openai},
      {"POST", "/images/variations", with(variations), Access::token, Cost::create, Dialect::openai},
      {"GET", "/models/{id}", with(model), Access::token, Cost::read, Dialect::openai},
  };
}

}  // namespace calotype::server
