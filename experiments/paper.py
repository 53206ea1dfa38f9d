"""The numbers that Delanois et al. 2023 print, for the column beside ours."""

__all__ = ["EXPANSION", "GRADIENT_KL", "GRADIENT_VARIANCE", "OVERLAP"]

GRADIENT_VARIANCE = {
    ("mnist", "conv1"): {"baseline": 0.0721, "SRC": 0.147, "GradExp": 0.272},
    ("mnist", "conv2"): {"baseline": 0.0106, "SRC": 0.0436, "GradExp": 0.0418},
    ("cifar10", "conv1"): {"baseline": 0.148, "SRC": 0.171, "GradExp": 0.183},
    ("cifar10", "conv2"): {"baseline": 0.00975, "SRC": 0.0104, "GradExp": 0.0103},
}
"""Table III: variance of the pixel-wise spatial gradient of the filters."""

GRADIENT_KL = {
    ("mnist", "conv1"): {"baseline": 0.150, "GradExp": 0.0314},
    ("mnist", "conv2"): {"baseline": 0.308, "GradExp": 0.00766},
    ("cifar10", "conv1"): {"baseline": 0.00644, "GradExp": 0.000284},
    ("cifar10", "conv2"): {"baseline": 0.000875, "GradExp": 0.0000251},
}
"""Table IV: KL divergence of Gaussians fitted to those gradients, to that after SRC."""

EXPANSION = {
    ("mnist", "conv1"): (0.70, 0.21, 0.32, 0.11, 0.43, 0.31, 0.34, 0.34, 0.19, 0.11),
    ("mnist", "conv2"): (0.11, 0.09, 0.09, 0.10, 0.08, 0.14, 0.08, 0.07, 0.12, 0.11),
    ("cifar10", "conv1"): (
        0.035, 0.050, 0.050, 0.080, 0.070, 0.060, 0.075, 0.060, 0.065, 0.040,
    ),
    ("cifar10", "conv2"): (
        0.005, 0.005, 0.004, 0.003, 0.003, 0.005, 0.005, 0.004, 0.004, 0.004,
    ),
}  # fmt: skip
"""Table V: the a of GradExp, for each of the authors' ten trials."""

OVERLAP = {
    "baseline": 0.145, "SRC": 0.229, "SRC+FFF": 0.193, "GradExp": 0.146, "GradExp+FFF": 0.150,
}  # fmt: skip
"""Table VI: mean cosine similarity of Grad-CAM with the clean MNIST digit."""
