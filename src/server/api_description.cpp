#include "server/api_description.h"

#include <fmt/format.h>

namespace calotype::server {

namespace {

struct Operation {
  const char *method, *path, *tag, *summary;
  const char* body;    ///< name of a schema, or ""
  const char* answer;  ///< name of a schema, "[]Name" for a page, or "" for none
  int status = 200;
  const char* query = "";  ///< names of parameters, comma-separated
};

constexpr Operation kOperations[] = {
    {"post", "/v1/predictions", "Predictions", "Run a version; Prefer: wait holds the answer", "NewPrediction",
     "Prediction", 201},
    {"get", "/v1/predictions", "Predictions", "Predictions, newest first", "", "[]Prediction", 200,
     "created_after,created_before,source,cursor,limit,status,model,search"},
    {"get", "/v1/predictions/{id}", "Predictions", "One prediction", "", "Prediction"},
    {"post", "/v1/predictions/{id}/cancel", "Predictions", "End it now", "", "Prediction"},
    {"get", "/v1/predictions/{id}/webhooks", "Predictions", "Deliveries of its webhook", "", "Object"},
    {"post", "/v1/models/{owner}/{name}/predictions", "Predictions", "Run a model's latest version", "ModelPrediction",
     "Prediction", 201},
    {"post", "/v1/deployments/{owner}/{name}/predictions", "Predictions", "Run a deployment", "ModelPrediction",
     "Prediction", 201},
    {"post", "/v1/models/{owner}/{name}/versions/{version}/trainings", "Trainings", "Train into a model of yours",
     "NewTraining", "Prediction", 201},
    {"get", "/v1/trainings", "Trainings", "Trainings, newest first", "", "[]Prediction", 200, "cursor,limit"},
    {"get", "/v1/trainings/{id}", "Trainings", "One training", "", "Prediction"},
    {"post", "/v1/trainings/{id}/cancel", "Trainings", "End it now", "", "Prediction"},
    {"get", "/v1/models", "Models", "All models (QUERY with a text body searches)", "", "[]Model", 200,
     "sort_by,sort_direction,cursor,limit"},
    {"post", "/v1/models", "Models", "Make a model to train into", "NewModel", "Model", 201},
    {"get", "/v1/search", "Models", "Search models and collections", "", "Object", 200, "query!,limit"},
    {"get", "/v1/models/{owner}/{name}", "Models", "One model", "", "Model"},
    {"patch", "/v1/models/{owner}/{name}", "Models", "Change its description", "ModelChange", "Model"},
    {"delete", "/v1/models/{owner}/{name}", "Models", "Delete a private model without versions", "", "", 204},
    {"get", "/v1/models/{owner}/{name}/readme", "Models", "Its README as Markdown", "", "Text"},
    {"get", "/v1/models/{owner}/{name}/examples", "Models", "Examples", "", "[]Prediction"},
    {"get", "/v1/models/{owner}/{name}/versions", "Models", "Its versions, newest first", "", "[]Version", 200,
     "cursor,limit"},
    {"get", "/v1/models/{owner}/{name}/versions/{version}", "Models", "One version with its input schema", "",
     "Version"},
    {"delete", "/v1/models/{owner}/{name}/versions/{version}", "Models", "Delete a version", "", "", 204},
    {"post", "/v1/files", "Files", "Upload a file (multipart, part \"content\")", "Upload", "File", 201},
    {"get", "/v1/files", "Files", "Uploads, newest first", "", "[]File", 200, "cursor,limit"},
    {"get", "/v1/files/{id}", "Files", "One file's description", "", "File"},
    {"delete", "/v1/files/{id}", "Files", "Delete an upload", "", "", 204},
    {"get", "/v1/files/{id}/download", "Files", "A file's bytes", "", "Bytes", 200, "owner,expiry,signature"},
    {"get", "/v1/deployments", "Deployments", "All deployments", "", "[]Deployment", 200, "cursor,limit"},
    {"post", "/v1/deployments", "Deployments", "Make one", "NewDeployment", "Deployment", 201},
    {"get", "/v1/deployments/{owner}/{name}", "Deployments", "One deployment", "", "Deployment"},
    {"patch", "/v1/deployments/{owner}/{name}", "Deployments", "Change it", "DeploymentChange", "Deployment"},
    {"delete", "/v1/deployments/{owner}/{name}", "Deployments", "Delete it", "", "", 204},
    {"get", "/v1/account", "Account", "Who owns this server", "", "Object"},
    {"get", "/v1/hardware", "Account", "Names of hardware", "", "List"},
    {"get", "/v1/collections", "Account", "Collections of models", "", "[]Object"},
    {"get", "/v1/collections/{slug}", "Account", "One collection", "", "Object"},
    {"get", "/v1/webhooks/default/secret", "Account", "Key of webhook signatures", "", "Object"},
    {"post", "/v1/images/generations", "OpenAI", "Pictures as OpenAI's images API", "OpenAIImages", "Object"},
    {"post", "/v1/flux-dev", "BFL", "A picture as Black Forest Labs' API", "BflImage", "Object"},
    {"get", "/v1/get_result", "BFL", "State and result of a request", "", "Object", 200, "id!"},
    {"get", "/health", "Operation", "Is the server alive?", "", "Object"},
};

// Bodies in the words of JSON Schema. Inputs differ from model to model: see `openapi_schema` of a version.
constexpr std::string_view kSchemas = R"({
"Object":{"type":"object"},"List":{"type":"array"},
"Problem":{"type":"object","required":["title","detail","status"],"properties":{"title":{"type":"string"},"detail":{"type":"string"},"status":{"type":"integer"},
 "invalid_fields":{"type":"array","items":{"type":"object","properties":{"type":{"type":"string"},"field":{"type":"string"},"description":{"type":"string"}}}}}},
"ModelPrediction":{"type":"object","required":["input"],"properties":{"input":{"type":"object"},"webhook":{"type":"string","format":"uri"},
 "webhook_events_filter":{"type":"array","items":{"enum":["start","output","logs","completed"]}},"stream":{"type":"boolean"}}},
"NewPrediction":{"type":"object","required":["version","input"],"properties":{"version":{"type":"string","description":"64 hexadecimal digits, owner/name, or owner/name:version"},
 "input":{"type":"object"},"webhook":{"type":"string","format":"uri"},"webhook_events_filter":{"type":"array","items":{"enum":["start","output","logs","completed"]}},"stream":{"type":"boolean"}}},
"NewTraining":{"type":"object","required":["destination","input"],"properties":{"destination":{"type":"string","description":"owner/name of an existing model"},"input":{"type":"object"},
 "webhook":{"type":"string","format":"uri"},"webhook_events_filter":{"type":"array","items":{"enum":["start","output","logs","completed"]}}}},
"Prediction":{"type":"object","required":["id","model","version","input","output","logs","error","status","created_at","urls"],"properties":{"id":{"type":"string"},"model":{"type":"string"},
 "version":{"type":"string"},"input":{"type":"object"},"output":{},"logs":{"type":"string"},"error":{"type":["string","null"]},
 "status":{"enum":["starting","processing","succeeded","failed","canceled"]},"source":{"type":"string"},"data_removed":{"type":"boolean"},"created_at":{"type":"string"},
 "started_at":{"type":["string","null"]},"completed_at":{"type":["string","null"]},"metrics":{"type":"object"},"urls":{"type":"object"}}},
"NewModel":{"type":"object","required":["owner","name","visibility","hardware"],"properties":{"owner":{"type":"string"},"name":{"type":"string"},"visibility":{"enum":["public","private"]},
 "hardware":{"type":"string"},"description":{"type":"string"},"github_url":{"type":"string"},"paper_url":{"type":"string"},"license_url":{"type":"string"},"cover_image_url":{"type":"string"}}},
"ModelChange":{"type":"object","properties":{"description":{"type":"string"},"readme":{"type":"string"},"github_url":{"type":"string"},"paper_url":{"type":"string"},"license_url":{"type":"string"},"visibility":{"enum":["public","private"]}}},
"Model":{"type":"object","required":["url","owner","name","visibility","run_count"],"properties":{"url":{"type":"string"},"owner":{"type":"string"},"name":{"type":"string"},
 "description":{"type":["string","null"]},"visibility":{"enum":["public","private"]},"run_count":{"type":"integer"},"latest_version":{"type":["object","null"]}}},
"Version":{"type":"object","required":["id","created_at","cog_version","openapi_schema"],"properties":{"id":{"type":"string"},"created_at":{"type":"string"},"cog_version":{"type":"string"},"openapi_schema":{"type":"object"}}},
"File":{"type":"object","required":["id","name","content_type","size","etag","checksums","metadata","created_at","urls"],"properties":{"id":{"type":"string"},"name":{"type":"string"},
 "content_type":{"type":"string"},"size":{"type":"integer"},"etag":{"type":"string"},"checksums":{"type":"object"},"metadata":{"type":"object"},"created_at":{"type":"string"},"expires_at":{"type":"string"},"urls":{"type":"object"}}},
"Upload":{"type":"object","required":["content"],"properties":{"content":{"type":"string","format":"binary"},"metadata":{"type":"string"},"filename":{"type":"string"},"type":{"type":"string"}}},
"NewDeployment":{"type":"object","required":["name","model","version","hardware"],"properties":{"name":{"type":"string"},"model":{"type":"string"},"version":{"type":"string"},
 "hardware":{"type":"string"},"min_instances":{"type":"integer","minimum":0,"maximum":100},"max_instances":{"type":"integer","minimum":0,"maximum":100}}},
"DeploymentChange":{"type":"object","properties":{"version":{"type":"string"},"hardware":{"type":"string"},"min_instances":{"type":"integer","minimum":0,"maximum":100},"max_instances":{"type":"integer","minimum":0,"maximum":100}}},
"Deployment":{"type":"object","required":["owner","name","current_release"],"properties":{"owner":{"type":"string"},"name":{"type":"string"},"current_release":{"type":"object"}}},
"OpenAIImages":{"type":"object","required":["prompt"],"properties":{"prompt":{"type":"string"},"model":{"type":"string"},"n":{"type":"integer","minimum":1,"maximum":10},"size":{"type":"string"},
 "response_format":{"enum":["url","b64_json"]},"output_format":{"enum":["png","jpeg","webp"]},"output_compression":{"type":"integer","minimum":0,"maximum":100},"stream":{"type":"boolean"},"partial_images":{"type":"integer","minimum":0,"maximum":3}}},
"BflImage":{"type":"object","properties":{"prompt":{"type":["string","null"]},"width":{"type":"integer"},"height":{"type":"integer"},"steps":{"type":"integer"},"guidance":{"type":"number"},"seed":{"type":["integer","null"]},"output_format":{"enum":["jpeg","png"]}}}
})";

Json reference(std::string_view schema) { return {{"$ref", fmt::format("#/components/schemas/{}", schema)}}; }

Json parameters_of(const Operation& operation) {
  Json parameters = Json::array();
  const std::string_view path = operation.path;
  for (size_t begin = path.find('{'); begin != std::string_view::npos; begin = path.find('{', begin + 1)) {
    const size_t end = path.find('}', begin);
    parameters.push_back({{"name", path.substr(begin + 1, end - begin - 1)},
                          {"in", "path"},
                          {"required", true},
                          {"schema", {{"type", "string"}}}});
  }
  std::string_view names = operation.query;
  while (!names.empty()) {
    std::string_view name = names.substr(0, names.find(','));
    names.remove_prefix(std::min(name.size() + 1, names.size()));
    const bool required = name.ends_with('!');
    if (required) name.remove_suffix(1);
    const Json schema =
        name == "limit" ? Json{{"type", "integer"}, {"minimum", 1}, {"maximum", 100}} : Json{{"type", "string"}};
    parameters.push_back({{"name", name}, {"in", "query"}, {"required", required}, {"schema", schema}});
  }
  return parameters;
}

Json answer_of(const Operation& operation) {
  const std::string_view answer = operation.answer;
  if (answer.empty()) return {{"description", "Done."}};
  if (answer == "Text")
    return {{"description", "Text."}, {"content", {{"text/markdown", {{"schema", {{"type", "string"}}}}}}}};
  if (answer == "Bytes") return {{"description", "Bytes."}, {"content", {{"*/*", Json::object()}}}};
  Json schema = answer.starts_with("[]")
                    ? Json{{"type", "object"},
                           {"required", {"next", "previous", "results"}},
                           {"properties",
                            {{"next", {{"type", {"string", "null"}}}},
                             {"previous", {{"type", {"string", "null"}}}},
                             {"results", {{"type", "array"}, {"items", reference(answer.substr(2))}}}}}}
                    : reference(answer);
  return {{"description", "OK."}, {"content", {{"application/json", {{"schema", schema}}}}}};
}

Json operation_json(const Operation& operation) {
  Json result = {{"tags", {operation.tag}}, {"summary", operation.summary}, {"parameters", parameters_of(operation)}};
  if (*operation.body) {
    const char* type = std::string_view(operation.body) == "Upload" ? "multipart/form-data" : "application/json";
    const bool required = std::string_view(operation.body) != "BflImage";  // every field of it has a default
    result["requestBody"] = {{"required", required}, {"content", {{type, {{"schema", reference(operation.body)}}}}}};
  }
  result["responses"][std::to_string(operation.status)] = answer_of(operation);
  // Requests that are broken before their route is known are answered as problems everywhere.
  Json content = {{"application/problem+json", {{"schema", reference("Problem")}}}};
  const std::string_view tag = operation.tag;
  if (tag == "OpenAI" || tag == "BFL") content["application/json"] = {{"schema", reference("Object")}};
  result["responses"]["default"] = {{"description", "What went wrong."}, {"content", content}};
  return result;
}

}  // namespace

Json api_description(const std::string& base_url) {
  Json paths = Json::object();
  for (const Operation& operation : kOperations) paths[operation.path][operation.method] = operation_json(operation);
  return {{"openapi", "3.1.0"},
          {"info",
           {{"title", "Calotype"},
            {"version", "1"},
            {"description",
             "FLUX.1 pictures and training through the HTTP API of Replicate, with parts of OpenAI's and Black Forest "
             "Labs'. The input of each model is described in the openapi_schema of its version."}}},
          {"servers", Json::array({{{"url", base_url}}})},
          {"security", Json::array({{{"token", Json::array()}}, Json::object()})},
          {"paths", paths},
          {"components",
           {{"securitySchemes", {{"token", {{"type", "http"}, {"scheme", "bearer"}}}}},
            {"schemas", Json::parse(kSchemas)}}}};
}

}  // namespace calotype::server
