"""Networks: layers, architectures, model directories, aliases, thresholds and attributions."""
