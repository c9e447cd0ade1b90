#include "server/events.h"
#include "server/other_apis.h"
#include "server/replicate_api.h"
#include "server/system_api.h"

namespace calotype::server {

Router all_routes(Site& site, std::vector<Route> further) {
  Router router;
  router.add(std::move(further));
  router.add(system_routes(site));
  router.add(event_routes(site), kApiMounts);  // before files: /files/stream-…
  router.add(openai_routes(site), kApiMounts);
  router.add(bfl_routes(site), kApiMounts);
  router.add(cog_routes(site));
  router.add(prediction_routes(site), kApiMounts);
  router.add(training_routes(site), kApiMounts);
  router.add(model_routes(site), kApiMounts);
  router.add(version_routes(site), kApiMounts);
  router.add(file_routes(site), kApiMounts);
  router.add(deployment_routes(site), kApiMounts);
  router.add(account_routes(site), kApiMounts);
  router.add(collection_routes(site), kApiMounts);
  return router;
}

}  // namespace calotype::server
