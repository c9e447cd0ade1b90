#include "server/problem.h"

#include <fmt/format.h>

namespace calotype::server {
using base::ErrorKind;

namespace {

Problem from_kind(ErrorKind kind, const std::string& detail) {
  switch (kind) {
    case ErrorKind::bad_input: return Problem(422, "Invalid input", detail);
    case ErrorKind::not_found: return Problem(404, "Not found", detail);
    case ErrorKind::corrupt_file: return Problem(422, "Damaged file", detail);
    case ErrorKind::unsupported: return Problem(422, "Not supported", detail);
    case ErrorKind::out_of_memory: return Problem(503, "Out of memory", detail);
    case ErrorKind::disk_full: return Problem(507, "Insufficient storage", detail);
    case ErrorKind::conflict: return Problem(409, "Conflict", detail);
    case ErrorKind::canceled: return Problem(409, "Canceled", detail);
    case ErrorKind::internal: break;
  }
  return Problem(500, "Internal error", detail);
}

Problem as_problem(const std::exception& error) {
  if (const auto* problem = dynamic_cast<const Problem*>(&error)) return *problem;
  if (const auto* known = dynamic_cast<const base::Error*>(&error)) return from_kind(known->kind(), known->what());
  if (dynamic_cast<const std::bad_alloc*>(&error))
    return from_kind(ErrorKind::out_of_memory, "The server is out of memory.");
  return Problem(500, "Internal error", "The server made a mistake; its log says more.");
}

Json replicate_body(const Problem& problem) {
  Json body = {{"title", problem.title}, {"detail", problem.what()}, {"status", problem.status}};
  for (const InvalidInput& field : problem.invalid_fields)
    body["invalid_fields"].push_back(
        {{"type", field.type}, {"field", field.field}, {"description", field.description}});
  return body;
}

// platform.openai.com, "Error codes": the client library reads all four keys.
Json openai_body(const Problem& problem) {
  const bool ours = problem.status >= 500;
  return {{"error",
           {{"message", problem.what()},
            {"type", ours                    ? "server_error"
                     : problem.status == 429 ? "rate_limit_error"
                                             : "invalid_request_error"},
            {"param", problem.invalid_fields.empty() ? Json() : Json(problem.invalid_fields.front().field)},
            {"code", problem.status == 401   ? Json("invalid_api_key")
                     : problem.status == 404 ? Json("not_found")
                                             : Json()}}}};
}

// FastAPI's shape, which BFL and Cog share: a sentence, or a list with the place of each fault.
Json fastapi_body(const Problem& problem) {
  if (problem.invalid_fields.empty()) return {{"detail", problem.what()}};
  Json list = Json::array();
  for (const InvalidInput& field : problem.invalid_fields) {
    Json place = Json::array({"body"});
    for (size_t from = 0; from <= field.field.size();) {
      const size_t dot = std::min(field.field.find('.', from), field.field.size());
      if (dot > from) place.push_back(field.field.substr(from, dot - from));
      from = dot + 1;
    }
    list.push_back({{"loc", place}, {"msg", field.description}, {"type", "value_error." + field.type}});
  }
  return {{"detail", list}};
}

}  // namespace

Problem not_found(const std::string& detail) { return Problem(404, "Not found", detail); }

Problem invalid_input(std::vector<InvalidInput> fields) {
  std::string detail;
  for (const InvalidInput& field : fields) detail += fmt::format("- {}: {}\n", field.field, field.description);
  Problem problem(422, "Input validation failed", detail);
  problem.invalid_fields = std::move(fields);
  return problem;
}

Problem invalid_field(std::string field, std::string description, std::string type) {
  return invalid_input({{.type = std::move(type), .field = std::move(field), .description = std::move(description)}});
}

Response problem_response(const std::exception& error, Dialect dialect) {
  const Problem problem = as_problem(error);
  Response response;
  switch (dialect) {
    case Dialect::replicate:
      response = json_response(replicate_body(problem), problem.status);
      response.content_type = "application/problem+json";
      break;
    case Dialect::openai:
      // OpenAI knows no 422; its clients raise BadRequestError for what is wrong with a request.
      response = json_response(openai_body(problem), problem.status == 422 ? 400 : problem.status);
      break;
    case Dialect::bfl:
    case Dialect::cog: response = json_response(fastapi_body(problem), problem.status); break;
  }
  for (const auto& [name, value] : problem.headers) response.with(name, value);
  // rpy2 and openai repeat POST requests after 409 and 5xx unless told not to; a repetition cannot succeed here.
  if (problem.status == 409 || (problem.status >= 500 && problem.status != 503))
    response.with("x-should-retry", "false");
  return response;
}

}  // namespace calotype::server
