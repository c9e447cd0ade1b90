// The models that can be called by name, and what each of them takes: one table for schemas, checks and workers.
//
//   const ServedModel* model = find_model("black-forest-labs/flux-schnell");
//   CheckedInput checked = check_input(*model, request.at("input"));
//   if (!checked.errors.empty()) …                             // 422 naming the fields
//   store.create({.input = checked.input, .secrets = checked.secrets, …});
//   Json settings = with_defaults(*model, job.input);          // what a worker runs
//
// Names, ranges and defaults are those that published clients send to Replicate's models of the same names (their
// public schemas and cog-flux predict.py). Pure functions over constant tables, any thread; no LibTorch: servers
// include this.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace calotype::worker {

using Json = nlohmann::json;

enum class FieldType {
  string,
  integer,
  number,
  boolean,
  file,     ///< URI of a file: http(s), data:, or a file of this server
  secret,   ///< string that is never stored with the input, logged or answered
  seed,     ///< integer 0 to 2⁶⁴ − 1; as a string of digits too, because JSON numbers of browsers end at 2⁵³
  strings,  ///< array of strings
  numbers   ///< array of numbers
};

struct Field {
  std::string name;
  FieldType type = FieldType::string;
  std::string title = {};  ///< "" = the name in Title Case
  std::string description;
  Json default_value = nullptr;  ///< null = none
  std::optional<double> minimum = {}, maximum = {};
  std::vector<std::string> values = {};  ///< of an enum; empty: any
  bool required = false;
  bool hidden = false;  ///< accepted, but not in the schema: keys of other generations of the model, and extensions
};

enum class Task { text_to_image, trainer, gateway, text };

struct ServedModel {
  std::string owner, name;
  std::string description;
  std::string license_url;
  Task task = Task::text_to_image;
  std::string backend;  ///< text_to_image: "schnell" or "dev"; gateway: path of the remote API; else ""
  std::vector<Field> fields;
  bool single_output = false;  ///< output is one value, not an array

  std::string full_name() const { return owner + "/" + name; }
  const Field* find(const std::string& field) const;  ///< nullptr: no such field
};

/// Everything that exists without training: FLUX.1 by its variants, trainers, gateways, the canary.
const std::vector<ServedModel>& official_models();
/// What every trained model takes; owner and name are empty.
const ServedModel& fine_tuned_model();
/// One of official_models(), or nullptr; the text after a ':' (a version) is ignored.
const ServedModel* find_model(const std::string& owner_and_name);

/// OpenAPI 3.0.2 as Cog writes it: schemas Input, Output, one per enum, Prediction…, of trainers also Training…
/// Reference: cog pkg/schema/openapi_spec.go.
Json openapi_schema(const ServedModel& model);

/// 64 lower-case hexadecimal digits that stay the same as long as model, schema and weights do.
/// `weights` is any text that stands for the weights (model_config.h has a fingerprint), "" for none.
std::string version_id(const ServedModel& model, const std::string& weights);

/// One complaint, in the form of Replicate's `invalid_fields`.
struct InvalidField {
  std::string type;   ///< required, invalid_type, number_gte, number_lte, enum, additional_property_not_allowed, format
  std::string field;  ///< "input.num_outputs", or "input"
  std::string description;
};

struct CheckedInput {
  Json input;  ///< as given, without nulls and secrets; empty object when the input is no object
  std::map<std::string, std::string> secrets;
  std::vector<InvalidField> errors;  ///< empty: fine
};

/// Complains about unknown and missing fields, wrong types (numbers as strings are wrong), ranges and enums, broken
/// UTF-8 and NUL. null counts as absent. Secrets given as "" are dropped.
CheckedInput check_input(const ServedModel& model, const Json& input);

/// The input with every default filled in and each seed as a number; fields without default stay absent. Checks
/// nothing: internal callers may go beyond the ranges that the schema states (num_outputs above 4, for example).
Json with_defaults(const ServedModel& model, const Json& input);

/// "- input.num_outputs: Must be less than or equal to 4\n" for each complaint: the `detail` of the answer.
std::string detail_text(const std::vector<InvalidField>& errors);

}  // namespace calotype::worker
