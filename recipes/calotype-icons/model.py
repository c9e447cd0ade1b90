"""Writes an untrained model folder: configurations and tokenizers in diffusers' FLUX layout.

    python model.py OUT

The tokenizers are small: a word that prompts use is one token, capital letters are single pieces, so that words in
capitals are spelled letter by letter; anything else is unknown.
"""
import argparse
import json
import pathlib
import re

import sentencepiece.sentencepiece_model_pb2 as sentencepiece
import tokenizers
import transformers

import captions

WIDTH, TEXT_WIDTH = 256, 128
MAX_TOKENS = 32  # of T5
# Moves sampling, and training with --timesteps flux-shift, towards noise, at every size. What a thing is, is decided above
# sigma 0.7: there are 56 % of the times drawn so, 20 % of those without a shift, with which few nouns came in 250,000 pictures.
SHIFT = 1.0


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + '\n')


def t5_tokenizer(folder):
    words, capitalised = captions.vocabulary()
    model = sentencepiece.ModelProto()
    types = sentencepiece.ModelProto.SentencePiece
    for piece, kind in [('<pad>', types.CONTROL), ('</s>', types.CONTROL), ('<unk>', types.UNKNOWN)]:
        model.pieces.add(piece=piece, score=0, type=kind)
    pieces = ['▁' + w for w in words] + ['▁' + w[0].upper() + w[1:] for w in capitalised if w[0].isalpha()]
    for piece in dict.fromkeys(pieces):
        model.pieces.add(piece=piece, score=-1)
    # A letter costs more than any word, so that words stay whole; "▁A" is a word, the letter A in BANANA is not.
    for piece in ['▁'] + [chr(c) for c in range(ord('A'), ord('Z') + 1)] + list('0123456789.,!?\'"-:;()&'):
        model.pieces.add(piece=piece, score=-8)
    model.trainer_spec.model_type = model.trainer_spec.UNIGRAM
    model.trainer_spec.pad_id, model.trainer_spec.eos_id, model.trainer_spec.unk_id, model.trainer_spec.bos_id = 0, 1, 2, -1
    model.trainer_spec.vocab_size = len(model.pieces)
    model.normalizer_spec.name = 'identity'
    model.normalizer_spec.add_dummy_prefix = model.normalizer_spec.remove_extra_whitespaces = True
    model.normalizer_spec.escape_whitespaces = True
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'spiece.model').write_bytes(model.SerializeToString())
    tokenizer = transformers.T5Tokenizer(vocab=[(p.piece, p.score) for p in model.pieces], extra_ids=0, model_max_length=MAX_TOKENS)
    tokenizer.save_pretrained(folder)
    return len(model.pieces)


def clip_tokenizer(folder):
    words, _ = captions.vocabulary()
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE(end_of_word_suffix='</w>'))
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=2000, min_frequency=1, initial_alphabet=alphabet, end_of_word_suffix='</w>',
                                             show_progress=False)
    # What pictures depend on is one token: CLIP's vector comes from two layers, which would first have to learn to spell.
    telling = captions.telling_words()
    bpe.train_from_iterator([w for w in words for _ in range(1000 if w in telling else 1)], trainer)
    merges = json.loads(bpe.to_str())['model']['merges']
    letters = sorted(alphabet)
    entries = letters + [letter + '</w>' for letter in letters] + [''.join(m) for m in merges] + ['<|startoftext|>', '<|endoftext|>']
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(entries))}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'vocab.json').write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / 'merges.txt').write_text('#version: 0.2\n' + ''.join(f'{a} {b}\n' for a, b in merges))
    transformers.CLIPTokenizer(vocab=str(folder / 'vocab.json'), merges=str(folder / 'merges.txt'), model_max_length=77).save_pretrained(folder)
    return vocabulary


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', type=pathlib.Path)
    out = parser.parse_args().out
    t5_words = t5_tokenizer(out / 'tokenizer_2')
    clip_words = clip_tokenizer(out / 'tokenizer')
    write(out / 'model_index.json', {
        '_class_name': 'FluxPipeline', 'scheduler': ['diffusers', 'FlowMatchEulerDiscreteScheduler'],
        'text_encoder': ['transformers', 'CLIPTextModel'], 'text_encoder_2': ['transformers', 'T5EncoderModel'],
        'tokenizer': ['transformers', 'CLIPTokenizer'], 'tokenizer_2': ['transformers', 'T5TokenizerFast'],
        'transformer': ['diffusers', 'FluxTransformer2DModel'], 'vae': ['diffusers', 'AutoencoderKL']})
    write(out / 'scheduler/scheduler_config.json', {
        '_class_name': 'FlowMatchEulerDiscreteScheduler', 'base_image_seq_len': 256, 'base_shift': SHIFT, 'max_image_seq_len': 4096,
        'max_shift': SHIFT, 'num_train_timesteps': 1000, 'shift': 3.0, 'use_dynamic_shifting': True})
    write(out / 'vae/config.json', {
        '_class_name': 'AutoencoderKL', 'act_fn': 'silu', 'block_out_channels': [24, 48, 96, 128],
        'down_block_types': ['DownEncoderBlock2D'] * 4, 'up_block_types': ['UpDecoderBlock2D'] * 4, 'force_upcast': True,
        'in_channels': 3, 'out_channels': 3, 'latent_channels': 16, 'layers_per_block': 1, 'mid_block_add_attention': True,
        'norm_num_groups': 8, 'sample_size': 128, 'scaling_factor': 1.0, 'shift_factor': 0.0, 'use_quant_conv': False,
        'use_post_quant_conv': False})
    write(out / 'text_encoder/config.json', {
        'architectures': ['CLIPTextModel'], 'model_type': 'clip_text_model', 'hidden_act': 'quick_gelu', 'hidden_size': TEXT_WIDTH,
        'intermediate_size': 2 * TEXT_WIDTH, 'layer_norm_eps': 1e-5, 'max_position_embeddings': 77, 'num_attention_heads': 4,
        'num_hidden_layers': 2, 'projection_dim': TEXT_WIDTH, 'vocab_size': len(clip_words),
        'bos_token_id': clip_words['<|startoftext|>'], 'eos_token_id': clip_words['<|endoftext|>'], 'pad_token_id': clip_words['<|endoftext|>']})
    write(out / 'text_encoder_2/config.json', {
        'architectures': ['T5EncoderModel'], 'model_type': 't5', 'd_ff': 2 * TEXT_WIDTH, 'd_kv': 32, 'd_model': TEXT_WIDTH, 'num_heads': 4,
        'num_layers': 2, 'num_decoder_layers': 2, 'dense_act_fn': 'gelu_new', 'feed_forward_proj': 'gated-gelu', 'is_gated_act': True,
        'is_encoder_decoder': True, 'layer_norm_epsilon': 1e-6, 'relative_attention_num_buckets': 32, 'tie_word_embeddings': False,
        'dropout_rate': 0.0, 'decoder_start_token_id': 0, 'eos_token_id': 1, 'pad_token_id': 0, 'vocab_size': t5_words})
    write(out / 'transformer/config.json', {
        '_class_name': 'FluxTransformer2DModel', 'attention_head_dim': 64, 'axes_dims_rope': [16, 24, 24], 'guidance_embeds': True,
        'in_channels': 64, 'joint_attention_dim': TEXT_WIDTH, 'num_attention_heads': WIDTH // 64, 'num_layers': 2, 'num_single_layers': 6,
        'patch_size': 1, 'pooled_projection_dim': TEXT_WIDTH})
    print(f'{out}: {t5_words} T5 pieces, {len(clip_words)} CLIP tokens')


if __name__ == '__main__':
    main()
