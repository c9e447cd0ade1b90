#include "train/train_loop.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "pipeline/memory_plan.h"
#include "train/gradients.h"
#include "train/learning_rate.h"

namespace calotype::train {
namespace fs = std::filesystem;
using base::ErrorKind;
using nlohmann::json;

namespace {

constexpr int kNonFiniteLimit = 10;

OptimizerOptions optimizer_options(const TrainOptions& o) {
  return {.kind = *optimizer_from_name(o.optimizer),
          .beta1 = o.beta1,
          .beta2 = o.beta2,
          .epsilon = o.epsilon,
          .weight_decay = o.weight_decay,
          .muon_rate = o.muon_learning_rate / learning_rate_of(o)};
}

LearningRateOptions rate_options(const TrainOptions& o) {
  return {.peak = learning_rate_of(o),
          .schedule = *schedule_from_name(o.schedule),
          .steps = o.steps,
          .warm_up = o.warmup,
          .decay_fraction = o.decay};
}

void clear_gradients(const Parameters& parameters) {
  for (const Parameter& p : parameters) p.value.mutable_grad() = at::Tensor();
}

/// "optimizer/x" → "x" for the tensors under "optimizer".
std::map<std::string, at::Tensor> under(const std::map<std::string, at::Tensor>& all, const std::string& prefix) {
  std::map<std::string, at::Tensor> out;
  for (const auto& [name, tensor] : all)
    if (name.starts_with(prefix)) out[name.substr(prefix.size())] = tensor;
  return out;
}

void put_under(std::map<std::string, at::Tensor>& all, const std::string& prefix,
               const std::map<std::string, at::Tensor>& tensors) {
  for (const auto& [name, tensor] : tensors) all[prefix + name] = tensor;
}

/// JSON has no NaN.
json number(double value) { return std::isfinite(value) ? json(value) : json(); }

/// "rank 4 (was 16), trigger "X" (was "TOK")".
std::string differences(const json& was, const json& now) {
  std::string out;
  const auto add = [&](const std::string& name) {
    const json before = was.value(name, json()), after = now.value(name, json());
    if (before != after)
      out += fmt::format("{}{} {} (was {})", out.empty() ? "" : ", ", name, after.dump(), before.dump());
  };
  json both = was;
  both.update(now);
  for (const auto& item : both.items()) add(item.key());
  return out;
}

}  // namespace

TrainLoop::TrainLoop(TrainTask& task, const TrainOptions& options, TrainHooks hooks)
    : task_(task),
      options_(options),
      hooks_(std::move(hooks)),
      optimizer_(make_optimizer(optimizer_options(options), task.parameters())),
      checkpoints_(work_folder(options) / "checkpoints"),
      log_(work_folder(options)) {
  if (options.ema > 0) average_.emplace(task.parameters(), AverageOptions{.decay = options.ema, .warm_up = true});
}

TrainResult TrainLoop::run() {
  resume();
  if (step_ == 0) validate();
  while (step_ < options_.steps) {
    one_step();
    if (hooks_.between_steps && step_ < options_.steps) hooks_.between_steps();
    if (hooks_.cancel && hooks_.cancel->requested()) {
      save_checkpoint();
      base::fail(ErrorKind::canceled, "stopped after step {} of {}; the same command goes on from there", step_,
                 options_.steps);
    }
  }
  if (!due(options_.validate_every)) validate();
  save_checkpoint();
  save_output(options_.output);
  result_.steps = step_;
  result_.output = options_.output;
  result_.peak_memory = pipeline::peak_memory();
  write_report();
  return result_;
}

void TrainLoop::one_step() {
  step_began_ = std::chrono::steady_clock::now();
  const double rate = learning_rate(rate_options(options_), step_);
  double loss = 0;
  for (int i = 0; i < options_.accumulate; ++i) {
    const at::Tensor part = task_.loss(step_ * options_.accumulate + i) / options_.accumulate;
    torch::autograd::backward({part}, {});
    loss += part.item<double>();
  }
  const Parameters& parameters = task_.parameters();
  const double norm = options_.clip > 0 ? clip_gradients(parameters, options_.clip) : gradient_norm(parameters);
  if (std::isfinite(loss) && std::isfinite(norm)) {
    optimizer_->step(rate);
    if (average_) average_->update();
  }
  clear_gradients(parameters);
  ++step_;
  record(loss, norm, rate);
  guard_finite(loss, norm);
  if (due(options_.validate_every)) validate();
  if (due(options_.sample_every)) show_previews();
  if (due(options_.checkpoint_every)) save_checkpoint();
}

/// A step without finite numbers changes nothing and is counted; ten in a row end the run.
void TrainLoop::guard_finite(double loss, double norm) {
  if (std::isfinite(loss) && std::isfinite(norm)) {
    non_finite_in_a_row_ = 0;
    return;
  }
  ++result_.skipped;
  note(fmt::format("step {}: loss {} and gradient {} are not finite; the step was skipped", step_, std::abs(loss),
                   std::abs(norm)));  // abs: nobody wants to read "-nan"
  if (++non_finite_in_a_row_ == kNonFiniteLimit) stop_at_finite_state();
}

/// An update can overflow although loss and gradient were finite: in that one the steps after it find their cause.
bool TrainLoop::finite() const {
  const at::NoGradGuard no_grad;
  const auto whole = [](const at::Tensor& value) { return value.isfinite().all().item<bool>(); };
  return std::ranges::all_of(task_.parameters(), [&](const Parameter& p) { return whole(p.value); }) &&
         (!average_ || std::ranges::all_of(average_->state(), [&](const auto& entry) { return whole(entry.second); }));
}

void TrainLoop::stop_at_finite_state() {
  const int64_t stopped = step_;
  int64_t last = step_ - kNonFiniteLimit;
  if (!finite()) {
    const auto found = checkpoints_.load([this](std::string_view text) { note(std::string(text)); });
    base::check(found.has_value(), ErrorKind::internal,
                "step {}: {} steps in a row had no finite loss or gradient, the weights overflowed, and no checkpoint "
                "is older; nothing was saved. Lower --lr (it is {})",
                stopped, kNonFiniteLimit, learning_rate_of(options_));
    take_up(*found);
    last = step_;
  }
  save_output(options_.output);
  base::fail(ErrorKind::internal,
             "step {}: {} steps in a row had no finite loss or gradient; training stopped. {} holds what was learned "
             "up to step {}. Lower --lr (it is {}), or try --dtype f32, and give --restart",
             stopped, kNonFiniteLimit, options_.output.string(), last, learning_rate_of(options_));
}

void TrainLoop::record(double loss, double norm, double rate) {
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - step_began_).count();
  step_seconds_.push_back(seconds);
  if (step_seconds_.size() > 101) step_seconds_.erase(step_seconds_.begin());
  std::vector<double> sorted = step_seconds_;
  std::ranges::nth_element(sorted, sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2));
  result_.seconds_per_step = sorted[sorted.size() / 2];
  if (std::isfinite(loss))
    result_.loss =
        step_ <= 1 ? loss : result_.loss + (loss - result_.loss) / std::min<double>(50, static_cast<double>(step_));
  const json line = {
      {"step", step_},      {"loss", number(loss)},
      {"lr", rate},         {"grad_norm", number(norm)},
      {"seconds", seconds}, {"eta_seconds", result_.seconds_per_step * static_cast<double>(options_.steps - step_)}};
  log_.append(line);
  if (hooks_.log) hooks_.log(line);
  if (hooks_.progress)
    hooks_.progress(
        {.stage = "train", .done = step_, .total = options_.steps, .note = fmt::format("loss {:.4f}", result_.loss)});
}

void TrainLoop::validate() {
  std::optional<double> loss;
  {
    std::optional<Average::Swap> swapped;
    if (average_) swapped.emplace(*average_);
    loss = task_.validation_loss();
  }
  if (!loss) return;
  const json line = {{"step", step_}, {"validation_loss", number(*loss)}};
  log_.append(line);
  if (hooks_.log) hooks_.log(line);
  if (!std::isfinite(*loss)) return;
  if (step_ == 0) result_.base_validation = *loss;
  result_.validation = *loss;
  if (step_ == 0 || (result_.best_validation && *loss >= *result_.best_validation)) {
    if (step_ == 0) result_.best_validation = *loss;
    return;
  }
  result_.best_validation = *loss;
  result_.best_step = step_;
  result_.best = best_path(options_);
  save_output(result_.best);
}

void TrainLoop::show_previews() {
  if (options_.sample_prompts.empty()) return;
  std::optional<Average::Swap> swapped;
  if (average_) swapped.emplace(*average_);
  try {
    const std::vector<Preview> previews = task_.previews();
    log_.add_previews(step_, previews);
    if (hooks_.previews) hooks_.previews(step_, previews);
  } catch (const c10::OutOfMemoryError&) {
    note(fmt::format("step {}: memory does not suffice for previews; training goes on without them", step_));
  }
  write_report();
}

void TrainLoop::write_report() const {
  json page = about();
  page["peak_memory"] = pipeline::peak_memory();
  log_.write_report(page);
}

void TrainLoop::save_output(const fs::path& path) {
  std::optional<Average::Swap> swapped;
  if (average_) swapped.emplace(*average_);
  write_when_there_is_space([&] { task_.save(path, about()); }, hooks_.cancel,
                            [this](std::string_view text) { note(std::string(text)); });
}

json TrainLoop::about() const {
  json out = {{"steps", step_},
              {"total_steps", options_.steps},
              {"settings", json::parse(settings_text(options_))},
              {"skipped_steps", result_.skipped},
              {"loss", result_.loss}};
  if (result_.base_validation) out["base_validation_loss"] = *result_.base_validation;
  if (result_.validation) out["validation_loss"] = *result_.validation;
  if (result_.best_validation) out["best_validation_loss"] = *result_.best_validation;
  if (result_.best_step) out["best_step"] = result_.best_step;
  return out;
}

void TrainLoop::save_checkpoint() {
  if (!finite()) return note(fmt::format("step {}: the weights are not finite; no checkpoint was written", step_));
  Checkpoint checkpoint{.step = step_};
  std::map<std::string, at::Tensor> values;
  for (const Parameter& p : task_.parameters()) values[p.name] = p.value.detach();
  put_under(checkpoint.tensors, "value/", values);
  put_under(checkpoint.tensors, "optimizer/", optimizer_->state());
  if (average_) put_under(checkpoint.tensors, "average/", average_->state());
  checkpoint.state = {{"settings", settings_text(options_)},
                      {"identity", task_.identity()},
                      {"non_finite_in_a_row", non_finite_in_a_row_},
                      {"about", about()}};
  checkpoints_.save(checkpoint, hooks_.cancel, [this](std::string_view text) { note(std::string(text)); });
  write_report();
}

void TrainLoop::resume() {
  const auto found = checkpoints_.load([this](std::string_view text) { note(std::string(text)); });
  if (!found) {
    log_.begin(0);
    return;
  }
  check_settings(*found);
  take_up(*found);
  log_.begin(step_);
  note(step_ <= options_.steps ? fmt::format("going on after step {} of {}", step_, options_.steps)
                               : fmt::format("{} steps were done before, more than the {} of --steps; give --restart "
                                             "to begin anew",
                                             step_, options_.steps));
}

void TrainLoop::check_settings(const Checkpoint& found) const {
  const std::string was = found.state.value("settings", "{}"), now = settings_text(options_);
  base::check(was == now, ErrorKind::conflict,
              "{}: holds a run with other settings: {}; give the same ones to continue it, --restart to begin anew, or "
              "another --output",
              work_folder(options_).string(), differences(json::parse(was), json::parse(now)));
  base::check(found.state.value("identity", "") == task_.identity(), ErrorKind::conflict,
              "{}: holds a run on another model or other pictures; give --restart to begin anew, or another --output",
              work_folder(options_).string());
}

void TrainLoop::take_up(const Checkpoint& found) {
  const at::NoGradGuard no_grad;
  const auto values = under(found.tensors, "value/");
  for (const Parameter& p : task_.parameters()) {
    const auto value = values.find(p.name);
    base::check(value != values.end() && value->second.sizes() == p.value.sizes(), ErrorKind::conflict,
                "{}: the checkpoint has no fitting {}; give --restart to begin anew", work_folder(options_).string(),
                p.name);
    p.value.copy_(value->second);
  }
  optimizer_->load(under(found.tensors, "optimizer/"));
  if (average_) average_->load(under(found.tensors, "average/"));
  step_ = found.step;
  non_finite_in_a_row_ = found.state.value("non_finite_in_a_row", 0);
  const json about = found.state.value("about", json::object());
  result_.skipped = about.value("skipped_steps", int64_t{0});
  result_.loss = about.value("loss", 0.0);
  result_.best_step = about.value("best_step", int64_t{0});
  const auto loss = [&](const char* key) {
    return about.contains(key) ? std::optional<double>(about[key].get<double>()) : std::nullopt;
  };
  result_.base_validation = loss("base_validation_loss");
  result_.validation = loss("validation_loss");
  result_.best_validation = loss("best_validation_loss");
  if (result_.best_step) result_.best = best_path(options_);
}

void TrainLoop::note(const std::string& text) const {
  if (hooks_.note) hooks_.note(text);
}

}  // namespace calotype::train
