#include <algorithm>
#include <charconv>
#include <regex>

#include "base/error.h"
#include "worker/training_job.h"

namespace calotype::worker {
using base::ErrorKind;
using train::TrainOptions;

namespace {

constexpr int kPublishedSide = 1024;

/// The published trainer's optimisers by ours. Those with another algorithm are refused rather than replaced.
std::string optimizer_of(const std::string& name, std::vector<std::string>& notes) {
  for (const char* same : {"adamw8bit", "adamw", "prodigy", "muon"})
    if (name == same) return name;
  if (name == "adam8bit" || name == "adam") {
    const std::string ours = name == "adam" ? "adamw" : "adamw8bit";
    notes.push_back(fmt::format("optimizer {} is run as {}", name, ours));
    return ours;
  }
  base::fail(ErrorKind::unsupported, "optimizer is {}, expected adamw8bit, adamw, adam8bit, adam, prodigy or muon",
             base::printable(name));
}

/// The numbers of "512,768,1024". A small model was made for one size and knows no other: that one is taken instead.
std::vector<int> resolutions_of(const std::string& text, int side, std::vector<std::string>& notes) {
  std::vector<int> out;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(',', at), text.size());
    std::string part = text.substr(at, end - at);
    std::erase(part, ' ');
    int value = 0;
    const auto [stop, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    base::check(error == std::errc() && stop == part.data() + part.size() && value >= 64 && value <= 4096,
                ErrorKind::bad_input, "resolution is {}, expected numbers from 64 to 4096 like 512 or 512,768,1024",
                base::printable(text));
    out.push_back(value);
    at = end + 1;
  }
  std::ranges::sort(out);
  out.erase(std::unique(out.begin(), out.end()), out.end());
  if (side >= kPublishedSide || out == std::vector<int>{side}) return out;
  notes.push_back(
      fmt::format("this model was made for pictures of {0}×{0}, and is trained at {0} instead of {1}", side, text));
  return {side};
}

/// Scripts write "transformer.single_transformer_blocks.7.proj_out"; here names begin after "transformer.".
std::string layers_of(const std::string& pattern) {
  static const std::regex prefix(R"((^|[(|^])transformer\\?\.(?=\(|\[|single_|transformer_))");
  return std::regex_replace(pattern, prefix, "$1");
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string line = text.substr(at, end - at);
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (!line.empty()) lines.push_back(std::move(line));
    at = end + 1;
  }
  return lines;
}

int steps_of(const Json& settings) {
  return settings.value(settings.contains("steps") ? "steps" : "training_steps", 1000);
}

/// A crash costs at most a twentieth of a run, and short runs do not write more than they compute.
int checkpoint_every(int steps) { return std::clamp(steps / 20, 5, 100); }

void note_unused(const Json& settings, std::vector<std::string>& notes) {
  for (const char* key : {"wandb_run", "wandb_entity"})
    if (settings.contains(key)) {
      notes.push_back("wandb settings are not used: nothing is sent to trackers");
      return;
    }
}

/// Without prompts of the input's own the trigger word is drawn now and then, as often as costs little: a picture of a
/// published model takes about as long as seven steps.
void plan_previews(TrainOptions& o, const Json& settings, int side, std::vector<std::string>& notes) {
  constexpr int kPreviews = 10, kLeastSteps = 50;
  o.sample_prompts = lines_of(settings.value("wandb_sample_prompts", ""));
  o.sample_every = settings.value("wandb_sample_interval", 100);
  if (!o.sample_prompts.empty()) return;
  o.sample_every = std::max((o.steps + kPreviews - 1) / kPreviews, side < kPublishedSide ? 1 : kLeastSteps);
  if (o.sample_every > o.steps) return;
  o.sample_prompts = {o.trigger.empty() ? "a picture" : o.trigger};
  notes.push_back(fmt::format(
      "a preview is drawn every {} steps; wandb_sample_prompts and wandb_sample_interval choose others",
      o.sample_every));
}

}  // namespace

TrainingPlan training_plan(const Json& settings, int side) {
  TrainingPlan plan;
  TrainOptions& o = plan.options;
  o.trigger = settings.value("trigger_word", "TOK");
  o.steps = steps_of(settings);
  o.rank = settings.value("lora_rank", 16);
  o.learning_rate = settings.value("learning_rate", 0.0004);
  o.batch = settings.value("batch_size", 1);
  o.caption_dropout = settings.value("caption_dropout_rate", 0.05);
  o.optimizer = optimizer_of(settings.value("optimizer", "adamw8bit"), plan.notes);
  if (o.optimizer == "prodigy" && *o.learning_rate == 0.0004) o.learning_rate.reset();  // it finds its own
  o.resolutions = resolutions_of(settings.value("resolution", "512,768,1024"), side, plan.notes);
  o.layers = layers_of(settings.value("layers_to_optimize_regex", ""));
  if (settings.value("gradient_checkpointing", false)) o.recompute = true;
  o.checkpoint_every = checkpoint_every(o.steps);
  plan_previews(o, settings, side, plan.notes);
  o.save_type = "f16";
  o.tar = true;
  if (settings.contains("seed")) o.seed = settings.at("seed").get<uint64_t>();
  note_unused(settings, plan.notes);
  return plan;
}

}  // namespace calotype::worker
