// Names, order, defaults and ranges: the public schemas of Replicate's models of these names (cog-flux predict.py and
// flux-fine-tuner train.py), written down here by hand. Shapes of schemas: what Cog 0.9 emits.
#include "worker/model_catalog.h"

#include <gtest/gtest.h>

#include <set>

namespace calotype::worker {
namespace {

/// "name=default" for each property in x-order.
std::vector<std::string> signature(const Json& input) {
  std::vector<std::string> out(input.at("properties").size());
  for (const auto& [name, property] : input.at("properties").items()) {
    const std::string text = name + (property.contains("default") ? "=" + property.at("default").dump() : "");
    out.at(property.at("x-order").get<size_t>()) = text;
  }
  return out;
}

Json schemas(const ServedModel& model) { return openapi_schema(model).at("components").at("schemas"); }

using Names = std::vector<std::string>;

TEST(ModelCatalog, SchnellTakesWhatThePublishedModelTakes) {
  EXPECT_EQ(signature(schemas(*find_model("black-forest-labs/flux-schnell")).at("Input")),
            (Names{"prompt", "aspect_ratio=\"1:1\"", "num_outputs=1", "num_inference_steps=4", "seed",
                   "output_format=\"webp\"", "output_quality=80", "disable_safety_checker=false", "go_fast=true",
                   "megapixels=\"1\""}));
}

TEST(ModelCatalog, DevWithAdaptersTakesWhatThePublishedModelTakes) {
  EXPECT_EQ(signature(schemas(*find_model("black-forest-labs/flux-dev-lora:abc")).at("Input")),
            (Names{"prompt", "aspect_ratio=\"1:1\"", "image", "prompt_strength=0.8", "num_outputs=1",
                   "num_inference_steps=28", "guidance=3", "seed", "output_format=\"webp\"", "output_quality=80",
                   "disable_safety_checker=false", "go_fast=true", "lora_weights", "lora_scale=1", "extra_lora",
                   "extra_lora_scale=1", "megapixels=\"1\"", "hf_api_token", "civitai_api_token"}));
}

TEST(ModelCatalog, TrainedModelsTakeWhatHostedOnesTake) {
  EXPECT_EQ(signature(schemas(fine_tuned_model()).at("Input")), (Names{"prompt",
                                                                       "image",
                                                                       "mask",
                                                                       "aspect_ratio=\"1:1\"",
                                                                       "height",
                                                                       "width",
                                                                       "prompt_strength=0.8",
                                                                       "model=\"dev\"",
                                                                       "num_outputs=1",
                                                                       "num_inference_steps=28",
                                                                       "guidance_scale=3",
                                                                       "seed",
                                                                       "output_format=\"webp\"",
                                                                       "output_quality=80",
                                                                       "disable_safety_checker=false",
                                                                       "go_fast=false",
                                                                       "megapixels=\"1\"",
                                                                       "replicate_weights",
                                                                       "lora_scale=1",
                                                                       "extra_lora",
                                                                       "extra_lora_scale=1"}));
}

TEST(ModelCatalog, TheTrainerTakesWhatThePublishedTrainerTakes) {
  const Json all = schemas(*find_model("ostris/flux-dev-lora-trainer"));
  EXPECT_EQ(signature(all.at("TrainingInput")), (Names{"input_images",
                                                       "trigger_word=\"TOK\"",
                                                       "autocaption=true",
                                                       "autocaption_prefix",
                                                       "autocaption_suffix",
                                                       "steps=1000",
                                                       "learning_rate=0.0004",
                                                       "batch_size=1",
                                                       "resolution=\"512,768,1024\"",
                                                       "lora_rank=16",
                                                       "caption_dropout_rate=0.05",
                                                       "optimizer=\"adamw8bit\"",
                                                       "cache_latents_to_disk=false",
                                                       "layers_to_optimize_regex",
                                                       "gradient_checkpointing=false",
                                                       "hf_repo_id",
                                                       "hf_token",
                                                       "wandb_api_key",
                                                       "wandb_project=\"flux_train_replicate\"",
                                                       "wandb_run",
                                                       "wandb_entity",
                                                       "wandb_sample_interval=100",
                                                       "wandb_sample_prompts",
                                                       "wandb_save_interval=100",
                                                       "skip_training_and_use_pretrained_hf_lora_url"}));
  EXPECT_EQ(all.at("TrainingOutput").at("properties").at("weights").at("format"), "uri");
}

TEST(ModelCatalog, AnEnumIsASchemaOfItsOwn) {
  const Json all = schemas(*find_model("black-forest-labs/flux-schnell"));
  const Json property = all.at("Input").at("properties").at("output_format");
  EXPECT_EQ(property.at("allOf"), Json::parse(R"([{"$ref":"#/components/schemas/output_format"}])"));
  EXPECT_FALSE(property.contains("type"));
  EXPECT_EQ(all.at("output_format"),
            Json::parse(R"({"title":"output_format","type":"string","enum":["webp","jpg","png"],
                            "description":"An enumeration."})"));
  EXPECT_EQ(all.at("Input").at("properties").at("num_outputs").at("title"), "Num Outputs");
  EXPECT_EQ(all.at("Input").at("required"), Json::parse(R"(["prompt"])"));
  EXPECT_EQ(all.at("Output").at("items").at("format"), "uri");
}

void collect_references(const Json& value, std::set<std::string>& out) {
  if (value.is_object())
    for (const auto& [key, child] : value.items()) {
      if (key == "$ref") out.insert(child.get<std::string>());
      collect_references(child, out);
    }
  else if (value.is_array())
    for (const Json& child : value) collect_references(child, out);
}

TEST(ModelCatalog, EveryReferenceOfEverySchemaResolves) {
  std::vector<ServedModel> all = official_models();
  all.push_back(fine_tuned_model());
  for (const ServedModel& model : all) {
    const Json schema = openapi_schema(model);
    std::set<std::string> references;
    collect_references(schema, references);
    EXPECT_GE(references.size(), 5u);
    for (const std::string& reference : references)
      EXPECT_TRUE(schema.contains(Json::json_pointer(reference.substr(1)))) << model.full_name() << " " << reference;
  }
}

TEST(ModelCatalog, GatewaysAnswerOneFileAndTheCanaryStreamsText) {
  EXPECT_EQ(schemas(*find_model("black-forest-labs/flux-1.1-pro")).at("Output").at("type"), "string");
  EXPECT_EQ(schemas(*find_model("replicate/canary")).at("Output").at("x-cog-array-type"), "iterator");
  EXPECT_EQ(find_model("black-forest-labs/flux-2"), nullptr);
}

TEST(ModelCatalog, VersionsDependOnModelAndWeights) {
  const ServedModel& schnell = *find_model("black-forest-labs/flux-schnell");
  const std::string id = version_id(schnell, "a");
  EXPECT_EQ(id.size(), 64u);
  EXPECT_EQ(id.find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_EQ(id, version_id(schnell, "a"));
  EXPECT_NE(id, version_id(schnell, "b"));
  EXPECT_NE(id, version_id(*find_model("black-forest-labs/flux-dev"), "a"));
}

struct Case {
  const char* input;
  const char* type;  ///< of the only complaint; "" = fine
  const char* field = "input";
};

class CheckInput : public testing::TestWithParam<Case> {};

TEST_P(CheckInput, SaysWhatIsWrong) {
  const auto errors = check_input(*find_model("black-forest-labs/flux-dev"), Json::parse(GetParam().input)).errors;
  if (!*GetParam().type) {
    EXPECT_TRUE(errors.empty()) << detail_text(errors);
    return;
  }
  ASSERT_EQ(errors.size(), 1u) << detail_text(errors);
  EXPECT_EQ(errors[0].type, GetParam().type);
  EXPECT_EQ(errors[0].field, GetParam().field);
  EXPECT_FALSE(errors[0].description.empty());
}

INSTANTIATE_TEST_SUITE_P(
    Inputs, CheckInput,
    testing::Values(Case{R"({"prompt":"x"})", ""}, Case{R"({"prompt":""})", ""},
                    Case{R"({"prompt":"x","image":null})", ""}, Case{R"({})", "required"},
                    Case{R"({"prompt":null})", "required"}, Case{R"([])", "invalid_type"},
                    Case{R"({"prompt":"x","signal":1})", "additional_property_not_allowed"},
                    Case{R"({"prompt":5})", "invalid_type", "input.prompt"},
                    Case{R"({"prompt":"x","num_outputs":"2"})", "invalid_type", "input.num_outputs"},
                    Case{R"({"prompt":"x","num_outputs":4.0})", ""},
                    Case{R"({"prompt":"x","num_outputs":1.5})", "invalid_type", "input.num_outputs"},
                    Case{R"({"prompt":"x","num_outputs":5})", "number_lte", "input.num_outputs"},
                    Case{R"({"prompt":"x","num_outputs":0})", "number_gte", "input.num_outputs"},
                    Case{R"({"prompt":"x","num_outputs":1e300})", "number_lte", "input.num_outputs"},
                    Case{R"({"prompt":"x","num_outputs":true})", "invalid_type", "input.num_outputs"},
                    Case{R"({"prompt":"x","guidance":0})", ""}, Case{R"({"prompt":"x","guidance":7.5})", ""},
                    Case{R"({"prompt":"x","guidance":10.5})", "number_lte", "input.guidance"},
                    Case{R"({"prompt":"x","guidance":"3"})", "invalid_type", "input.guidance"},
                    Case{R"({"prompt":"x","guidance_scale":3.5})", ""},
                    Case{R"({"prompt":"x","aspect_ratio":"2:1"})", "enum", "input.aspect_ratio"},
                    Case{R"({"prompt":"x","megapixels":1})", "invalid_type", "input.megapixels"},
                    Case{R"({"prompt":"x","go_fast":1})", "invalid_type", "input.go_fast"},
                    Case{R"({"prompt":"x","image":"/etc/passwd"})", "format", "input.image"},
                    Case{R"({"prompt":"x","image":"file:///etc/passwd"})", "format", "input.image"},
                    Case{R"({"prompt":"x","image":"data:image/png;base64,AA"})", ""},
                    Case{R"({"prompt":"a\u0000b"})", "format", "input.prompt"},
                    Case{R"({"prompt":"x","seed":18446744073709551615})", ""},
                    Case{R"({"prompt":"x","seed":"18446744073709551615"})", ""},
                    Case{R"({"prompt":"x","seed":-1})", ""},
                    Case{R"({"prompt":"x","seed":-2})", "number_gte", "input.seed"},
                    Case{R"({"prompt":"x","seed":1e20})", "number_lte", "input.seed"},
                    Case{R"({"prompt":"x","seed":1.5})", "invalid_type", "input.seed"},
                    Case{R"({"prompt":"x","seed":"12x"})", "invalid_type", "input.seed"},
                    Case{R"({"prompt":"x","hf_loras":["a/b"],"lora_scales":[0.5]})", ""},
                    Case{R"({"prompt":"x","hf_loras":[1]})", "invalid_type", "input.hf_loras"}));

TEST(CheckInput, KeepsTheInputAsGivenAndTakesSecretsOut) {
  const Json input = Json::parse(R"({"input_images":"http://h/v1/files/f1","steps":1000,"hf_token":"hf_abc",
                                     "wandb_api_key":"","trigger_word":null,"hf_repo_id":"me/x"})");
  const CheckedInput checked = check_input(*find_model("ostris/flux-dev-lora-trainer"), input);
  EXPECT_TRUE(checked.errors.empty()) << detail_text(checked.errors);
  EXPECT_EQ(checked.input, Json::parse(R"({"input_images":"http://h/v1/files/f1","steps":1000,"hf_repo_id":"me/x"})"));
  EXPECT_EQ(checked.secrets, (std::map<std::string, std::string>{{"hf_token", "hf_abc"}}));
}

TEST(CheckInput, AComplaintNeverRepeatsASecret) {
  const auto errors = check_input(*find_model("ostris/flux-dev-lora-trainer"),
                                  {{"input_images", "http://h/f"}, {"hf_token", std::string("hf_secret\0x", 11)}})
                          .errors;
  ASSERT_EQ(errors.size(), 1u);
  EXPECT_EQ(detail_text(errors).find("hf_secret"), std::string::npos);
}

TEST(WithDefaults, FillsInAndReadsSeeds) {
  const ServedModel& model = *find_model("black-forest-labs/flux-schnell");
  const Json filled =
      with_defaults(model, {{"prompt", "x"}, {"seed", "18446744073709551615"}, {"num_outputs", 10.0}, {"seed2", 1}});
  EXPECT_EQ(filled.at("seed").get<uint64_t>(), UINT64_MAX);
  EXPECT_EQ(filled.at("num_inference_steps"), 4);
  EXPECT_EQ(filled.at("num_outputs").dump(), "10");
  EXPECT_EQ(filled.at("megapixels"), "1");
  EXPECT_FALSE(filled.contains("seed2"));
  EXPECT_FALSE(filled.contains("width"));
  EXPECT_FALSE(with_defaults(model, {{"prompt", "x"}, {"seed", -1}}).contains("seed"));
}

}  // namespace
}  // namespace calotype::worker
