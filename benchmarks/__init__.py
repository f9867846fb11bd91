"""Speed and memory against peers: every figure is a ratio of two things measured in one run."""
