"""What the paper and the peers that it names have published, as its tables say.

Errors are in percent; ``compression`` is all parameters over those left. Source: F. D. de Resende
Oliveira, E. L. O. Batista, R. Seara, "On the Compression of Neural Networks Using ℓ0-Norm
Regularization and Weight Pruning", Neural Networks 171 (2024), whose tables cite the peers.
"""

from typing import Any

Figures = dict[str, Any]


def _errors(*rows: tuple[str, float, float]) -> list[Figures]:
    return [
        {"name": name, "error": error, "compression": compression}
        for name, error, compression in rows
    ]


TABLE_2 = _errors(
    ("No Prune", 1.64, 1.0),
    ("THP", 1.59, 12.0),
    ("DNS", 1.99, 56.0),
    ("BC-GHS", 1.8, 9.0),
    ("SparseVD", 1.92, 68.0),
    ("CPA", 1.77, 85.0),
    ("GSM", 1.82, 60.0),
    ("Autoprune", 1.78, 80.0),
    ("L0-HC", 1.8, 9.99),
    ("L0-ARM", 1.9, 14.2),
    ("L0-ADMM", 1.64, 23.0),
    ("L0-L2-LC", 1.6, 50.0),
    ("L0-L2-LC", 1.99, 66.8),
    ("Proposed (NORM)", 1.85, 90.0),
    ("Proposed (SEP)", 1.99, 96.0),
)
"""LeNet-300-100 on MNIST. L0-ADMM's error is that of the network not pruned."""

TABLE_3 = _errors(
    ("No Prune", 0.8, 1.0),
    ("THP", 0.7, 12.0),
    ("DNS", 0.91, 108.0),
    ("BC-GHS", 1.0, 156.0),
    ("SparseVD", 0.75, 280.0),
    ("CPA", 0.79, 317.0),
    ("GSM", 0.94, 300.0),
    ("Autoprune", 0.91, 310.0),
    ("L0-HC", 1.0, 92.6),
    ("L0-ARM", 1.3, 196.0),
    ("L0-ADMM", 0.8, 71.2),
    ("L0-L2-LC", 0.89, 100.0),
    ("Proposed (NORM)", 0.99, 200.0),
    ("Proposed (SEP)", 0.97, 359.0),
)
"""LeNet-5-Caffe on MNIST. L0-ADMM's error is that of the network not pruned."""


def _increases(*rows: tuple[str, float, float]) -> list[Figures]:
    return [
        {"name": name, "increase": increase, "compression": compression}
        for name, increase, compression in rows
    ]


FIGURE_5, FIGURE_6 = (
    _increases(
        *(
            (row["name"], row["error"] - rows[0]["error"], row["compression"])
            for row in rows
            if row["name"].startswith("Proposed")
        )
    )
    for rows in (TABLE_2, TABLE_3)
)
"""The LeNets' points in Tables 2 and 3, which are all figures that are told of these curves."""

TABLE_4 = _increases(
    ("EConvNets", -0.15, 2.78),
    ("VAR-CONV", 0.07, 3.75),
    ("PP", 0.03, 5.8),
    ("PP", 0.14, 6.43),
    ("RFP", 0.13, 4.6),
    ("RFP", 0.72, 9.52),
    ("Proposed (NORM)", 0.41, 6.92),
    ("Proposed (NORM)", 0.7, 14.76),
)
"""VGG-16 on CIFAR-10: by how much the error grows. SSS, which has no figure, is left out."""

TABLE_5 = _increases(
    ("VAR-CONV", 0.54, 1.26),
    ("CNN-FCF", 1.07, 1.75),
    ("CNN-FCF", 2.67, 3.17),
    ("SNLI", 1.1, 1.59),
    ("SNLI", 3.2, 3.11),
    ("DHP", 1.0, 2.27),
    ("Proposed (NORM)", 1.1, 5.0),
    ("Proposed (SEP)", 1.0, 5.0),
)
"""ResNet-20 on CIFAR-10."""

TABLE_6 = _increases(
    ("VAR-CONV", -0.07, 1.61),
    ("Proposed with α_ℓ0 = 1e-7", 0.3, 4.67),
    ("Proposed with α_ℓ0 = 2.5e-7", 2.67, 10.47),
    ("Proposed with α_ℓ0 = 5e-7", 5.95, 18.63),
)
"""VGG-16 on CIFAR-100."""

TABLE_7: list[Figures] = [
    {"name": name, "increase": increase, "flops_reduction": flops, "compression": compression}
    for name, increase, flops, compression in (
        ("EConvNets", -0.15, 34.2, 2.78),
        ("Proposed (NP)", 0.31, 27.75, 1.46),
        ("Proposed (NP)", 0.49, 42.7, 1.7),
        ("Proposed (NP+GP)", 0.27, 27.75, 9.21),
        ("Proposed (NP+GP)", 0.72, 42.7, 18.38),
    )
]
"""VGG-16 on CIFAR-10, neurons pruned; the reduction of multiply-adds in percent is theirs alone."""
