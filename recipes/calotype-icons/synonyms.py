"""Gives synonyms and plurals the vectors of their names: "kitten", "cats" begin as what the model knows as "cat".

    python synonyms.py MODEL

Left to chance, the two vectors of a thing have nothing in common after 5,000 steps (cosine 0.00), and every name has to
be learned by itself. Training goes on after this, so that names may part again.
"""
import argparse
import pathlib

import safetensors.torch
import transformers

import captions

SHARE = 0.85  # of the name's vector; the rest stays what it was
TABLES = [('tokenizer_2', transformers.T5Tokenizer, 'text_encoder_2', 'shared.weight'),
          ('tokenizer', transformers.CLIPTokenizer, 'text_encoder', 'text_model.embeddings.token_embedding.weight')]


def same_things():
    """{word: the word for the same thing}; never a word that is part of a plain name."""
    concepts = captions.concepts()
    plain = {word for c in concepts for word in c.name.split()}
    found = {other: colour for colour, others in captions.COLOUR_SYNONYMS.items() for other in others}
    for concept in concepts:
        name = concept.name.split()[-1]
        for other in [name] + [n for n in concept.names if ' ' not in n]:
            for word in (other, other if captions.already_many(other) else captions.plural(other)):
                found.setdefault(word, name)
    return {word: name for word, name in found.items() if word not in plain and word != name}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('model', type=pathlib.Path)
    model = parser.parse_args().model
    for tokenizer_folder, kind, encoder, tensor in TABLES:
        tokenizer = kind.from_pretrained(model / tokenizer_folder)
        file = next((model / encoder).glob('*.safetensors'))
        weights = safetensors.torch.load_file(file)
        for word, name in same_things().items():
            ids = [tokenizer(text, add_special_tokens=False).input_ids for text in (word, name)]
            if all(len(i) == 1 and i[0] != tokenizer.unk_token_id for i in ids):
                (to,), (source,) = ids
                weights[tensor][to] = SHARE * weights[tensor][source] + (1 - SHARE) * weights[tensor][to]
        safetensors.torch.save_file(weights, file, {'format': 'pt'})


if __name__ == '__main__':
    main()
