"""What a run needs before it is started (paper §5.7): memory, time, energy; the real model and strategy, no GPU."""
