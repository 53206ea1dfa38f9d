"""Where a network looks, by Grad-CAM (Delanois et al. 2023, Table VI; Selvaraju et al. 2017)."""

import torch
from captum.attr import LayerAttribution, LayerGradCam
from torch import Tensor, nn

from srcsnn.classifiers import evaluating

__all__ = ["attention_maps", "overlap"]

_BATCH = 128
"""Images at a time. The widest layer of the paper's CIFAR-10 network then takes 23 MB."""


def attention_maps(model: nn.Module, layer: str, images: Tensor, targets: Tensor) -> Tensor:
    """Grad-CAM of a layer for each image's own target class, negative parts set to zero.

    It is taken on what the module itself puts out. `PaperCNN` applies ReLU as a function after its
    convolutions, so that for `conv2` this is the convolution before ReLU, negative values included.

    Args:
        model: maps (B, C, H, W) to scores (B, classes). Used in eval mode; left as it was.
        layer: the module's name in the model; the paper's choice is the last convolution.
        images: (N, C, H, W) in [0, 1].
        targets: (N,) class numbers.

    Returns:
        (N, H, W), 0 or more, upsampled bilinearly to the images' size; dtype and device as of the
        images, without a graph.

    Raises:
        ValueError: if there is not one target for each image, or the layer puts out no maps.
        AttributeError: if the model has no such layer.
    """
    if targets.shape != (len(images),):  # captum would take a single one for all images
        raise ValueError(f"{tuple(targets.shape)} targets for {len(images)} images; one each")
    like = next(model.parameters())
    grad_cam = LayerGradCam(model, model.get_submodule(layer))
    maps = images.new_empty(len(images), *images.shape[2:])
    with evaluating(model):
        for start in range(0, len(images), _BATCH):
            part = slice(start, start + _BATCH)
            batch = images[part].to(like, copy=True)  # a network may write to it
            found: Tensor = grad_cam.attribute(
                batch, targets[part].to(like.device), relu_attributions=True
            ).detach()  # or it would keep the batch's graph
            if found.dim() != 4:
                raise ValueError(f"layer {layer!r} puts out no maps; name a convolution")
            maps[part] = LayerAttribution.interpolate(found, maps.shape[1:], "bilinear")[:, 0]
    return maps


def overlap(maps: Tensor, clean_images: Tensor) -> Tensor:
    """Cosine similarity of each map with the mask of its clean image's non-zero pixels.

    Args:
        maps: (N, H, W), 0 or more.
        clean_images: (N, C, H, W); a pixel counts if any of its channels is not zero.

    Returns:
        (N,) in [0, 1], float64; 0 where a map or a mask is zero everywhere.

    Raises:
        ValueError: if the maps do not have the images' number and size.

    >>> maps = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    >>> overlap(maps, torch.ones(2, 1, 2, 2))
    tensor([0.7071, 0.0000], dtype=torch.float64)
    """
    if clean_images.dim() != 4 or maps.shape != clean_images[:, 0].shape:
        raise ValueError(
            f"maps of shape {tuple(maps.shape)} do not fit images of shape "
            f"{tuple(clean_images.shape)}; (N, H, W) and (N, C, H, W) are needed"
        )
    seen = maps.detach().double().flatten(1)
    mask = (clean_images != 0).any(1).to(seen).flatten(1)
    # torch's cosine_similarity has an epsilon, which would take faint maps for no maps.
    norms = seen.norm(dim=1) * mask.norm(dim=1)
    return torch.where(norms > 0, (seen * mask).sum(1) / norms, 0.0)
