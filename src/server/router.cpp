#include "server/router.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/utf8.h"

namespace calotype::server {

namespace {

std::vector<std::string> split(std::string_view path) {
  std::vector<std::string> segments;
  while (!path.empty()) {
    path.remove_prefix(1);  // the slash
    const size_t end = std::min(path.find('/'), path.size());
    segments.emplace_back(path.substr(0, end));
    path.remove_prefix(end);
  }
  if (segments.size() > 1 && segments.back().empty()) segments.pop_back();  // "/models/" is "/models"
  return segments;
}

/// "{id}", or "stream-{token}": where the parameter begins, or npos.
size_t parameter_begin(const std::string& segment) {
  return segment.ends_with('}') ? segment.find('{') : std::string::npos;
}

/// Parameters hold text that a database takes: valid UTF-8 without NUL.
std::optional<std::string> parameter_value(std::string_view segment) {
  auto value = percent_decoded(segment);
  if (!value || value->empty() || value->find('\0') != std::string::npos || base::first_broken_utf8(*value))
    return std::nullopt;
  return value;
}

std::optional<std::map<std::string, std::string, std::less<>>> matches(const std::vector<std::string>& pattern,
                                                                       const std::vector<std::string>& path) {
  std::map<std::string, std::string, std::less<>> parameters;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const size_t begin = parameter_begin(pattern[i]);
    if (pattern[i].ends_with("*}")) {
      const std::vector<std::string> rest(path.begin() + static_cast<ptrdiff_t>(std::min(i, path.size())), path.end());
      parameters[pattern[i].substr(1, pattern[i].size() - 3)] = fmt::format("{}", fmt::join(rest, "/"));
      return parameters;
    }
    if (i >= path.size()) return std::nullopt;
    if (begin == std::string::npos) {
      if (pattern[i] != path[i]) return std::nullopt;
      continue;
    }
    if (!path[i].starts_with(std::string_view(pattern[i]).substr(0, begin))) return std::nullopt;
    auto value = parameter_value(std::string_view(path[i]).substr(begin));
    if (!value) return std::nullopt;
    parameters[pattern[i].substr(begin + 1, pattern[i].size() - begin - 2)] = std::move(*value);
  }
  if (path.size() != pattern.size()) return std::nullopt;
  return parameters;
}

/// Of parameters alone: it takes whatever nothing else is, and says of no path that something is there.
bool is_nameless(const std::vector<std::string>& pattern) {
  return std::ranges::all_of(pattern, [](const std::string& segment) { return parameter_begin(segment) == 0; });
}

}  // namespace

void Router::add(Route route, const std::vector<std::string>& mounts) {
  for (const std::string& mount : mounts) entries_.push_back({split(mount + route.pattern), route});
}

void Router::add(std::vector<Route> routes, const std::vector<std::string>& mounts) {
  for (Route& route : routes) add(std::move(route), mounts);
}

Match Router::find(std::string_view method, std::string_view path) const {
  if (path.empty() || path.front() != '/') throw not_found("Paths start with a slash.");
  const std::vector<std::string> segments = split(path);
  std::set<std::string> allowed;
  for (const Entry& entry : entries_) {
    auto parameters = matches(entry.segments, segments);
    if (!parameters || (is_nameless(entry.segments) && !allowed.empty())) continue;
    if (entry.route.method == method || (method == "HEAD" && entry.route.method == "GET"))
      return {&entry.route, std::move(*parameters)};
    if (!is_nameless(entry.segments)) allowed.insert(entry.route.method);
  }
  if (allowed.empty()) throw not_found(fmt::format("Nothing lives at {}.", base::printable(path)));
  Problem problem(405, "Method not allowed",
                  fmt::format("{} does not answer {}, only {}.", base::printable(path), base::printable(method, 20),
                              fmt::join(allowed, ", ")));
  problem.headers.emplace_back("Allow", fmt::format("{}", fmt::join(allowed, ", ")));
  throw problem;
}

}  // namespace calotype::server
