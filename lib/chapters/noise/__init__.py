"""The chapter on noise: what a method loses to it, in training and at test."""
