"""Distributed training of Keras models with Horovod, on rows that Petastorm reads."""
