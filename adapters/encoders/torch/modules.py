"""PyTorch modules for architectures that OpenCLIP can only build from a hub's name."""

from functools import partial
from typing import Any

import open_clip.model
import torch
from timm.models.vision_transformer import VisionTransformer

from adapters.models.architecture import XLM_ROBERTAS, epsilon_of, xlm_roberta
from adapters.models.checkpoint_files import InvalidCheckpoint
from adapters.system.installation import install_command


class _TwoTowers(torch.nn.Module):
    """Towers and scale, named as in OpenCLIP's ``CustomTextCLIP``."""

    def __init__(self, visual: torch.nn.Module, text: torch.nn.Module, *, biased: bool) -> None:
        super().__init__()
        self.visual = visual
        self.text = text
        self.logit_scale = torch.nn.Parameter(torch.zeros(()))
        if biased:
            self.logit_bias = torch.nn.Parameter(torch.zeros(()))

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        """int64 ``[n, length]`` → ``[n, dimension]``, not normalised."""
        embeds: torch.Tensor = self.text(tokens)
        return embeds


class _Trunk(torch.nn.Module):
    """timm's module under OpenCLIP's name."""

    def __init__(self, trunk: torch.nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        embeds: torch.Tensor = self.trunk(pixels)
        return embeds


class _XlmRobertaTower(torch.nn.Module):
    """Like OpenCLIP's ``HFTextEncoder``, with the mean of all tokens followed by an MLP."""

    def __init__(self, size: str, dimension: int) -> None:
        super().__init__()
        try:
            from transformers import XLMRobertaConfig, XLMRobertaModel
        except ImportError:
            raise InvalidCheckpoint(
                "an XLM-RoBERTa text tower needs transformers on PyTorch, which is not installed. "
                f"Run: {install_command('torch')}"
            ) from None
        shape = XLM_ROBERTAS[size]
        config = XLMRobertaConfig(
            vocab_size=250_002,
            hidden_size=shape["width"],
            num_hidden_layers=shape["layers"],
            num_attention_heads=shape["heads"],
            intermediate_size=4 * shape["width"],
            max_position_embeddings=514,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
        )
        self._padding = config.pad_token_id
        self.transformer = XLMRobertaModel(config, add_pooling_layer=False)
        hidden = (shape["width"] + dimension) // 2
        self.proj = torch.nn.Sequential(
            torch.nn.Linear(shape["width"], hidden, bias=False),
            torch.nn.GELU(),
            torch.nn.Linear(hidden, dimension, bias=False),
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        counted = (tokens != self._padding).long()
        rows = self.transformer(input_ids=tokens, attention_mask=counted).last_hidden_state
        weights = counted.unsqueeze(-1).to(rows.dtype)
        embeds: torch.Tensor = self.proj((rows * weights).sum(dim=1) / weights.sum(dim=1))
        return embeds


def siglip(architecture: dict[str, Any], dtype: torch.dtype) -> torch.nn.Module:
    """SigLIP's two towers for an architecture as `adapters.models.architecture.siglip` has it."""
    vision, text = architecture["vision_cfg"], dict(architecture["text_cfg"])
    tanh = (vision.get("act_kwargs") or {}).get("approximate") == "tanh"
    trunk = VisionTransformer(
        img_size=vision["image_size"],
        patch_size=vision["patch_size"],
        embed_dim=vision["width"],
        depth=vision["layers"],
        num_heads=vision["heads"],
        mlp_ratio=_safe_ratio(vision),
        class_token=False,
        global_pool="map",
        num_classes=0,
        norm_layer=partial(torch.nn.LayerNorm, eps=epsilon_of(vision)),
        act_layer="gelu_tanh" if tanh else "gelu",
    )
    text["mlp_ratio"] = _safe_ratio(text)
    tower = open_clip.model._build_text_tower(
        architecture["embed_dim"], text, quick_gelu=False, cast_dtype=dtype
    )
    return _TwoTowers(_Trunk(trunk), tower, biased=True)


def xlm_roberta_clip(architecture: dict[str, Any], dtype: torch.dtype) -> torch.nn.Module:
    """CLIP's image tower beside an XLM-RoBERTa."""
    dimension = architecture["embed_dim"]
    visual = open_clip.model._build_vision_tower(
        dimension, architecture["vision_cfg"], architecture.get("quick_gelu", False), dtype
    )
    size = xlm_roberta(architecture["text_cfg"])
    assert size is not None
    return _TwoTowers(visual, _XlmRobertaTower(size, dimension), biased=False)


def convert(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Convert a model's weights to a smaller type, as OpenCLIP's factory does."""
    if not isinstance(model, _TwoTowers):
        open_clip.model.convert_weights_to_lp(model, dtype=dtype)
        return
    for tower in (model.visual, model.text):
        if isinstance(tower, _Trunk | _XlmRobertaTower):
            # Other libraries have no normalisations that take the smaller type as input.
            tower.to(dtype)
            continue
        # OpenCLIP expects a matrix here, and SigLIP has a linear layer.
        projection = getattr(tower, "text_projection", None)
        if projection is not None:
            tower.text_projection = None  # type: ignore[assignment]
        open_clip.model.convert_weights_to_lp(tower, dtype=dtype)
        if projection is not None:
            tower.text_projection = projection.to(dtype)


def _safe_ratio(tower: dict[str, Any]) -> float:
    """A ratio with which ``int(width * ratio)`` gives exactly the original width."""
    width = tower["width"]
    ratio: float = (round(width * tower["mlp_ratio"]) + 0.5) / width
    return ratio
