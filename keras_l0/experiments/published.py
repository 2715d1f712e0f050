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
