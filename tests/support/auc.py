"""The area under the ROC curve by scikit-learn, the reference for our own implementation."""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score


def sklearn_auc(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    _, rank = np.unique(np.concatenate((a, b)), return_inverse=True)  # scikit-learn takes no infinity
    auc = roc_auc_score(np.r_[np.ones(len(a)), np.zeros(len(b))], rank)
    return float(max(auc, 1 - auc))
