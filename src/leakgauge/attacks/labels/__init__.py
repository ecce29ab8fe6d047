"""Label recovery from an update."""

from leakgauge.attacks.labels.recover import RecoveredLabels, recover_labels

__all__ = ["RecoveredLabels", "recover_labels"]
