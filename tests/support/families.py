"""Checkpoints of the families beside plain CLIP, with seeded random weights and real tokenizers."""

import json
from pathlib import Path
from typing import Any

from tests.support.checkpoints import save_hugging_face

TEXTS = (
    "a dog",
    "A red Car, parked; in the RAIN -- at night!",
    "zwei Menschen vor der Tür",
    "красный грузовик под дождём",
    "赤い自転車に乗る人",
    "شاحنة حمراء تحت المطر",
    "a_dog with under_scores & <b>marks</b>",
    "dog " * 90,
    *("cat " * count for count in range(58, 68)),
    " ",
)
"""In five scripts; shorter than any context, around 64 and 77 tokens, and longer."""

_CORPUS = [
    *(text.lower() for text in TEXTS[:6]),
    "a photo of a person riding a bicycle in front of a house with a garden and two cars",
    "ein Foto von einem Hund, der vor einem Haus mit Garten sitzt",
    "человек с собакой перед домом",
    "犬と猫の写真、夜の道",
    "رجل مع كلب أمام المنزل",
]


def small_siglip(**changes: Any) -> Any:
    """A `transformers.SiglipModel` with tiny towers and random weights."""
    import torch
    from transformers import SiglipConfig, SiglipModel

    tower = {
        "hidden_size": 96,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        **changes,
    }
    torch.manual_seed(20261126)
    model = SiglipModel(
        SiglipConfig(
            text_config={**tower, "vocab_size": 3000, "projection_size": 96},
            vision_config={**tower, "image_size": 64, "patch_size": 16},
        )
    ).eval()
    model.logit_scale.data.fill_(4.7)
    model.logit_bias.data.fill_(-12.9)
    return model


def full_size_siglip() -> Any:
    """A `transformers.SiglipModel` of SigLIP 2 base's shape with random weights (1.5 GB)."""
    import torch
    from transformers import SiglipConfig, SiglipModel

    torch.manual_seed(20261126)
    model = SiglipModel(SiglipConfig(text_config={"vocab_size": 256_000})).eval()
    model.logit_scale.data.fill_(4.7)
    model.logit_bias.data.fill_(-12.9)
    return model


def save_siglip(model: Any, directory: Path, *, size: int, resample: int = 2) -> Path:
    """Write Hugging Face's layout with what belongs to it; returns the directory.

    Args:
        model: a `transformers.SiglipModel`.
        directory: where to.
        size: pixels of each side.
        resample: the filter by Pillow's number; 2 is bilinear, SigLIP 2's.
    """
    save_hugging_face(model, directory)
    (directory / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "do_normalize": True,
                "do_rescale": True,
                "do_resize": True,
                "image_mean": [0.5, 0.5, 0.5],
                "image_processor_type": "SiglipImageProcessor",
                "image_std": [0.5, 0.5, 0.5],
                "resample": resample,
                "rescale_factor": 1 / 255,
                "size": {"height": size, "width": size},
            }
        )
    )
    save_gemma_tokenizer(directory)
    return directory


def save_gemma_tokenizer(directory: Path) -> None:
    """Write a small tokenizer built as Gemma's, which SigLIP 2 has."""
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from tokenizers.processors import TemplateProcessing

    tokenizer = Tokenizer(BPE(fuse_unk=True, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    tokenizer.decoder = decoders.Replace("▁", " ")
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer.train_from_iterator(
        _CORPUS,
        trainers.BpeTrainer(
            vocab_size=420, special_tokens=[*special, *fallback], show_progress=False
        ),
    )
    tokenizer.post_processor = TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    _save(tokenizer, directory, "Siglip2Tokenizer", pad="<pad>", eos="<eos>", padding_side="right")


def save_xlm_roberta_tokenizer(directory: Path) -> None:
    """Write a small tokenizer built as XLM-RoBERTa's."""
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, trainers
    from tokenizers.models import Unigram
    from tokenizers.processors import TemplateProcessing

    tokenizer = Tokenizer(Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(
        _CORPUS,
        trainers.UnigramTrainer(
            vocab_size=400,
            special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
            unk_token="<unk>",
            show_progress=False,
        ),
    )
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    _save(
        tokenizer,
        directory,
        "PreTrainedTokenizerFast",
        pad="<pad>",
        eos="</s>",
        padding_side="right",
    )


def _save(
    tokenizer: Any, directory: Path, kind: str, *, pad: str, eos: str, padding_side: str
) -> None:
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": kind,
                "pad_token": pad,
                "eos_token": eos,
                "unk_token": "<unk>",
                "padding_side": padding_side,
                "model_max_length": 64,
                "add_bos_token": False,
                "add_eos_token": True,
            }
        )
    )


def save_open_clips(
    model: Any, config: dict[str, Any], preprocess: dict[str, Any], directory: Path
) -> Path:
    """Write OpenCLIP's layout, as its ``push_to_hf_hub`` does; returns the directory."""
    from safetensors.torch import save_file

    directory.mkdir(exist_ok=True)
    (directory / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
    )
    weights = {name: value.contiguous().clone() for name, value in model.state_dict().items()}
    save_file(weights, directory / "open_clip_model.safetensors")
    return directory


def save_xlm_roberta_image_tower(directory: Path) -> Path:
    """Write a small CLIP with an XLM-RoBERTa, whose image tower alone can be used.

    The real text tower has 278 million weights in its smallest size; here a few stand in its place.
    """
    import open_clip.model
    import torch

    torch.manual_seed(5)
    config = open_clip.get_model_config("xlm-roberta-base-ViT-B-32")
    config["embed_dim"] = 32
    vision = {"image_size": 64, "patch_size": 16, "layers": 2, "width": 64, "head_width": 32}
    config["vision_cfg"] = vision
    text = {"width": 64, "heads": 2, "layers": 1, "vocab_size": 300}
    model = open_clip.model.CustomTextCLIP(**{**config, "text_cfg": text}).eval()
    save_open_clips(model, config, {}, directory)
    save_xlm_roberta_tokenizer(directory)
    return directory
