// Stored things as the JSON objects that Replicate's clients parse: every key they need, none that breaks them.
//
//   return json_response(prediction_json(site, job, request.base_url), 201);
//
// The clients' traps are in the project's notes on them: no null inside `urls`, `error` a string or null, `cog_version`
// a string, a training's `output` null until the end.
#pragma once

#include <string>

#include "server/http_message.h"
#include "server/site.h"
#include "server/targets.h"

namespace calotype::server {

/// How files in an output are answered.
enum class FileForm {
  url,     ///< http(s)://host/out/TOKEN/NAME
  as_made  ///< data: URIs where the job was made for them (clients wrap only https: and data: into file objects)
};

/// A prediction or a training. `early`: report a running job as "starting": clients that waited take any other word for
/// the end (replicate-python run.py and its siblings).
Json job_json(Site& site, const store::Job& job, const std::string& base_url, FileForm form = FileForm::as_made,
              bool early = false);

/// The output with its files in the given form.
Json output_json(Site& site, const Json& output, const std::string& base_url, bool data_uris);

Json model_json(Site& site, const store::Model& model, const std::string& base_url);
Json model_json(const worker::ServedModel& model, const std::string& base_url);
Json version_json(const Target& target);
Json file_json(const store::StoredFile& file, const std::string& base_url);
Json account_json(Site& site);
Json deployment_json(Site& site, const store::Deployment& deployment);

/// Where anybody who knows the file's token gets its bytes: "BASE/out/TOKEN/NAME".
std::string file_url(const store::StoredFile& file, const std::string& base_url);

/// Milliseconds, as Replicate's.
std::string time_text(store::Time time);

/// {"next", "previous", "results"}: absolute URLs of the request's path with other cursors.
Json page_json(const Request& request, Json results, const std::string& next, const std::string& previous);

}  // namespace calotype::server
