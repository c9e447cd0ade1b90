// Deployments and collections: ModelRegistry's second half.
#include "base/error.h"
#include "store/database.h"
#include "store/ids.h"
#include "store/model_registry.h"
#include "store/page.h"

namespace calotype::store {
using base::ErrorKind;
namespace {

constexpr std::string_view kColumns =
    "owner, name, model, version, hardware, number, min_instances, max_instances, created_at";

Deployment read(const Row& row) {
  return {.owner = row.text("owner"),
          .name = row.text("name"),
          .model = row.text("model"),
          .version = row.text("version"),
          .hardware = row.text("hardware"),
          .number = row.integer("number"),
          .min_instances = row.integer("min_instances"),
          .max_instances = row.integer("max_instances"),
          .created_at = row.integer("created_at")};
}

void check_instances(const Deployment& d) {
  base::check(d.min_instances >= 0 && d.max_instances >= d.min_instances && d.max_instances <= 1000,
              ErrorKind::bad_input, "min_instances is {} and max_instances {}, expected 0 <= min <= max <= 1000",
              d.min_instances, d.max_instances);
}

std::optional<Row> find_row(Session& session, const std::string& owner, const std::string& name,
                            std::string_view lock) {
  return first_row(session, fmt::format("SELECT {} FROM deployments WHERE owner = ? AND name = ?{}", kColumns, lock),
                   {clean_text(owner), clean_text(name)});
}

}  // namespace

const std::vector<Collection>& collections() {
  static const std::vector<Collection> all = {
      {.slug = "text-to-image",
       .name = "Text to image",
       .description = "Models that draw what a prompt says",
       .models = {"black-forest-labs/flux-schnell", "black-forest-labs/flux-dev", "black-forest-labs/flux-dev-lora"}},
      {.slug = "flux-fine-tuners",
       .name = "FLUX fine-tuners",
       .description = "Trainers that teach FLUX a new subject or style",
       .models = {"ostris/flux-dev-lora-trainer", "replicate/fast-flux-trainer"}},
  };
  return all;
}

Deployment ModelRegistry::create_deployment(const Deployment& d) {
  check_name("owner", d.owner);
  check_name("name", d.name);
  check_instances(d);
  Deployment result = d;
  result.number = 1;
  if (result.created_at == 0) result.created_at = now();
  database_->transaction([&](Session& session) {
    const int64_t made = execute(
        session,
        fmt::format("INSERT INTO deployments ({}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", kColumns),
        {d.owner, d.name, clean_text(d.model), clean_text(d.version), clean_text(d.hardware), result.number,
         d.min_instances, d.max_instances, result.created_at});
    base::check(made == 1, ErrorKind::conflict, "name: there is already a deployment {}/{}", d.owner, d.name);
  });
  return result;
}

std::optional<Deployment> ModelRegistry::find_deployment(const std::string& owner, const std::string& name) {
  Connection session = database_->session();
  const auto row = find_row(session, owner, name, "");
  return row ? std::optional(read(*row)) : std::nullopt;
}

Deployment ModelRegistry::update_deployment(const std::string& owner, const std::string& name,
                                            const DeploymentChange& change) {
  Deployment result;
  database_->transaction([&](Session& session) {
    const auto row = find_row(session, owner, name, for_update(session));
    base::check(row.has_value(), ErrorKind::not_found, "there is no deployment {}/{}", base::printable(owner),
                base::printable(name));
    Deployment d = read(*row);
    if (change.version) d.version = clean_text(*change.version);
    if (change.hardware) d.hardware = clean_text(*change.hardware);
    if (change.min_instances) d.min_instances = *change.min_instances;
    if (change.max_instances) d.max_instances = *change.max_instances;
    check_instances(d);
    ++d.number;
    d.created_at = now();
    execute(session,
            "UPDATE deployments SET version = ?, hardware = ?, number = ?, min_instances = ?, max_instances = ?, "
            "created_at = ? WHERE owner = ? AND name = ?",
            {d.version, d.hardware, d.number, d.min_instances, d.max_instances, d.created_at, owner, name});
    result = d;
  });
  return result;
}

void ModelRegistry::remove_deployment(const std::string& owner, const std::string& name) {
  int64_t count = 0;
  database_->transaction([&](Session& session) {
    count =
        execute(session, "DELETE FROM deployments WHERE owner = ? AND name = ?", {clean_text(owner), clean_text(name)});
  });
  base::check(count == 1, ErrorKind::not_found, "there is no deployment {}/{}", base::printable(owner),
              base::printable(name));
}

Page<Deployment> ModelRegistry::deployments(const PageQuery& query) {
  Connection session = database_->session();
  // Ordered by name alone: created_at changes with every release.
  const RowPage rows =
      read_page(session, {.columns = fmt::format("{}, 0 AS page_key, owner || '/' || name AS page_id", kColumns),
                          .table = "deployments",
                          .key = "0",
                          .id = "owner || '/' || name",
                          .cursor = query.cursor,
                          .limit = query.limit,
                          .ascending = true});
  Page<Deployment> page{.next = rows.next, .previous = rows.previous};
  for (const Row& row : rows.rows) page.items.push_back(read(row));
  return page;
}

}  // namespace calotype::store
