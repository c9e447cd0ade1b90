#include "worker/lora_sources.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/sha256.h"
#include "files/archive.h"
#include "hub/url.h"

namespace calotype::worker {
namespace fs = std::filesystem;
using base::ErrorKind;
using nlohmann::json;

namespace {

std::vector<std::string> split(std::string text) {
  std::vector<std::string> parts;
  text = text.substr(0, text.find_first_of("?#"));
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('/', at), text.size());
    if (end > at) parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

bool is_word(const std::string& text) {
  return !text.empty() && text.size() <= 96 && text[0] != '.' && std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  });
}

/// The rest after "https://host/", "host/", with or without "www."; nothing for other hosts.
std::optional<std::string> behind(const std::string& source, const std::string& host) {
  std::string_view rest = source;
  for (const std::string_view scheme : {"https://", "http://"})
    if (rest.starts_with(scheme)) rest.remove_prefix(scheme.size());
  if (rest.starts_with("www.")) rest.remove_prefix(4);
  if (!rest.starts_with(host + "/")) return std::nullopt;
  return std::string(rest.substr(host.size() + 1));
}

std::string start_of(const fs::path& path) {
  std::string start(600, '\0');
  std::ifstream in(path, std::ios::binary);
  in.read(start.data(), static_cast<std::streamsize>(start.size()));
  start.resize(static_cast<size_t>(std::max<std::streamsize>(0, in.gcount())));
  return start;
}

/// The only .safetensors of an archive, written to `target`.
void unpack_only_adapter(const fs::path& archive, const fs::path& target, const std::string& source) {
  files::ArchiveReader reader(archive, {.entry_bytes = uint64_t{8} << 30});
  std::vector<std::string> found;
  while (const auto entry = reader.next()) {
    const std::string name = fs::path(entry->name).filename().string();
    if (!name.ends_with(".safetensors") || name.starts_with("._") || !entry->refusal.empty()) continue;
    found.push_back(entry->name);
    if (found.size() > 1) break;
    base::AtomicFile out(target);
    const std::string damage = reader.unpack([&](std::span<const std::byte> block) { out.write(block); });
    base::check(damage.empty(), ErrorKind::corrupt_file, "{}: {} in it is damaged: {}", source,
                base::printable(entry->name), damage);
    out.commit();
  }
  if (found.size() == 1) return;
  std::error_code ignored;
  fs::remove(target, ignored);
  base::check(!found.empty(), ErrorKind::bad_input, "{}: the archive holds no .safetensors file", source);
  base::fail(ErrorKind::bad_input, "{}: the archive holds more than one .safetensors file ({} and {})", source,
             base::printable(found[0]), base::printable(found[1]));
}

hub::Headers bearer(const Secrets& secrets, const char* name) {
  const auto token = secrets.find(name);
  if (token == secrets.end()) return {};
  return {{"Authorization", "Bearer " + token->second}};
}

}  // namespace

std::string shown_source(const std::string& source) {
  if (source.starts_with("data:")) return "the data: URI";
  return source.find("://") == std::string::npos ? base::printable(source) : hub::shown_url(source);
}

LoraSources::LoraSources(store::Store& store, InputFiles& files, LoraSourceOptions options)
    : store_(store), files_(files), options_(std::move(options)), folder_(store.data / "cache" / "loras") {}

fs::path LoraSources::of_version(const store::Version& version) {
  const std::string id = version.about.value("lora_file", "");
  const auto file = store_.files->find(id);
  base::check(file.has_value(), ErrorKind::not_found, "{}/{}:{}: its weights are gone; train it again", version.owner,
              version.name, version.id);
  return store_.files->local_path(file->id);
}

/// owner/name, owner/name/VERSION, owner/name/versions/VERSION. An owner and name that we do not know is nothing; a
/// version of ours that we do not know is an error.
std::optional<fs::path> LoraSources::trained_here(const std::vector<std::string>& parts) {
  if (parts.size() < 2 || parts.size() > 4) return std::nullopt;
  const auto model = store_.models->find(parts[0], parts[1]);
  if (!model) return std::nullopt;
  if (parts.size() == 2)
    base::check(!model->latest_version.empty(), ErrorKind::not_found, "{}/{}: nothing was trained into this model yet",
                parts[0], parts[1]);
  const std::string id = parts.size() == 2 ? model->latest_version : parts.back();
  const auto version = store_.models->find_version(parts[0], parts[1], id);
  base::check(version.has_value(), ErrorKind::not_found, "{}/{}: has no version {}", parts[0], parts[1],
              base::printable(id));
  return of_version(*version);
}

fs::path LoraSources::place(const std::string& key) const { return folder_ / (base::sha256_hex(key) + ".safetensors"); }

/// `file` itself when it is no archive.
fs::path LoraSources::unpacked(const fs::path& file, const std::string& key, const std::string& source) const {
  if (!files::archive_kind(start_of(file))) return file;
  fs::path target = place(key + "#unpacked");
  if (!fs::exists(target)) {
    fs::create_directories(folder_);
    unpack_only_adapter(file, target, source);
  }
  return target;
}

void LoraSources::trim() const {
  std::vector<fs::directory_entry> entries;
  uint64_t bytes = 0;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder_, ignored)) {
    entries.push_back(entry);
    bytes += entry.file_size(ignored);
  }
  std::ranges::sort(entries, {}, [&](const auto& entry) { return entry.last_write_time(ignored); });
  for (const auto& entry : entries) {
    if (bytes <= options_.cache_bytes) return;
    const uint64_t size = entry.file_size(ignored);
    if (fs::remove(entry.path(), ignored)) bytes -= size;
  }
}

fs::path LoraSources::from_url(const std::string& url, const InputFiles::Request& request,
                               const base::CancelToken* cancel) {
  const std::string source = shown_source(url);
  if (const auto own = files_.own_file(url)) return unpacked(store_.files->local_path(own->id), own->sha256, source);
  // A key sees other files than none: its digest belongs to the name.
  std::string key = url;
  for (const auto& [name, value] : request.headers) key += "\n" + base::sha256_hex(value);
  const fs::path path = place(key), from_archive = place(key + "#unpacked");
  for (const fs::path& known : {from_archive, path})
    if (std::error_code ignored; fs::exists(known)) {
      fs::last_write_time(known, fs::file_time_type::clock::now(), ignored);
      return known;
    }
  files_.fetch(url, path, cancel, request);
  const fs::path file = unpacked(path, key, source);
  std::error_code ignored;
  if (file != path) fs::remove(path, ignored);
  trim();
  return file;
}

/// owner/repository, owner/repository/FILE, owner/repository/{resolve,blob}/REVISION/FILE.
fs::path LoraSources::from_hub(const std::vector<std::string>& parts, const Secrets& secrets,
                               const base::CancelToken* cancel) {
  base::check(parts.size() >= 2 && is_word(parts[0]) && is_word(parts[1]), ErrorKind::bad_input,
              "expected huggingface.co/OWNER/REPOSITORY[/FILE.safetensors]");
  const std::string repository = parts[0] + "/" + parts[1];
  const hub::Headers headers = bearer(secrets, "hf_api_token");
  std::string revision = "main", file;
  size_t first = 2;
  if (parts.size() > 4 && (parts[2] == "resolve" || parts[2] == "blob")) {
    revision = parts[3];
    first = 4;
  }
  for (size_t i = first; i < parts.size(); ++i) file += (file.empty() ? "" : "/") + parts[i];
  if (file.empty()) {
    const std::string url = options_.hub + "/api/models/" + repository;
    const auto answer = hub::send({.url = url, .headers = headers, .follow_redirects = 3, .cancel = cancel});
    base::check(answer.ok(), ErrorKind::not_found,
                "neither a model of this server nor a repository that can be read on {} (status {})", options_.hub,
                answer.status);
    const json about = json::parse(answer.body, nullptr, false);
    std::vector<std::string> names;
    for (const json& sibling : about.is_object() ? about.value("siblings", json::array()) : json::array())
      if (sibling.is_object() && sibling.contains("rfilename") && sibling["rfilename"].is_string() &&
          sibling["rfilename"].get<std::string>().ends_with(".safetensors"))
        names.push_back(sibling["rfilename"].get<std::string>());
    base::check(names.size() == 1, ErrorKind::bad_input,
                "the repository holds {} .safetensors files; name one, as in huggingface.co/{}/FILE.safetensors",
                names.size(), repository);
    file = names[0];
  }
  return from_url(
      options_.hub + "/" + repository + "/resolve/" + hub::url_encoded(revision) + "/" + hub::url_encoded(file, "/"),
      {.headers = headers, .guarded = false}, cancel);
}

fs::path LoraSources::find(const std::string& source, const Secrets& secrets, const base::CancelToken* cancel) try {
  if (source.starts_with("data:")) {
    const std::string key = base::sha256_hex(source);
    const fs::path path = place(key);
    if (!fs::exists(path)) files_.fetch(source, path, cancel);
    const fs::path file = unpacked(path, key, "the data: URI");
    trim();
    return file;
  }
  if (const auto rest = behind(source, "replicate.com")) {
    if (auto path = trained_here(split(*rest))) return *path;
    base::fail(ErrorKind::not_found, "this server has no such model; give the URL of its trained_model.tar instead");
  }
  if (const auto rest = behind(source, "huggingface.co")) return from_hub(split(*rest), secrets, cancel);
  if (const auto rest = behind(source, "civitai.com")) {
    const std::vector<std::string> parts = split(*rest);
    const bool page = parts.size() >= 2 && parts[0] == "models";
    return from_url(
        page ? options_.civitai + "/api/download/models/" + hub::url_encoded(parts[1]) + "?type=Model&format=SafeTensor"
             : options_.civitai + "/" + *rest,
        {.headers = bearer(secrets, "civitai_api_token"), .guarded = false}, cancel);
  }
  if (source.starts_with("http://") || source.starts_with("https://")) return from_url(source, {}, cancel);
  const std::vector<std::string> parts = split(source);
  base::check(parts.size() >= 2, ErrorKind::bad_input,
              "expected OWNER/NAME of a model trained here, huggingface.co/OWNER/REPOSITORY, or a URL");
  if (auto path = trained_here(parts)) return *path;
  return from_hub(parts, secrets, cancel);
} catch (const base::Error& error) {
  if (error.kind() == ErrorKind::canceled) throw;
  const std::string name = shown_source(source), what = error.what();
  throw base::Error(error.kind(), what.starts_with(name) ? what : name + ": " + what);
}

}  // namespace calotype::worker
