"""Networks: their layers, their directories, their scores and what explains them."""
