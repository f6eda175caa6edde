"""A site's own nights as training data, and the comparison of the models that learned them with the champion."""
