"""A CLIP of ViT-B/32's shape with random weights, as infinity reads one.

It serves checkpoints and no code of ours, so the tower's shape is the same and its weights are not.

python infinity_checkpoint.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizerFast,
)

SENTENCES = ["open the drawer", "close the door"]


def main(folder: Path) -> None:
    """Write it."""
    folder.mkdir(parents=True)
    words = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    specials = ["<|startoftext|>", "<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
    )
    words.train_from_iterator(SENTENCES, trainer)
    vocabulary, merges = words.model.save(str(folder))
    tokenizer = CLIPTokenizerFast(vocab_file=vocabulary, merges_file=merges, model_max_length=77)
    CLIPProcessor(CLIPImageProcessor(), tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    begins, ends = (words.token_to_id(special) for special in specials)
    text = {"bos_token_id": begins, "eos_token_id": ends, "pad_token_id": ends}
    CLIPModel(CLIPConfig(text_config=text)).eval().save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
