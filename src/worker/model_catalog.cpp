#include "worker/model_catalog.h"

#include <algorithm>

namespace calotype::worker {
namespace {

using enum FieldType;

constexpr const char* kSchnellLicense =
    "https://github.com/black-forest-labs/flux/blob/main/model_licenses/LICENSE-FLUX1-schnell";
constexpr const char* kDevLicense =
    "https://github.com/black-forest-labs/flux/blob/main/model_licenses/LICENSE-FLUX1-dev";

const std::vector<std::string> kRatios = {"1:1", "16:9", "21:9", "3:2",  "2:3", "4:5",
                                          "5:4", "3:4",  "4:3",  "9:16", "9:21"};

using Fields = std::vector<Field>;

Fields operator+(Fields a, const Fields& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

Field hidden(Field field) {
  field.hidden = true;
  return field;
}

Field prompt(std::string description = "What to draw, in words") {
  return {.name = "prompt", .type = string, .description = std::move(description), .required = true};
}

Field aspect_ratio(bool custom) {
  std::vector<std::string> values = kRatios;
  if (custom) values.push_back("custom");
  return {.name = "aspect_ratio",
          .description = custom ? "Shape of the picture; custom takes width and height. An image decides itself"
                                : "Shape of the picture",
          .default_value = "1:1",
          .values = std::move(values)};
}

Field side(const char* name, int low, int high) {
  return {.name = name,
          .type = integer,
          .description = "Pixels, with aspect_ratio custom; rounded up to a multiple of 16",
          .minimum = low,
          .maximum = high};
}

Field image() {
  return {.name = "image",
          .type = file,
          .description = "Picture to start from; the result has its shape and aspect_ratio counts no more"};
}

Field mask() {
  return {.name = "mask",
          .type = file,
          .description = "Of the picture's size: white, or what is transparent, is drawn anew; needs image"};
}

Field prompt_strength() {
  return {.name = "prompt_strength",
          .type = number,
          .description = "How much of the given image is given up: 1 keeps nothing of it",
          .default_value = 0.8,
          .minimum = 0,
          .maximum = 1};
}

Field num_outputs() {
  return {.name = "num_outputs",
          .type = integer,
          .description = "Pictures to draw",
          .default_value = 1,
          .minimum = 1,
          .maximum = 4};
}

Field steps(int default_value, int maximum) {
  return {.name = "num_inference_steps",
          .type = integer,
          .description = "Denoising steps; fewer are faster and rougher",
          .default_value = default_value,
          .minimum = 1,
          .maximum = maximum};
}

Field guidance(const char* name, Json default_value) {
  return {.name = name,
          .type = number,
          .description = "How closely the dev model follows the prompt; schnell has no such input",
          .default_value = std::move(default_value),
          .minimum = 0,
          .maximum = 10};
}

Field seed_field() {
  return {.name = "seed", .type = seed, .description = "The same seed and settings give the same picture"};
}

Fields encoding() {
  return {{.name = "output_format",
           .description = "File format of the pictures",
           .default_value = "webp",
           .values = {"webp", "jpg", "png"}},
          {.name = "output_quality",
           .type = integer,
           .description = "0 to 100, of webp and jpg",
           .default_value = 80,
           .minimum = 0,
           .maximum = 100},
          {.name = "disable_safety_checker",
           .type = boolean,
           .description = "Skip the check of pictures, where the server has one and allows it",
           .default_value = false}};
}

Field go_fast(bool default_value) {
  return {.name = "go_fast",
          .type = boolean,
          .description = "Accepted for compatibility; pictures are always computed exactly",
          .default_value = default_value};
}

Field megapixels() {
  return {.name = "megapixels",
          .description = "Size of the picture: 1 is the size that the model was made for, 0.25 a quarter of it",
          .default_value = "1",
          .values = {"1", "0.25"}};
}

Field weights_field(const char* name) {
  return {.name = name,
          .description =
              "Adapter (LoRA): OWNER/NAME or OWNER/NAME/VERSION trained here, "
              "huggingface.co/OWNER/REPOSITORY[/FILE.safetensors], or the URL of a .safetensors or "
              "trained_model.tar"};
}

Field scale(const char* name, double low = -1, double high = 3) {
  return {.name = name,
          .type = number,
          .description = "How strongly that adapter counts; 1 is as trained",
          .default_value = 1,
          .minimum = low,
          .maximum = high};
}

Field token(const char* name, const char* site) {
  return {.name = name, .type = secret, .description = std::string("Key for private adapters on ") + site};
}

/// Sizes of callers that know no aspect ratios, and the spellings of other generations of these models.
Fields other_keys() {
  return {hidden(side("width", 16, 4096)),
          hidden(side("height", 16, 4096)),
          hidden(guidance("guidance_scale", nullptr)),
          hidden(weights_field("hf_lora")),
          hidden({.name = "hf_loras", .type = strings, .description = "Several adapters"}),
          hidden({.name = "lora_scales", .type = numbers, .description = "The factor of each of hf_loras"})};
}

ServedModel schnell(const char* name, const Fields& lora) {
  return {.owner = "black-forest-labs",
          .name = name,
          .description = "FLUX.1 [schnell]: pictures in one to four steps",
          .license_url = kSchnellLicense,
          .task = Task::text_to_image,
          .backend = "schnell",
          .fields = Fields{prompt(), aspect_ratio(false), num_outputs(), steps(4, 4), seed_field()} + encoding() +
                    Fields{go_fast(true)} + lora + Fields{megapixels()} + other_keys() +
                    Fields{hidden(guidance("guidance", nullptr))}};
}

ServedModel dev(const char* name, const Fields& lora, const Fields& keys) {
  return {.owner = "black-forest-labs",
          .name = name,
          .description = "FLUX.1 [dev]: pictures from text, guidance-distilled",
          .license_url = kDevLicense,
          .task = Task::text_to_image,
          .backend = "dev",
          .fields = Fields{prompt(), aspect_ratio(false), image(), prompt_strength(), num_outputs(), steps(28, 50),
                           guidance("guidance", 3), seed_field()} +
                    encoding() + Fields{go_fast(true)} + lora + Fields{megapixels()} + keys + other_keys() +
                    Fields{hidden(mask())}};
}

Field safety_tolerance() {
  return {.name = "safety_tolerance",
          .type = integer,
          .description = "1 is strict, 6 permissive",
          .default_value = 2,
          .minimum = 1,
          .maximum = 6};
}

Field image_prompt() {
  return {.name = "image_prompt", .type = file, .description = "Picture that guides the composition"};
}

Field prompt_upsampling() {
  return {.name = "prompt_upsampling",
          .type = boolean,
          .description = "Let the remote service rewrite the prompt",
          .default_value = false};
}

Fields pro_encoding() {
  Fields fields = encoding();
  fields.pop_back();  // its check is the remote service's
  return fields;
}

ServedModel pro(const char* name, const char* path, const char* description, Fields fields) {
  return {.owner = "black-forest-labs",
          .name = name,
          .description = description,
          .license_url = "https://bfl.ai/legal",
          .task = Task::gateway,
          .backend = path,
          .fields = std::move(fields),
          .single_output = true};
}

Fields pro_shape() { return {image_prompt(), aspect_ratio(true), side("width", 256, 1440), side("height", 256, 1440)}; }

std::vector<ServedModel> pro_models() {
  const Fields end = Fields{safety_tolerance(), seed_field(), prompt_upsampling()} + pro_encoding();
  const Field pro_steps = {.name = "steps",
                           .type = integer,
                           .description = "Denoising steps",
                           .default_value = 25,
                           .minimum = 1,
                           .maximum = 50};
  Field pro_guidance = guidance("guidance", 3);
  pro_guidance.minimum = 2, pro_guidance.maximum = 5;
  const Field interval = {.name = "interval",
                          .type = number,
                          .description = "How far results may differ from one call to the next",
                          .default_value = 2,
                          .minimum = 1,
                          .maximum = 4};
  const Field raw = {
      .name = "raw", .type = boolean, .description = "Less processed, more natural pictures", .default_value = false};
  const Field image_strength = {.name = "image_prompt_strength",
                                .type = number,
                                .description = "How strongly image_prompt counts",
                                .default_value = 0.1,
                                .minimum = 0,
                                .maximum = 1};
  return {pro("flux-1.1-pro", "flux-pro-1.1", "FLUX 1.1 [pro] at its maker's API, with your own key",
              Fields{prompt()} + pro_shape() + end),
          pro("flux-pro", "flux-pro", "FLUX.1 [pro] at its maker's API, with your own key",
              Fields{prompt()} + pro_shape() + Fields{pro_steps, pro_guidance, interval} + end),
          pro("flux-1.1-pro-ultra", "flux-pro-1.1-ultra",
              "FLUX 1.1 [pro] with up to four megapixels at its maker's API, with your own key",
              Fields{prompt(), image_prompt(), image_strength, aspect_ratio(false), raw} + end)};
}

Field input_images() {
  return {
      .name = "input_images",
      .type = file,
      .description = "Zip of pictures (ten or more), with captions as .txt files of the same names if you have some",
      .required = true};
}

Field trigger_word() {
  return {
      .name = "trigger_word", .description = "Rare word that will stand for what is learned", .default_value = "TOK"};
}

Field training_steps(const char* name) {
  return {.name = name,
          .type = integer,
          .description = "Training steps; 500 to 4000 are usual",
          .default_value = 1000,
          .minimum = 3,
          .maximum = 6000};
}

Fields caption_fields() {
  return {{.name = "autocaption",
           .type = boolean,
           .description = "Write missing captions. No captioner is built in: trigger word and prefix serve instead",
           .default_value = true},
          {.name = "autocaption_prefix", .description = "Text in front of written captions"},
          {.name = "autocaption_suffix", .description = "Text after written captions"}};
}

Fields learning_fields() {
  return {{.name = "learning_rate",
           .type = number,
           .description = "Size of a training step",
           .default_value = 0.0004,
           .minimum = 0,
           .maximum = 10},
          {.name = "batch_size",
           .type = integer,
           .description = "Pictures per step",
           .default_value = 1,
           .minimum = 1,
           .maximum = 4096},
          {.name = "resolution",
           .description = "Sizes to train at, for a model made for 1024; others scale them",
           .default_value = "512,768,1024"},
          {.name = "lora_rank",
           .type = integer,
           .description = "Width of the adapter",
           .default_value = 16,
           .minimum = 1,
           .maximum = 128},
          {.name = "caption_dropout_rate",
           .type = number,
           .description = "Share of the samples that learn without their caption",
           .default_value = 0.05,
           .minimum = 0,
           .maximum = 1},
          {.name = "optimizer",
           .description = "adamw8bit, adamw, adam8bit, adam or prodigy",
           .default_value = "adamw8bit"}};
}

Fields running_fields() {
  return {{.name = "cache_latents_to_disk",
           .type = boolean,
           .description = "Accepted for compatibility; encoded pictures are always kept on disk",
           .default_value = false},
          {.name = "layers_to_optimize_regex", .description = "Train only the layers whose names match"},
          {.name = "gradient_checkpointing",
           .type = boolean,
           .description = "Save memory by computing blocks twice; done by itself where memory asks for it",
           .default_value = false}};
}

Fields upload_fields() {
  return {{.name = "hf_repo_id", .description = "Repository OWNER/NAME on the Hugging Face hub that gets the adapter"},
          {.name = "hf_token", .type = secret, .description = "Key that may write to hf_repo_id"}};
}

Fields tracking_fields() {
  const auto every = [](const char* name, const char* what) {
    return Field{.name = name, .type = integer, .description = what, .default_value = 100, .minimum = 1};
  };
  return {{.name = "wandb_api_key", .type = secret, .description = "Accepted, not used: nothing is sent to trackers"},
          {.name = "wandb_project", .description = "Not used", .default_value = "flux_train_replicate"},
          {.name = "wandb_run", .description = "Not used"},
          {.name = "wandb_entity", .description = "Not used"},
          every("wandb_sample_interval", "Steps between previews"),
          {.name = "wandb_sample_prompts", .description = "Prompts of previews, one a line"},
          every("wandb_save_interval", "Steps between checkpoints"),
          {.name = "skip_training_and_use_pretrained_hf_lora_url",
           .description = "URL of a finished .safetensors on huggingface.co that becomes the version instead"}};
}

std::vector<ServedModel> trainers() {
  ServedModel ostris{.owner = "ostris",
                     .name = "flux-dev-lora-trainer",
                     .description = "Teaches FLUX.1 [dev] your pictures: adapters (LoRA) from a zip",
                     .license_url = kDevLicense,
                     .task = Task::trainer,
                     .backend = "dev",
                     .fields = Fields{input_images(), trigger_word()} + caption_fields() +
                               Fields{training_steps("steps")} + learning_fields() + running_fields() +
                               upload_fields() + tracking_fields() + Fields{hidden(seed_field())},
                     .single_output = true};
  ServedModel fast{.owner = "replicate",
                   .name = "fast-flux-trainer",
                   .description = "Teaches FLUX.1 [dev] a subject or a style, with few settings",
                   .license_url = kDevLicense,
                   .task = Task::trainer,
                   .backend = "dev",
                   .fields = Fields{input_images(), trigger_word(),
                                    Field{.name = "lora_type",
                                          .description = "What is learned: a thing or person, or a manner of drawing",
                                          .default_value = "subject",
                                          .values = {"subject", "style"}},
                                    training_steps("training_steps")},
                   .single_output = true};
  for (Field& field : caption_fields() + learning_fields() + running_fields() + upload_fields() + tracking_fields())
    fast.fields.push_back(hidden(std::move(field)));
  Field steps = hidden(training_steps("steps"));
  steps.default_value = nullptr;
  fast.fields.push_back(std::move(steps));
  fast.fields.push_back(hidden(seed_field()));
  return {std::move(ostris), std::move(fast)};
}

ServedModel canary() {
  return {.owner = "replicate",
          .name = "canary",
          .description = "Greets whom you name; for trying clients without drawing anything",
          .task = Task::text,
          .fields = {{.name = "text", .description = "Whom to greet", .required = true}}};
}

std::vector<ServedModel> make_official_models() {
  std::vector<ServedModel> models = {
      schnell("flux-schnell", {}), dev("flux-dev", {}, {}),
      dev("flux-dev-lora",
          {weights_field("lora_weights"), scale("lora_scale"), weights_field("extra_lora"), scale("extra_lora_scale")},
          {token("hf_api_token", "huggingface.co"), token("civitai_api_token", "civitai.com")}),
      schnell("flux-schnell-lora", {weights_field("lora_weights"), scale("lora_scale")})};
  for (ServedModel& model : pro_models()) models.push_back(std::move(model));
  for (ServedModel& model : trainers()) models.push_back(std::move(model));
  models.push_back(canary());
  return models;
}

ServedModel make_fine_tuned_model() {
  const Field base = {.name = "model",
                      .description = "Which base draws: dev (about 28 steps) or schnell (4 steps)",
                      .default_value = "dev",
                      .values = {"dev", "schnell"}};
  Fields keys;
  for (const Field& field : other_keys())
    if (field.name != "width" && field.name != "height" && field.name != "guidance_scale") keys.push_back(field);
  return {
      .owner = "",
      .name = "",
      .description = "An adapter trained on your pictures",
      .license_url = kDevLicense,
      .task = Task::text_to_image,
      .backend = "dev",
      .fields = Fields{prompt("What to draw; the trigger word of the training calls what was learned"), image(), mask(),
                       aspect_ratio(true), side("height", 256, 1440), side("width", 256, 1440), prompt_strength(), base,
                       num_outputs(), steps(28, 50), guidance("guidance_scale", 3), seed_field()} +
                encoding() +
                Fields{go_fast(false), megapixels(), weights_field("replicate_weights"), scale("lora_scale"),
                       weights_field("extra_lora"), scale("extra_lora_scale")} +
                keys +
                Fields{hidden(guidance("guidance", nullptr)), hidden(token("hf_api_token", "huggingface.co")),
                       hidden(token("civitai_api_token", "civitai.com"))}};
}

}  // namespace

const Field* ServedModel::find(const std::string& field) const {
  const auto found = std::ranges::find(fields, field, &Field::name);
  return found == fields.end() ? nullptr : &*found;
}

const std::vector<ServedModel>& official_models() {
  static const std::vector<ServedModel> models = make_official_models();
  return models;
}

const ServedModel& fine_tuned_model() {
  static const ServedModel model = make_fine_tuned_model();
  return model;
}

const ServedModel* find_model(const std::string& owner_and_name) {
  const std::string name = owner_and_name.substr(0, owner_and_name.find(':'));
  const auto found = std::ranges::find(official_models(), name, &ServedModel::full_name);
  return found == official_models().end() ? nullptr : &*found;
}

}  // namespace calotype::worker
