"""The models of the table: the smallest of each family that is quickly trained for one step, with random weights."""

from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

__all__ = ["MODELS", "NOT_RESIDUAL", "TINY", "Model", "choose"]

CLASSES, IMAGES, FRAMES = 5, 2, 8


@dataclass(frozen=True)
class Model:
    """A model and its inputs.

    Args:
        library: ``torchvision`` or ``timm``.
        family: The library's module that holds it.
        key: The model's name there.
        pixels: Height and width of the images.
        sized: Whether the model is built for this size, as transformers are.
        kind: ``image``, ``video`` or ``pair``.
    """

    library: str
    family: str
    key: str
    pixels: int
    sized: bool = False
    kind: str = "image"

    @property
    def name(self) -> str:
        """Name in the table."""
        return f"{self.library}/{self.key}"

    @property
    def is_residual(self) -> bool:
        """Whether its authors describe residual blocks. The list was written by hand, from papers and sources."""
        return self.name not in NOT_RESIDUAL

    def build(self) -> nn.Module:
        """Build the model, with random weights."""
        if self.library == "timm":
            size = {"img_size": self.pixels} if self.sized else {}
            return timm.create_model(self.key, num_classes=CLASSES, **size)
        weights: dict[str, Any] = {"weights": None}
        if self.family == "segmentation":
            weights |= {"weights_backbone": None}
        if self.key in ("googlenet", "inception_v3"):
            weights |= {"init_weights": False}  # it takes a minute
        if self.key == "inception_v3":
            weights |= {"aux_logits": False}  # its second head needs 299 pixels
        if self.kind != "pair":
            weights |= {"num_classes": CLASSES}
        size = {"image_size": self.pixels} if self.sized else {}
        return torchvision.models.get_model(self.key, **weights, **size)

    def batch(self) -> list[Tensor]:
        """Random inputs of one step."""
        shape = (FRAMES, self.pixels, self.pixels) if self.kind == "video" else (self.pixels, self.pixels)
        return [torch.randn(IMAGES, 3, *shape) for _ in range(2 if self.kind == "pair" else 1)]


def _read(library: str, lines: str, kind: str = "image") -> list[Model]:
    """Read lines of a family, a name, and pixels. ``=`` before the pixels: the model is built for this size."""
    rows = [line.split() for line in lines.strip().splitlines()]
    return [Model(library, family, key, int(px.strip("=")), px[0] == "=", kind) for family, key, px in rows]


_IMAGES = """
    alexnet alexnet 64
    convnext convnext_tiny 64
    densenet densenet121 64
    efficientnet efficientnet_b0 64
    efficientnet efficientnet_v2_s 64
    googlenet googlenet 64
    inception inception_v3 96
    maxvit maxvit_t 224
    mnasnet mnasnet0_5 64
    mobilenetv2 mobilenet_v2 64
    mobilenetv3 mobilenet_v3_small 64
    regnet regnet_x_400mf 64
    regnet regnet_y_400mf 64
    resnet resnet18 64
    resnet resnet50 64
    resnet resnext50_32x4d 64
    resnet wide_resnet50_2 64
    shufflenetv2 shufflenet_v2_x0_5 64
    squeezenet squeezenet1_0 64
    squeezenet squeezenet1_1 64
    swin swin_t 64
    swin swin_v2_t 64
    vgg vgg11 64
    vgg vgg11_bn 64
    vit vit_b_32 =64
    segmentation deeplabv3_mobilenet_v3_large 64
    segmentation fcn_resnet50 64
    segmentation lraspp_mobilenet_v3_large 64
"""
_VIDEOS = """
    video r3d_18 32
    video mc3_18 32
    video r2plus1d_18 32
    video swin3d_t 64
"""
_PAIRS = """
    optical_flow raft_small 128
"""
_TIMM = """
    beit beit_base_patch16_224 =64
    byoanet halonet_h1 256
    byoanet botnet26t_256 256
    byobnet mobileone_s1 64
    byobnet repvgg_a0 64
    byobnet gernet_s 64
    byobnet resnext26ts 64
    cait cait_xxs24_224 =64
    coat coat_tiny =64
    convit convit_tiny =64
    convmixer convmixer_768_32 64
    convnext convnext_atto 64
    cpubone cpubone_nano 64
    crossvit crossvit_tiny_240 64
    csatv2 csatv2 64
    cspnet cs3darknet_focus_s 64
    cspnet cspresnet50 64
    cspnext cspnext_tiny 64
    davit davit_tiny 64
    deit deit_tiny_patch16_224 =64
    densenet densenet121 64
    dla dla46x_c 64
    dpn dpn48b 64
    edgenext edgenext_xx_small 64
    efficientformer efficientformer_l1 224
    efficientformer_v2 efficientformerv2_s0 =64
    efficientnet tinynet_e 64
    efficientnet efficientnet_lite0 64
    efficientnet mnasnet_small 64
    efficientnet mobilenetv2_035 64
    efficientnet mixnet_s 64
    efficientnet fbnetc_100 64
    efficientnet mobilenetv4_conv_small 64
    efficientvim efficientvim_m1 64
    efficientvit_mit efficientvit_b0 64
    efficientvit_msra efficientvit_m0 64
    eva vit_tiny_patch16_dinov3_qkvb 64
    fasternet fasternet_t0 64
    fastvit fastvit_t8 64
    focalnet focalnet_tiny_srf 64
    gcvit gcvit_xxtiny =64
    ghostnet ghostnet_050 64
    hardcorenas hardcorenas_b 64
    hgnet hgnetv2_b0 64
    hiera hiera_tiny_224 =64
    hieradet_sam2 sam2_hiera_tiny 64
    hrnet hrnet_w18_small 64
    iformer iformer_t 64
    inception_next inception_next_atto 64
    inception_resnet_v2 inception_resnet_v2 96
    inception_v3 inception_v3 128
    inception_v4 inception_v4 96
    lcnetv2 lcnetv2_small 64
    levit levit_128s =64
    lowformer lowformer_b0 64
    mambaout mambaout_femto 64
    maxxvit coatnet_pico_rw_224 =64
    maxxvit maxvit_rmlp_pico_rw_256 256
    metaformer poolformerv2_s12 64
    metaformer caformer_s18 64
    mlp_mixer gmlp_ti16_224 =64
    mlp_mixer mixer_s32_224 =64
    mlp_mixer resmlp_12_224 =64
    mobilenetv3 lcnet_035 64
    mobilenetv3 mobilenetv3_small_050 64
    mobilenetv5 mobilenetv5_base 64
    mobilevit mobilevit_xxs 64
    mobilevit mobilevitv2_050 64
    mvitv2 mvitv2_tiny 64
    naflexvit naflexvit_base_patch16_parfac_gap 64
    nasnet nasnetalarge 64
    nest nest_tiny =64
    nextvit nextvit_small 64
    nfnet nf_regnet_b0 64
    nfnet nf_resnet26 64
    pit pit_ti_224 =64
    pnasnet pnasnet5large 64
    pvt_v2 pvt_v2_b0 64
    qwen3_vit qwen3_vit_88m 64
    rdnet rdnet_tiny 64
    regnet regnetx_002 64
    regnet regnety_002 64
    repghost repghostnet_050 64
    repvit repvit_m1 64
    res2net res2next50 64
    res2net res2net50_14w_8s 64
    resnest resnest14d 64
    resnet resnet10t 64
    resnet seresnext26t_32x4d 64
    resnetv2 resnetv2_18 64
    rexnet rexnet_100 64
    selecsls selecsls42 64
    senet legacy_seresnet18 64
    sequencer sequencer2d_s 64
    shvit shvit_s1 64
    sknet skresnet18 64
    starnet starnet_s050 64
    swiftformer swiftformer_xs 64
    swin_transformer swin_tiny_patch4_window7_224 =64
    swin_transformer_v2 swinv2_tiny_window8_256 =64
    swin_transformer_v2_cr swinv2_cr_tiny_224 =64
    tiny_vit tiny_vit_5m_224 64
    tnt tnt_s_legacy_patch16_224 =64
    tresnet tresnet_m 64
    twins twins_svt_small 64
    vgg vgg11 64
    visformer visformer_tiny =64
    vision_transformer vit_tiny_patch16_224 =64
    vision_transformer_hybrid vit_tiny_r_s16_p8_224 =64
    vision_transformer_relpos vit_srelpos_small_patch16_224 =64
    vision_transformer_sam samvit_base_patch16_224 64
    vitamin vitamin_small_224 =64
    volo volo_d1_224 =64
    vovnet ese_vovnet19b_slim_dw 64
    vovnet ese_vovnet39b 64
    xception legacy_xception 64
    xception_aligned xception41p 64
    xcit xcit_nano_12_p8_224 64
"""
_TINY = """
    byobnet test_byobnet 32
    convnext test_convnext 32
    efficientnet test_efficientnet 32
    mambaout test_mambaout 32
    nfnet test_nfnet 32
    resnet test_resnet 32
    vision_transformer test_vit =32
    vision_transformer_relpos test_vit_relpos =32
"""
MODELS = (
    *_read("torchvision", _IMAGES),
    *_read("torchvision", _VIDEOS, "video"),
    *_read("torchvision", _PAIRS, "pair"),
    *_read("timm", _TIMM),
)
TINY = _read("timm", _TINY)
"""Models that timm tests itself with. They count for no goal of the whole run."""
NOT_RESIDUAL = {
    "torchvision/alexnet": "a chain",
    "torchvision/densenet121": "concatenates",
    "torchvision/googlenet": "concatenates",
    "torchvision/inception_v3": "concatenates",
    "torchvision/shufflenet_v2_x0_5": "concatenates",
    "torchvision/squeezenet1_0": "concatenates",
    "torchvision/squeezenet1_1": "concatenates",
    "torchvision/vgg11": "a chain",
    "torchvision/vgg11_bn": "a chain",
    "timm/densenet121": "concatenates",
    "timm/test_efficientnet": "no block of it keeps its channels and its size",
    "timm/ese_vovnet19b_slim_dw": "concatenates; its shortcuts begin with the second block of a stage, which it lacks",
    "timm/inception_v3": "concatenates",
    "timm/inception_v4": "concatenates",
    "timm/lcnet_035": "a chain",
    "timm/rdnet_tiny": "concatenates",
    "timm/selecsls42": "concatenates",
    "timm/vgg11": "a chain",
}
"""Models without residual blocks, with the reason. RepVGG and MobileOne, whose blocks add their input to linear layers,
count as residual."""


def choose(patterns: list[str]) -> list[Model]:
    """The models whose names match one of the patterns, of ``fnmatch``, among them those of ``TINY``.

    Raises:
        ValueError: If a pattern matches no model.
    """
    known = [*MODELS, *TINY]
    idle = [pattern for pattern in patterns if not any(fnmatch(each.name, pattern) for each in known)]
    if idle:
        raise ValueError(f"`--only` must match models, got {', '.join(idle)}. Write 'timm/*' or '*/resnet18', say.")
    return [each for each in known if any(fnmatch(each.name, pattern) for pattern in patterns)]
