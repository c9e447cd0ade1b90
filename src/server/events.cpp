#include "server/events.h"

#include <fmt/format.h>

#include <charconv>

#include "server/problem.h"
#include "server/replicate_objects.h"

namespace calotype::server {
using namespace std::chrono_literals;
using store::Job;
using store::JobEvent;
using store::JobStatus;

namespace {

enum class Stream { replicate, rich };

struct Follower {
  Site& site;
  std::string base_url;
  Stream kind;
  int64_t place = -1;  // in the queue, as last told
};

int64_t last_event(const Request& request) {
  const std::string_view text = request.header("last-event-id");
  int64_t seq = 0;
  std::from_chars(text.data(), text.data() + text.size(), seq);
  return seq;
}

std::string id_of(int64_t seq) { return fmt::format("{}:0", seq); }

/// Text for strings, a URL for files, JSON for the rest.
std::string output_text(const Follower& follower, const std::string& data) {
  const Json value = Json::parse(data, nullptr, /*allow_exceptions=*/false);
  if (value.is_discarded()) return data;
  const Json shown = output_json(follower.site, value, follower.base_url, /*data_uris=*/false);
  return shown.is_string() ? shown.get<std::string>() : dump(shown);
}

std::string frame_of(const Follower& follower, const Job& job, const JobEvent& event) {
  const std::string id = id_of(event.seq);
  if (event.kind == "logs") return event_frame("logs", id, event.data);
  if (event.kind == "output")  // a training's output is an object; Replicate's streams carry none
    return job.kind == store::JobKind::training && follower.kind == Stream::replicate
               ? ""
               : event_frame("output", id, output_text(follower, event.data));
  if (follower.kind == Stream::replicate) return "";
  if (event.kind == "preview") {
    const auto file = follower.site.store.files->find(event.data);
    return file ? event_frame("preview", id, file_url(*file, follower.base_url)) : "";
  }
  return event_frame(event.kind, id, event.data);
}

std::string end_frames(const Job& job) {
  const std::string id = id_of(job.change);
  std::string frames;
  if (job.status == JobStatus::failed) frames += event_frame("error", id, job.error.value_or("failed"));
  const Json reason = job.status == JobStatus::succeeded
                          ? Json::object()
                          : Json{{"reason", job.status == JobStatus::failed ? "error" : "canceled"}};
  return frames + event_frame("done", id, dump(reason));
}

std::string queue_frame(Follower& follower, const Job& job) {
  if (follower.kind != Stream::rich || job.status != JobStatus::starting) return "";
  const int64_t place = follower.site.store.jobs->queue_place(job.id);
  if (place == follower.place) return "";
  follower.place = place;
  return event_frame("queue", id_of(job.change), fmt::format("{{\"place\":{}}}", place));
}

/// Writes until the job has ended, the client is gone or the server stops; then an EventSource asks again.
void follow(Follower follower, Job job, int64_t seen, std::ostream& out) {
  out << "retry: 1000\n\n" << std::flush;
  auto last_write = std::chrono::steady_clock::now();
  while (out.good() && !follower.site.stopping) {
    const auto now = follower.site.store.jobs->find(job.id);
    if (!now) return;
    job = *now;  // before the events: whatever it says has its events by now
    std::string frames;
    for (bool more = true; more;) {
      const auto events = follower.site.store.jobs->events(job.id, seen);
      for (const JobEvent& event : events) {
        frames += frame_of(follower, job, event);
        seen = event.seq;
      }
      more = !events.empty();
    }
    const bool ended = store::is_terminal(job.status);
    frames += ended ? end_frames(job) : queue_frame(follower, job);
    if (frames.empty() && std::chrono::steady_clock::now() - last_write > 9s) frames = ": ping\n\n";
    if (!frames.empty()) {
      out << frames << std::flush;
      last_write = std::chrono::steady_clock::now();
    }
    if (ended) return;
    follower.site.store.jobs->wait_for_change(job.id, job.change, 2s);
  }
}

Response stream(Site& site, const Request& request, const Job& job, Stream kind) {
  Response response = text_response("", "text/event-stream");
  response.with("Cache-Control", "no-store").with("X-Accel-Buffering", "no");
  response.write = [follower = Follower{site, request.base_url, kind}, job,
                    seen = last_event(request)](std::ostream& out) { follow(follower, job, seen, out); };
  return response;
}

Response by_token(Site& site, Request& request, Stream kind) {
  const auto job = site.store.jobs->find_by_stream(request.parameter("token"));
  if (!job) throw not_found("The requested resource could not be found.");
  return stream(site, request, *job, kind);
}

Response by_id(Site& site, Request& request) {
  const auto job = site.store.jobs->find(request.parameter("id"));
  if (!job) throw not_found("The requested resource could not be found.");
  return stream(site, request, *job, Stream::rich);
}

}  // namespace

std::string event_frame(std::string_view event, std::string_view id, std::string_view data) {
  std::string frame = fmt::format("event: {}\nid: {}\n", event, id);
  // Every kind of line break ends a line for the receiver; bars of progress come with "\r".
  for (;;) {
    const size_t end = data.find_first_of("\r\n");
    frame += fmt::format("data: {}\n", data.substr(0, end));
    if (end == std::string_view::npos) break;
    data.remove_prefix(data.substr(end).starts_with("\r\n") ? end + 2 : end + 1);
  }
  return frame + "\n";
}

std::vector<Route> event_routes(Site& site) {
  return {
      {"GET", "/files/stream-{token}", [&site](Request& request) { return by_token(site, request, Stream::replicate); },
       Access::open},
      {"GET", "/stream/{token}", [&site](Request& request) { return by_token(site, request, Stream::replicate); },
       Access::open},
      {"GET", "/events/{token}", [&site](Request& request) { return by_token(site, request, Stream::rich); },
       Access::open},
      {"GET", "/predictions/{id}/events", [&site](Request& request) { return by_id(site, request); }},
      {"GET", "/trainings/{id}/events", [&site](Request& request) { return by_id(site, request); }},
  };
}

}  // namespace calotype::server
