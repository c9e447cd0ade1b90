// Names as the programs write them: diffusers 0.42 save_lora_weights, kohya networks/lora_flux.py, ComfyUI nodes,
// x-flux, fal's trainer, OneTrainer's convert_lora_util.py.
#include "adapters/lora_names.h"

#include <gtest/gtest.h>

namespace calotype::adapters {
namespace {

struct Case {
  std::string stored, layer;
  Role role;
  int part = 0, parts = 1, span = 1;
  bool swapped = false;
};

TEST(LoraNames, EveryDialectNamesTheSameLayers) {
  const Case cases[] = {
      {"transformer.transformer_blocks.18.attn.to_k.lora_A.weight", "double_blocks.18.img_attn.qkv", Role::down, 1, 3},
      {"transformer.transformer_blocks.0.attn.add_v_proj.lora_B.weight", "double_blocks.0.txt_attn.qkv", Role::up, 2,
       3},
      {"transformer.transformer_blocks.0.attn.to_out.0.lora_A.default.weight", "double_blocks.0.img_attn.proj",
       Role::down},
      {"transformer.single_transformer_blocks.37.proj_mlp.lora_B.weight", "single_blocks.37.linear1", Role::up, 3, 4},
      {"transformer.single_transformer_blocks.3.proj_out.lora_A.weight", "single_blocks.3.linear2", Role::down},
      {"transformer.proj_out.lora_A.weight", "final_layer.linear", Role::down},
      {"transformer.norm_out.linear.lora_B.weight", "final_layer.adaLN_modulation.1", Role::up, 0, 1, 1, true},
      {"transformer.x_embedder.lora_A.weight", "img_in", Role::down},
      {"transformer.transformer_blocks.0.ff.net.0.proj.lora_A.weight.alpha", "double_blocks.0.img_mlp.0", Role::alpha},
      {"transformer.transformer_blocks.0.norm1_context.linear.alpha", "double_blocks.0.txt_mod.lin", Role::alpha},
      {"transformer.transformer_blocks.0.attn.to_q.lora.down.weight", "double_blocks.0.img_attn.qkv", Role::down, 0, 3},
      {"transformer_blocks.7.attn.to_q.lora_B.weight", "double_blocks.7.img_attn.qkv", Role::up, 0, 3},
      {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "double_blocks.0.img_attn.qkv", Role::down},
      {"lora_unet_double_blocks_11_txt_mlp_2.alpha", "double_blocks.11.txt_mlp.2", Role::alpha},
      {"lora_unet_single_blocks_20_modulation_lin.lora_up.weight", "single_blocks.20.modulation.lin", Role::up},
      {"lora_unet_final_layer_adaLN_modulation_1.lora_up.weight", "final_layer.adaLN_modulation.1", Role::up},
      {"lora_unet_time_in_in_layer.lora_down.weight", "time_in.in_layer", Role::down},
      {"diffusion_model.double_blocks.0.img_attn.qkv.lora_down.weight", "double_blocks.0.img_attn.qkv", Role::down},
      {"diffusion_model.single_blocks.0.linear1.lora_B.weight", "single_blocks.0.linear1", Role::up},
      {"double_blocks.0.processor.qkv_lora1.down.weight", "double_blocks.0.img_attn.qkv", Role::down},
      {"double_blocks.4.processor.proj_lora2.up.weight", "double_blocks.4.txt_attn.proj", Role::up},
      {"single_blocks.9.processor.qkv_lora.up.weight", "single_blocks.9.linear1", Role::up, 0, 4, 3},
      {"single_blocks.9.processor.proj_lora.down.weight", "single_blocks.9.linear2", Role::down},
      {"base_model.model.double_blocks.1.img_mlp.0.lora_A.weight", "double_blocks.1.img_mlp.0", Role::down},
      {"lora_transformer_transformer_blocks_0_attn_to_add_out.lora_up.weight", "double_blocks.0.txt_attn.proj",
       Role::up},
      {"lora_transformer_single_transformer_blocks_2_attn_to_v.lora_down.weight", "single_blocks.2.linear1", Role::down,
       2, 4},
      {"lora_transformer_norm_out_linear.lora_up.weight", "final_layer.adaLN_modulation.1", Role::up, 0, 1, 1, true},
      {"lora_transformer_time_text_embed_text_embedder_linear_2.alpha", "vector_in.out_layer", Role::alpha},
  };
  for (const Case& c : cases) {
    const AdapterKey key = adapter_key(c.stored);
    EXPECT_EQ(key.place, Place::transformer) << c.stored;
    EXPECT_EQ(key.layer, c.layer) << c.stored;
    EXPECT_EQ(key.role, c.role) << c.stored;
    EXPECT_EQ(key.part, c.part) << c.stored;
    EXPECT_EQ(key.parts, c.parts) << c.stored;
    EXPECT_EQ(key.span, c.span) << c.stored;
    EXPECT_EQ(key.swapped, c.swapped) << c.stored;
    EXPECT_TRUE(c.stored.starts_with(key.stem + ".")) << c.stored;
  }
}

TEST(LoraNames, TextEncodersAreToldApart) {
  for (const char* name : {"text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight",
                           "lora_te1_text_model_encoder_layers_3_mlp_fc1.lora_down.weight",
                           "lora_te3_encoder_block_1_layer_0_SelfAttention_q.alpha",
                           "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.lora_up.weight",
                           "base_model.model.text_model.encoder.layers.0.mlp.fc1.lora_A.weight"}) {
    EXPECT_EQ(adapter_key(name).place, Place::text_encoder) << name;
    EXPECT_NE(adapter_key(name).role, Role::none) << name;
  }
}

TEST(LoraNames, OtherKindsOfAdaptersAreNamed) {
  const std::pair<const char*, const char*> cases[] = {
      {"lycoris_transformer_blocks_0_attn_to_q.lokr_w1", "LoKr"},
      {"lora_unet_double_blocks_0_img_attn_qkv.lokr_w2_a", "LoKr"},
      {"lora_unet_double_blocks_0_img_attn_qkv.hada_w1_b", "LoHa"},
      {"transformer.transformer_blocks.0.attn.to_q.lora_magnitude_vector", "DoRA"},
      {"transformer.transformer_blocks.0.attn.to_q.lora_magnitude_vector.default.weight", "DoRA"},
      {"lora_transformer_transformer_blocks_0_attn_to_q.dora_scale", "DoRA"},
      {"diffusion_model.img_in.diff", "full differences"},
      {"diffusion_model.img_in.diff_b", "full differences"},
      {"double_blocks.0.img_attn.qkv.lora_B.bias", "biases"},
  };
  for (const auto& [name, kind] : cases) {
    const AdapterKey key = adapter_key(name);
    EXPECT_EQ(key.role, Role::foreign) << name;
    EXPECT_NE(key.kind.find(kind), std::string::npos) << name << " is taken for " << key.kind;
  }
}

TEST(LoraNames, OtherNamesAreUnknown) {
  for (const char* name : {"lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight",
                           "lora_unet_double_blocks_0_img_attn_qkvx.lora_down.weight",
                           "lora_unet_double_blocks_00_img_attn_qkv.lora_down.weight",
                           "lora_unet_double_blocks_0000_img_attn_qkv.lora_down.weight",
                           "lora_unet_double_blocks_*_img_attn_qkv.lora_down.weight",
                           "transformer.transformer_blocks.attn.to_q.lora_A.weight", ".lora_A.weight", ".alpha", ""})
    EXPECT_EQ(adapter_key(name).place, Place::unknown) << name;
  for (const char* name : {"transformer.x_embedder.weight", "img_in.weight", "lora_A.weight", "x.lora_A..weight"})
    EXPECT_EQ(adapter_key(name).role, Role::none) << name;
}

TEST(LoraNames, WrittenNamesAreReadBack) {
  for (const char* layer : {"img_in", "guidance_in.out_layer", "double_blocks.12.img_attn.qkv",
                            "single_blocks.3.linear1", "final_layer.adaLN_modulation.1", "final_layer.linear"}) {
    const auto modules = diffusers_modules(layer);
    ASSERT_FALSE(modules.empty()) << layer;
    for (const ModuleName& module : modules) {
      const AdapterKey key = adapter_key("transformer." + module.name + ".lora_A.weight");
      EXPECT_EQ(key.layer, layer);
      EXPECT_EQ(key.part, module.part);
      EXPECT_EQ(key.parts, module.parts);
      EXPECT_EQ(key.swapped, module.swapped);
      EXPECT_EQ(key.module, module.name);
    }
  }
}

}  // namespace
}  // namespace calotype::adapters
