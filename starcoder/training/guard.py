"""Steps that would do harm are skipped: loss or gradient norm not finite, or far outside what they have been.

The decision is made on the device, from numbers that are the same on every rank, and AdamW obeys it there: the host
never waits for it.
"""

import torch
from torch import Tensor, nn


class StepGuard(nn.Module):
    """Remembers loss and gradient norm of the last steps; its memory is part of every checkpoint.

    Args:
        deviations: a step is skipped when either value lies more than this many standard deviations (of a hundredth
            of the mean at least) above the mean of the last `window` steps; 0 skips only what is not finite.
        window: steps that are remembered; until there are so many, only what is not finite is skipped.
    """

    history: Tensor
    seen: Tensor
    skipped: Tensor

    def __init__(self, deviations: float = 6.0, window: int = 128) -> None:
        super().__init__()
        self.deviations = deviations
        self.window = window
        self.register_buffer("history", torch.zeros(window, 2))
        self.register_buffer("seen", torch.zeros(1, dtype=torch.long))
        self.register_buffer("skipped", torch.zeros(1, dtype=torch.long))

    @torch.no_grad()
    def forward(self, loss: Tensor, norm: Tensor) -> Tensor:
        """Whether to skip the step with this loss and gradient norm: a scalar, 1.0 or 0.0, on their device.

        Outliers enter the history too, cut to the limit: one of any size moves it little, and a lasting change of level
        is accepted once it has widened the spread, after some tens of steps.
        """
        values = torch.stack([loss.float(), norm.float()])  # (2,)
        finite = values.isfinite().all()
        mean = self.history.mean(0)  # (2,)
        limit = mean + self.deviations * self.history.std(0).maximum(mean.abs() / 100)  # (2,)
        judging = (self.seen >= self.window) & (self.deviations > 0)  # (1,)
        outlier = ((values > limit) & judging).any()
        skip = ~finite | outlier
        slot = self.seen % self.window
        kept = values.minimum(limit).where(judging, values).where(finite, self.history[slot].squeeze(0))  # (2,)
        self.history.index_copy_(0, slot, kept.unsqueeze(0))
        self.seen += finite
        self.skipped += skip
        return skip.float()
