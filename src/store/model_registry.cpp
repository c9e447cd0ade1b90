#include "store/model_registry.h"

#include <algorithm>
#include <sstream>

#include "base/error.h"
#include "store/database.h"
#include "store/ids.h"
#include "store/page.h"

namespace calotype::store {
using base::ErrorKind;
namespace {

constexpr std::string_view kModelColumns =
    "owner, name, visibility, hardware, description, github_url, paper_url, license_url, cover_image_url, readme, "
    "run_count, "
    "created_at, example_job, latest_version, version_created_at";

Model read_model(const Row& row) {
  Model model{.owner = row.text("owner"),
              .name = row.text("name"),
              .visibility = row.text("visibility"),
              .hardware = row.text("hardware"),
              .description = row.text("description"),
              .github_url = row.text("github_url"),
              .paper_url = row.text("paper_url"),
              .license_url = row.text("license_url"),
              .cover_image_url = row.text("cover_image_url"),
              .readme = row.text("readme"),
              .run_count = row.integer("run_count"),
              .created_at = row.integer("created_at"),
              .example_job = row.text("example_job"),
              .latest_version = row.text("latest_version")};
  if (!model.latest_version.empty()) model.version_created_at = row.integer("version_created_at");
  return model;
}

Version read_version(const Row& row) {
  return {.id = row.text("id"),
          .owner = row.text("owner"),
          .name = row.text("name"),
          .created_at = row.integer("created_at"),
          .about = row.json("about")};
}

void check_visibility(const std::string& visibility) {
  base::check(visibility == "public" || visibility == "private", ErrorKind::bad_input,
              "visibility: is \"{}\", expected public or private", base::printable(visibility));
}

void check_version_id(const std::string& id) {
  const bool hexadecimal =
      std::ranges::all_of(id, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
  base::check(id.size() == 64 && hexadecimal, ErrorKind::bad_input,
              "version: \"{}\" is none, expected 64 lower-case hexadecimal digits", base::printable(id));
}

std::optional<Row> find_model(Session& session, const std::string& owner, const std::string& name) {
  return first_row(session, fmt::format("SELECT {} FROM models WHERE owner = ? AND name = ?", kModelColumns),
                   {clean_text(owner), clean_text(name)});
}

/// Also keeps two writers of one model apart.
void lock_model(Session& session, const std::string& owner, const std::string& name) {
  const bool found =
      first_row(session, fmt::format("SELECT name FROM models WHERE owner = ? AND name = ?{}", for_update(session)),
                {clean_text(owner), clean_text(name)})
          .has_value();
  base::check(found, ErrorKind::not_found, "there is no model {}/{}", base::printable(owner), base::printable(name));
}

void refresh_latest(Session& session, const std::string& owner, const std::string& name) {
  const auto newest = first_row(session,
                                "SELECT id, created_at FROM versions WHERE owner = ? AND name = ? "
                                "ORDER BY created_at DESC, id DESC LIMIT 1",
                                {owner, name});
  execute(session, "UPDATE models SET latest_version = ?, version_created_at = ? WHERE owner = ? AND name = ?",
          {newest ? newest->text("id") : "", newest ? newest->integer("created_at") : 0, owner, name});
}

Conditions search_conditions(const std::string& search) {
  Conditions conditions;
  std::istringstream words(search.substr(0, 500));
  for (std::string word; words >> word;)
    conditions.add("LOWER(owner || '/' || name || ' ' || description) LIKE ? ESCAPE '\\'", {like_pattern(word)});
  return conditions;
}

template <typename T>
Page<T> to_page(const RowPage& rows, T (*read)(const Row&)) {
  Page<T> page{.next = rows.next, .previous = rows.previous};
  for (const Row& row : rows.rows) page.items.push_back(read(row));
  return page;
}

}  // namespace

ModelRegistry::ModelRegistry(std::shared_ptr<Database> database) : database_(std::move(database)) {}

Model ModelRegistry::create(const Model& m) {
  check_name("owner", m.owner);
  check_name("name", m.name);
  check_visibility(m.visibility);
  database_->transaction([&](Session& session) {
    const int64_t made = execute(
        session,
        fmt::format(
            "INSERT INTO models ({}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', 0) ON CONFLICT DO NOTHING",
            kModelColumns),
        {m.owner, m.name, m.visibility, clean_text(m.hardware), clean_text(m.description), clean_text(m.github_url),
         clean_text(m.paper_url), clean_text(m.license_url), clean_text(m.cover_image_url), clean_text(m.readme),
         m.run_count, m.created_at == 0 ? now() : m.created_at, clean_text(m.example_job)});
    base::check(made == 1, ErrorKind::conflict, "name: there is already a model {}/{}", m.owner, m.name);
  });
  return *find(m.owner, m.name);
}

std::optional<Model> ModelRegistry::find(const std::string& owner, const std::string& name) {
  Connection session = database_->session();
  const auto row = find_model(session, owner, name);
  return row ? std::optional(read_model(*row)) : std::nullopt;
}

Model ModelRegistry::update(const std::string& owner, const std::string& name, const ModelChange& change) {
  if (change.visibility) check_visibility(*change.visibility);
  const std::pair<const char*, const std::optional<std::string>*> fields[] = {
      {"visibility", &change.visibility},
      {"hardware", &change.hardware},
      {"description", &change.description},
      {"github_url", &change.github_url},
      {"paper_url", &change.paper_url},
      {"license_url", &change.license_url},
      {"readme", &change.readme},
      {"example_job", &change.example_job},
      {"cover_image_url", &change.cover_image_url}};
  Model result;
  database_->transaction([&](Session& session) {
    lock_model(session, owner, name);
    for (const auto& [column, value] : fields)
      if (*value)
        execute(session, fmt::format("UPDATE models SET {} = ? WHERE owner = ? AND name = ?", column),
                {clean_text(**value), owner, name});
    result = read_model(*find_model(session, owner, name));
  });
  return result;
}

void ModelRegistry::remove(const std::string& owner, const std::string& name) {
  database_->transaction([&](Session& session) {
    lock_model(session, owner, name);
    const bool used =
        first_row(session, "SELECT id FROM versions WHERE owner = ? AND name = ? LIMIT 1", {owner, name}).has_value();
    base::check(!used, ErrorKind::conflict, "the model {}/{} has versions; delete them first", owner, name);
    execute(session, "DELETE FROM models WHERE owner = ? AND name = ?", {owner, name});
  });
}

Page<Model> ModelRegistry::list(const ModelQuery& query) {
  Connection session = database_->session();
  const std::string key = query.order == ModelOrder::model_created_at ? "created_at" : "version_created_at";
  return to_page(read_page(session, {.columns = fmt::format("{}, {} AS page_key, owner || '/' || name AS page_id",
                                                            kModelColumns, key),
                                     .table = "models",
                                     .key = key,
                                     .id = "owner || '/' || name",
                                     .conditions = search_conditions(query.search),
                                     .cursor = query.cursor,
                                     .limit = query.limit,
                                     .ascending = query.ascending}),
                 read_model);
}

Version ModelRegistry::add_version(const Version& version) {
  check_version_id(version.id);
  Version result;
  database_->transaction([&](Session& session) {
    lock_model(session, version.owner, version.name);
    execute(session,
            "INSERT INTO versions (owner, name, id, created_at, about) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            {version.owner, version.name, version.id, version.created_at == 0 ? now() : version.created_at,
             dump(version.about)});
    refresh_latest(session, version.owner, version.name);
    result = read_version(*first_row(session, "SELECT * FROM versions WHERE owner = ? AND name = ? AND id = ?",
                                     {version.owner, version.name, version.id}));
  });
  return result;
}

Page<Version> ModelRegistry::versions(const std::string& owner, const std::string& name, const PageQuery& query) {
  Connection session = database_->session();
  Conditions conditions;
  conditions.add("owner = ? AND name = ?", {clean_text(owner), clean_text(name)});
  return to_page(
      read_page(session, {.columns = "owner, name, id, created_at, about, created_at AS page_key, id AS page_id",
                          .table = "versions",
                          .key = "created_at",
                          .id = "id",
                          .conditions = conditions,
                          .cursor = query.cursor,
                          .limit = query.limit}),
      read_version);
}

std::optional<Version> ModelRegistry::find_version(const std::string& owner, const std::string& name,
                                                   const std::string& id) {
  Connection session = database_->session();
  const auto row = first_row(session, "SELECT * FROM versions WHERE owner = ? AND name = ? AND id = ?",
                             {clean_text(owner), clean_text(name), clean_text(id)});
  return row ? std::optional(read_version(*row)) : std::nullopt;
}

std::optional<Version> ModelRegistry::find_version(const std::string& id) {
  Connection session = database_->session();
  const auto row = first_row(
      session, "SELECT * FROM versions WHERE id = ? ORDER BY created_at DESC, owner, name LIMIT 1", {clean_text(id)});
  return row ? std::optional(read_version(*row)) : std::nullopt;
}

void ModelRegistry::remove_version(const std::string& owner, const std::string& name, const std::string& id) {
  database_->transaction([&](Session& session) {
    lock_model(session, owner, name);
    const int64_t count =
        execute(session, "DELETE FROM versions WHERE owner = ? AND name = ? AND id = ?", {owner, name, clean_text(id)});
    base::check(count == 1, ErrorKind::not_found, "the model {}/{} has no version {}", owner, name,
                base::printable(id));
    refresh_latest(session, owner, name);
  });
}

}  // namespace calotype::store
