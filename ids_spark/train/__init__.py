"""Horovod-distributed training of Keras models, fed by Petastorm."""
