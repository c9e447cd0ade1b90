#include <string_view>

#include "base/sha256.h"
#include "worker/model_catalog.h"

namespace calotype::worker {
namespace {

constexpr const char* kCogVersion = "0.9.25";

/// "num_inference_steps" → "Num Inference Steps".
std::string title_case(std::string_view name) {
  std::string out;
  bool start = true;
  for (const char c : name) {
    out += c == '_' ? ' ' : start && c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    start = c == '_';
  }
  return out;
}

/// Whole numbers without ".0", as the schemas of integer fields are written.
Json number(double value) {
  const auto whole = static_cast<int64_t>(value);
  return static_cast<double>(whole) == value ? Json(whole) : Json(value);
}

Json type_of(FieldType type) {
  switch (type) {
    case FieldType::integer:
    case FieldType::seed: return {{"type", "integer"}};
    case FieldType::number: return {{"type", "number"}};
    case FieldType::boolean: return {{"type", "boolean"}};
    case FieldType::file: return {{"type", "string"}, {"format", "uri"}};
    case FieldType::secret:
      return {{"type", "string"}, {"format", "password"}, {"writeOnly", true}, {"x-cog-secret", true}};
    case FieldType::strings: return {{"type", "array"}, {"items", {{"type", "string"}}}};
    case FieldType::numbers: return {{"type", "array"}, {"items", {{"type", "number"}}}};
    case FieldType::string: break;
  }
  return {{"type", "string"}};
}

Json reference(const std::string& schema) { return {{"$ref", "#/components/schemas/" + schema}}; }

Json property(const Field& field, int order) {
  Json out = {{"x-order", order}, {"description", field.description}};
  if (!field.values.empty())
    out["allOf"] = Json::array({reference(field.name)});
  else {
    out["title"] = field.title.empty() ? title_case(field.name) : field.title;
    out.update(type_of(field.type));
  }
  if (!field.default_value.is_null()) out["default"] = field.default_value;
  if (field.minimum) out["minimum"] = number(*field.minimum);
  if (field.maximum) out["maximum"] = number(*field.maximum);
  return out;
}

Json input_schema(const ServedModel& model, const std::string& title) {
  Json properties = Json::object(), required = Json::array();
  int order = 0;
  for (const Field& field : model.fields) {
    if (field.hidden) continue;
    properties[field.name] = property(field, order++);
    if (field.required) required.push_back(field.name);
  }
  Json out = {{"title", title}, {"type", "object"}, {"properties", properties}};
  if (!required.empty()) out["required"] = required;
  return out;
}

Json output_schema(const ServedModel& model) {
  const Json uri = {{"type", "string"}, {"format", "uri"}};
  if (model.task == Task::text)
    return {{"title", "Output"},
            {"type", "array"},
            {"items", {{"type", "string"}}},
            {"x-cog-array-type", "iterator"},
            {"x-cog-array-display", "concatenate"}};
  if (model.single_output) return {{"title", "Output"}, {"type", "string"}, {"format", "uri"}};
  return {{"title", "Output"}, {"type", "array"}, {"items", uri}};
}

Json named(const char* title, const char* type) { return {{"title", title}, {"type", type}}; }

Json time_field(const char* title) { return {{"title", title}, {"type", "string"}, {"format", "date-time"}}; }

Json request_schema(const std::string& name, const std::string& input) {
  const Json events = {
      {"type", "array"}, {"items", reference("WebhookEvent")}, {"default", {"start", "output", "logs", "completed"}}};
  return {{"title", name},
          {"type", "object"},
          {"properties",
           {{"id", named("Id", "string")},
            {"input", reference(input)},
            {"created_at", time_field("Created At")},
            {"output_file_prefix", named("Output File Prefix", "string")},
            {"webhook",
             {{"title", "Webhook"}, {"type", "string"}, {"format", "uri"}, {"minLength", 1}, {"maxLength", 65536}}},
            {"webhook_events_filter", events}}}};
}

Json response_schema(const std::string& name, const std::string& input, const std::string& output) {
  return {{"title", name},
          {"type", "object"},
          {"properties",
           {{"id", named("Id", "string")},
            {"input", reference(input)},
            {"output", reference(output)},
            {"version", named("Version", "string")},
            {"created_at", time_field("Created At")},
            {"started_at", time_field("Started At")},
            {"completed_at", time_field("Completed At")},
            {"status", reference("Status")},
            {"error", named("Error", "string")},
            {"logs", {{"title", "Logs"}, {"type", "string"}, {"default", ""}}},
            {"metrics", named("Metrics", "object")}}}};
}

Json enumeration(const char* title, const std::vector<std::string>& values) {
  return {{"title", title}, {"type", "string"}, {"enum", values}, {"description", "An enumeration."}};
}

void add_common_schemas(Json& schemas) {
  schemas["Status"] = enumeration("Status", {"starting", "processing", "succeeded", "canceled", "failed"});
  schemas["WebhookEvent"] = enumeration("WebhookEvent", {"start", "output", "logs", "completed"});
  const Json place = {{"anyOf", {{{"type", "string"}}, {{"type", "integer"}}}}};
  schemas["ValidationError"] = {{"title", "ValidationError"},
                                {"type", "object"},
                                {"required", {"loc", "msg", "type"}},
                                {"properties",
                                 {{"loc", {{"title", "Location"}, {"type", "array"}, {"items", place}}},
                                  {"msg", named("Message", "string")},
                                  {"type", named("Error Type", "string")}}}};
  schemas["HTTPValidationError"] = {
      {"title", "HTTPValidationError"},
      {"type", "object"},
      {"properties", {{"detail", {{"title", "Detail"}, {"type", "array"}, {"items", reference("ValidationError")}}}}}};
}

Json answer(const char* description, const Json& schema) {
  return {{"description", description}, {"content", {{"application/json", {{"schema", schema}}}}}};
}

Json answers(const Json& schema) {
  return {{"200", answer("Successful Response", schema)},
          {"422", answer("Validation Error", reference("HTTPValidationError"))}};
}

Json get_path(const char* summary, const char* operation) {
  return {{"get",
           {{"summary", summary},
            {"operationId", operation},
            {"responses", {{"200", answer("Successful Response", Json::object())}}}}}};
}

/// Paths of one kind of job: "prediction" or "training".
void add_paths(Json& paths, const std::string& kind, const std::string& Kind, const char* verb) {
  const Json body = {{"content", {{"application/json", {{"schema", reference(Kind + "Request")}}}}}};
  paths["/" + kind + "s"] = {{"post",
                              {{"summary", verb},
                               {"description", "Run a single " + kind + " on the model"},
                               {"operationId", kind + "s_post"},
                               {"requestBody", body},
                               {"responses", answers(reference(Kind + "Response"))}}}};
  const Json id = {{"name", kind + "_id"},
                   {"in", "path"},
                   {"required", true},
                   {"schema", {{"title", Kind + " Id"}, {"type", "string"}}}};
  paths["/" + kind + "s/{" + kind + "_id}/cancel"] = {{"post",
                                                       {{"summary", "Cancel"},
                                                        {"operationId", kind + "s_cancel"},
                                                        {"parameters", Json::array({id})},
                                                        {"responses", answers(Json::object())}}}};
}

void add_job(Json& schemas, const std::string& kind, const std::string& input, const std::string& output) {
  schemas[kind + "Request"] = request_schema(kind + "Request", input);
  schemas[kind + "Response"] = response_schema(kind + "Response", input, output);
}

}  // namespace

Json openapi_schema(const ServedModel& model) {
  Json schemas = Json::object(), paths = Json::object();
  paths["/"] = get_path("Root", "root__get");
  paths["/health-check"] = get_path("Healthcheck", "healthcheck_health_check_get");
  add_paths(paths, "prediction", "Prediction", "Predict");
  add_job(schemas, "Prediction", "Input", "Output");
  schemas["Output"] = output_schema(model);
  if (model.task == Task::trainer) {
    // A trainer draws nothing: predictions take no input.
    schemas["Input"] = {{"title", "Input"}, {"type", "object"}, {"properties", Json::object()}};
    schemas["TrainingInput"] = input_schema(model, "TrainingInput");
    schemas["TrainingOutput"] = {{"title", "TrainingOutput"},
                                 {"type", "object"},
                                 {"required", {"weights"}},
                                 {"properties",
                                  {{"weights", {{"title", "Weights"}, {"type", "string"}, {"format", "uri"}}},
                                   {"version", named("Version", "string")}}}};
    add_paths(paths, "training", "Training", "Train");
    add_job(schemas, "Training", "TrainingInput", "TrainingOutput");
  } else {
    schemas["Input"] = input_schema(model, "Input");
  }
  for (const Field& field : model.fields)
    if (!field.values.empty() && !field.hidden) schemas[field.name] = enumeration(field.name.c_str(), field.values);
  add_common_schemas(schemas);
  return {{"openapi", "3.0.2"},
          {"info", {{"title", "Cog"}, {"version", kCogVersion}}},
          {"paths", paths},
          {"components", {{"schemas", schemas}}}};
}

/// Wording is left out: a better description is no new version.
std::string version_id(const ServedModel& model, const std::string& weights) {
  Json fields = Json::array();
  for (const Field& f : model.fields)
    if (!f.hidden)
      fields.push_back({f.name, type_of(f.type), f.default_value, f.minimum.value_or(0), f.maximum.value_or(0),
                        f.values, f.required});
  base::Sha256 hash;
  hash.update(Json{model.full_name(), model.backend, weights, fields, output_schema(model)}.dump());
  return hash.hex();
}

}  // namespace calotype::worker
