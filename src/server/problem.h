// Errors as the clients of each API expect them: RFC 9457 problem objects for Replicate's, and three other shapes.
//
//   throw Problem(404, "Not found", "The model me/x does not exist.");
//   throw invalid_input({{.type = "number_lte", .field = "input.num_outputs", .description = "…"}});
//
// Handlers throw Problem or base::Error; the router turns either into an answer. Thread-safe.
#pragma once

#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/error.h"
#include "server/http_message.h"

namespace calotype::server {

/// What is wrong with one field of a request, in the words that Replicate uses ("required", "invalid_type", "enum", …).
struct InvalidInput {
  std::string type, field, description;
};

class Problem : public std::runtime_error {
 public:
  Problem(int http_status, std::string short_title, const std::string& detail)
      : std::runtime_error(detail), status(http_status), title(std::move(short_title)) {}

  int status;
  std::string title;
  std::vector<InvalidInput> invalid_fields;
  std::vector<std::pair<std::string, std::string>> headers;  ///< e.g. Retry-After
};

Problem not_found(const std::string& detail);
/// 422 with a line per field.
Problem invalid_input(std::vector<InvalidInput> fields);
/// 422 about one field of the body.
Problem invalid_field(std::string field, std::string description, std::string type = "invalid_value");

/// Whose clients read the answer.
enum class Dialect { replicate, openai, bfl, cog };

/// The answer to an exception that a handler let out: a Problem as it is, base::Error by kind, anything else a 500
/// without details.
Response problem_response(const std::exception& error, Dialect dialect);

}  // namespace calotype::server
